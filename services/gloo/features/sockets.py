"""A listener's sockets: what is kept of a connection, the operating system's options, the PROXY protocol."""

from __future__ import annotations

from collections.abc import Sequence

from protos import gloo
from protos.envoy import core, listener, proxy_protocol
from services.gloo.plugin import ALL, Feature, Patch, Scope
from shared.codec.encode import pack

PROXY_PROTOCOL = "envoy.filters.listener.proxy_protocol"
MAX_TYPE = 255


def keep(limit: int, scope: Scope) -> Patch:
    return Patch(fields={"per_connection_buffer_limit_bytes": limit})


def set_options(options: Sequence[gloo.SocketOption], scope: Scope) -> Patch:
    for i, each in enumerate(options):
        if each.int_value is None and each.buf_value is None:
            scope.error(f"[{i}]", "no value; one of intValue, bufValue")
    found = [
        core.SocketOption(
            description=each.description,
            level=each.level,
            name=each.name,
            int_value=each.int_value,
            buf_value=each.buf_value,
            state=core.SocketOptionSocketState(each.state),
        )
        for each in options
    ]
    return Patch(fields={"socket_options": found})


def balance(given: gloo.ConnectionBalanceConfig, scope: Scope) -> Patch:
    if given.exact_balance is None:
        scope.error("exactBalance", "required")
    exact = listener.ListenerConnectionBalanceConfigExactBalance()
    config = listener.ListenerConnectionBalanceConfig(exact_balance=exact)
    return Patch(fields={"connection_balance_config": config})


def expect_proxies(given: gloo.ProxyProtocol, scope: Scope) -> Patch:
    rules = []
    for i, rule in enumerate(given.rules):
        at = f"rules[{i}]"
        place = rule.on_tlv_present or gloo.ProxyProtocolKeyValuePair()
        if rule.tlv_type > MAX_TYPE:
            scope.error(f"{at}.tlvType", f"{rule.tlv_type} is out of range; 0 to {MAX_TYPE}")
        if not place.key:
            scope.error(f"{at}.onTlvPresent.key", "required")
        pair = proxy_protocol.ProxyProtocolKeyValuePair(
            metadata_namespace=place.metadata_namespace, key=place.key
        )
        rules.append(proxy_protocol.ProxyProtocolRule(tlv_type=rule.tlv_type, on_tlv_present=pair))
    config = pack(proxy_protocol.ProxyProtocol(rules=rules))
    return Patch(
        fields={"listener_filters": [listener.ListenerFilter(name=PROXY_PROTOCOL, typed_config=config)]}
    )


FEATURES = (
    Feature(name="perConnectionBufferLimitBytes", on_any_listener=keep),
    Feature(name="socketOptions", reads={"SocketOption": ALL}, on_any_listener=set_options),
    Feature(
        name="connectionBalanceConfig",
        reads={"ConnectionBalanceConfig": ALL, "ConnectionBalanceConfig.ExactBalance": ALL},
        on_any_listener=balance,
    ),
    Feature(
        name="proxyProtocol",
        reads={
            "ProxyProtocol": ("rules",),
            "ProxyProtocol.Rule": ALL,
            "ProxyProtocol.KeyValuePair": ALL,
        },
        on_any_listener=expect_proxies,
    ),
)
