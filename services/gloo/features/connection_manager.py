"""How HTTP is spoken with a listener's clients: times, sizes, addresses, paths, versions, upgrades."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from protos import gloo
from protos.envoy import core, early_headers, hcm, mutation_rules, uuid_request_id
from services.gloo import checks
from services.gloo.features import tracing
from services.gloo.features.headers import added, removed
from services.gloo.features.upgrades import WEBSOCKET, named_upgrades
from services.gloo.features.upstream_http import LARGEST, ONLY_HTTP2, header_key_format
from services.gloo.plugin import ALL, Feature, Patch, Policy, Scope, within
from shared.codec.encode import pack

EARLY = "envoy.http.early_header_mutation.header_mutation"
UNDERSCORES = core.HttpProtocolOptionsHeadersWithUnderscoresAction
HTTP1 = gloo.HttpConnectionManagerSettingsCodecType.HTTP1
CERTIFICATE_TOLD = (
    gloo.HttpConnectionManagerSettingsForwardClientCertDetails.APPEND_FORWARD,
    gloo.HttpConnectionManagerSettingsForwardClientCertDetails.SANITIZE_SET,
)
OWN_TIMES = {
    "streamIdleTimeout": "stream_idle_timeout",
    "requestTimeout": "request_timeout",
    "requestHeadersTimeout": "request_headers_timeout",
    "drainTimeout": "drain_timeout",
    "delayedCloseTimeout": "delayed_close_timeout",
}
COMMON_TIMES = {
    "idleTimeout": "idle_timeout",
    "maxConnectionDuration": "max_connection_duration",
    "maxStreamDuration": "max_stream_duration",
}
TEXTS = {"serverName": "server_name", "via": "via", "defaultHostForHttp10": "default_host_for_http_10"}
LIMITS = {
    "maxRequestHeadersKb": ("max_request_headers_kb", 8192),
    "maxHeadersCount": ("max_headers_count", LARGEST),
}


def speak(given: gloo.HttpConnectionManagerSettings, scope: Scope) -> Patch:
    check(given, scope)
    warn_of_the_ineffective(given, scope)
    fields: dict[str, Any] = {
        **{attribute: getattr(given, attribute) for attribute in OWN_TIMES.values()},
        "codec_type": hcm.HttpConnectionManagerCodecType(given.codec_type),
        "common_http_protocol_options": common_options(given),
        "http_protocol_options": http1_options(given, scope),
        "http2_protocol_options": http2_options(given.http2_protocol_options, scope),
        **addresses(given, scope),
        "via": given.via or "",
        "server_name": given.server_name or "",
        "server_header_transformation": hcm.HttpConnectionManagerServerHeaderTransformation(
            given.server_header_transformation
        ),
        "generate_request_id": given.generate_request_id,
        "preserve_external_request_id": bool(given.preserve_external_request_id),
        "request_id_extension": request_id(given.uuid_request_id_config),
        "max_request_headers_kb": given.max_request_headers_kb,
        "normalize_path": given.normalize_path is not False,
        "merge_slashes": bool(given.merge_slashes),
        "path_with_escaped_slashes_action": hcm.HttpConnectionManagerPathWithEscapedSlashesAction(
            given.path_with_escaped_slashes_action
        ),
        "strip_any_host_port": given.strip_any_host_port,
        "upgrade_configs": upgrades(given.upgrades, scope),
        "forward_client_cert_details": hcm.HttpConnectionManagerForwardClientCertDetails(
            given.forward_client_cert_details
        ),
        "set_current_client_cert_details": certificate_details(given),
        "tracing": traced(given, scope),
        "proxy_100_continue": bool(given.proxy_100_continue),
        "early_header_mutation_extensions": early_changes(given.early_header_manipulation, scope),
    }
    return Patch(fields=fields)


def check(given: gloo.HttpConnectionManagerSettings, scope: Scope) -> None:
    for name, attribute in (OWN_TIMES | COMMON_TIMES).items():
        if (time := getattr(given, attribute)) is not None and (problem := checks.duration(time)):
            scope.error(name, problem)
    for name, attribute in TEXTS.items():
        if problem := checks.text_value(getattr(given, attribute) or ""):
            scope.error(name, problem)
    for name, (attribute, most) in LIMITS.items():
        if (number := getattr(given, attribute)) is not None and not 1 <= number <= most:
            scope.error(name, f"{number} is out of range; 1 to {most}")


def warn_of_the_ineffective(given: gloo.HttpConnectionManagerSettings, scope: Scope) -> None:
    told = given.forward_client_cert_details in CERTIFICATE_TOLD
    for name, useless, needed in (
        ("skipXffAppend", given.skip_xff_append and not given.use_remote_address, "useRemoteAddress"),
        ("defaultHostForHttp10", given.default_host_for_http_10 and not given.accept_http_10, "acceptHttp10"),
        (
            "setCurrentClientCertDetails",
            given.set_current_client_cert_details is not None and not told,
            "forwardClientCertDetails: SANITIZE_SET or APPEND_FORWARD",
        ),
    ):
        if useless:
            scope.warn(name, f"has no effect without {needed}")
    if given.http2_protocol_options is not None and given.codec_type is HTTP1:
        scope.warn("http2ProtocolOptions", "has no effect with codecType: HTTP1")


def common_options(given: gloo.HttpConnectionManagerSettings) -> core.HttpProtocolOptions | None:
    """To Envoy, a connection that may live no time at all is closed at once; to us it has no limit."""
    found = core.HttpProtocolOptions(
        idle_timeout=given.idle_timeout,
        max_connection_duration=given.max_connection_duration or None,
        max_stream_duration=given.max_stream_duration or None,
        max_headers_count=given.max_headers_count,
        max_requests_per_connection=given.max_requests_per_connection or None,
        headers_with_underscores_action=UNDERSCORES(given.headers_with_underscores_action),
    )
    return found if found != core.HttpProtocolOptions() else None


def http1_options(
    given: gloo.HttpConnectionManagerSettings, scope: Scope
) -> core.Http1ProtocolOptions | None:
    validation = scope.options.header_validation_settings or gloo.HeaderValidationSettings()
    found = core.Http1ProtocolOptions(
        accept_http_10=bool(given.accept_http_10),
        default_host_for_http_10=given.default_host_for_http_10 or "",
        allow_chunked_length=bool(given.allow_chunked_length),
        enable_trailers=bool(given.enable_trailers),
        header_key_format=header_key_format(
            proper_case=given.proper_case_header_key_format,
            preserve_case=given.preserve_case_header_key_format,
        ),
        allow_custom_methods=validation.disable_http1_method_validation is not None,
    )
    return found if found != core.Http1ProtocolOptions() else None


def http2_options(given: gloo.Http2ProtocolOptions | None, scope: Scope) -> core.Http2ProtocolOptions | None:
    if given is None:
        return None
    for name, attribute, least in ONLY_HTTP2:
        value = getattr(given, attribute)
        if value is not None and not least <= value <= LARGEST:
            scope.error(f"http2ProtocolOptions.{name}", f"{value} is out of range; {least} to {LARGEST}")
    return core.Http2ProtocolOptions(
        max_concurrent_streams=given.max_concurrent_streams,
        initial_stream_window_size=given.initial_stream_window_size,
        initial_connection_window_size=given.initial_connection_window_size,
        override_stream_error_on_invalid_http_message=given.override_stream_error_on_invalid_http_message,
    )


def addresses(given: gloo.HttpConnectionManagerSettings, scope: Scope) -> Mapping[str, Any]:
    """What is made of the client's address."""
    return {
        "use_remote_address": given.use_remote_address,
        "xff_num_trusted_hops": given.xff_num_trusted_hops or 0,
        "skip_xff_append": bool(given.skip_xff_append),
        "append_x_forwarded_port": bool(given.append_xforwarded_port),
        "internal_address_config": internal_addresses(given.internal_address_config, scope),
    }


def internal_addresses(
    given: gloo.HttpConnectionManagerSettingsInternalAddressConfig | None, scope: Scope
) -> hcm.HttpConnectionManagerInternalAddressConfig | None:
    if given is None:
        return None
    ranges = []
    for i, each in enumerate(given.cidr_ranges):
        at = f"internalAddressConfig.cidrRanges[{i}]"
        bits = each.prefix_len or 0
        if not checks.is_ip(each.address_prefix):
            scope.error(f"{at}.addressPrefix", f"{checks.shown(each.address_prefix)} is no IP address")
        elif bits > (most := ip_address(each.address_prefix).max_prefixlen):
            scope.error(f"{at}.prefixLen", f"{bits} is out of range; 0 to {most}")
        ranges.append(core.CidrRange(address_prefix=each.address_prefix, prefix_len=bits))
    return hcm.HttpConnectionManagerInternalAddressConfig(
        unix_sockets=bool(given.unix_sockets), cidr_ranges=ranges
    )


def request_id(
    given: gloo.HttpConnectionManagerSettingsUuidRequestIdConfigSettings | None,
) -> hcm.RequestIdExtension | None:
    if given is None:
        return None
    config = uuid_request_id.UuidRequestIdConfig(
        pack_trace_reason=given.pack_trace_reason,
        use_request_id_for_trace_sampling=given.use_request_id_for_trace_sampling,
    )
    return hcm.RequestIdExtension(typed_config=pack(config))


def upgrades(
    given: Sequence[gloo.ProtocolUpgradeConfig], outer: Scope
) -> list[hcm.HttpConnectionManagerUpgradeConfig]:
    """WebSocket is allowed where nothing is said of it."""
    scope = within(outer, "upgrades")
    found = {WEBSOCKET: hcm.HttpConnectionManagerUpgradeConfig(upgrade_type=WEBSOCKET)}
    for kind, spec, i in named_upgrades(given, scope):
        if given[i].connect_terminate is not None:
            scope.error(f"[{i}].connectTerminate", "stands in a route's options; here connect allows it")
        found[kind] = hcm.HttpConnectionManagerUpgradeConfig(upgrade_type=kind, enabled=spec.enabled)
    return list(found.values())


def traced(
    given: gloo.HttpConnectionManagerSettings, scope: Scope
) -> hcm.HttpConnectionManagerTracing | None:
    if given.tracing is None:
        return None
    return tracing.follow(given.tracing, within(scope, "tracing"))


def certificate_details(
    given: gloo.HttpConnectionManagerSettings,
) -> hcm.HttpConnectionManagerSetCurrentClientCertDetails | None:
    details = given.set_current_client_cert_details
    if details is None or given.forward_client_cert_details not in CERTIFICATE_TOLD:
        return None
    return hcm.HttpConnectionManagerSetCurrentClientCertDetails(
        subject=details.subject,
        cert=bool(details.cert),
        chain=bool(details.chain),
        dns=bool(details.dns),
        uri=bool(details.uri),
    )


def early_changes(
    given: gloo.EarlyHeaderManipulation | None, outer: Scope
) -> list[core.TypedExtensionConfig]:
    """Removed first, then added, as header manipulation does everywhere else."""
    if given is None:
        return []
    scope = within(outer, "earlyHeaderManipulation")
    gone = removed(given.headers_to_remove, "headersToRemove", scope)
    new = added(given.headers_to_add, "headersToAdd", scope)
    changes = [mutation_rules.HeaderMutation(remove=name) for name in gone]
    changes += [mutation_rules.HeaderMutation(append=option) for option in new]
    config = early_headers.HeaderMutation(mutations=changes)
    return [core.TypedExtensionConfig(name=EARLY, typed_config=pack(config))] if changes else []


def validate(given: gloo.HeaderValidationSettings, scope: Scope) -> Patch:
    """Taken into account above, as Envoy has it among the options of HTTP/1."""
    return Patch()


def default(policy: Policy) -> gloo.HttpConnectionManagerSettings:
    """No HTTP listener is without a connection manager."""
    return gloo.HttpConnectionManagerSettings()


FEATURES = (
    Feature(
        name="httpConnectionManagerSettings",
        reads={
            "HttpConnectionManagerSettings": (
                *OWN_TIMES,
                *COMMON_TIMES,
                *TEXTS,
                *LIMITS,
                *("codecType", "useRemoteAddress", "xffNumTrustedHops", "skipXffAppend"),
                *("appendXForwardedPort", "internalAddressConfig", "serverHeaderTransformation"),
                *("generateRequestId", "preserveExternalRequestId", "uuidRequestIdConfig"),
                *("maxRequestsPerConnection", "headersWithUnderscoresAction", "normalizePath"),
                *("mergeSlashes", "pathWithEscapedSlashesAction", "stripAnyHostPort", "upgrades"),
                *("tracing", "forwardClientCertDetails", "setCurrentClientCertDetails", "proxy100Continue"),
                *("acceptHttp10", "allowChunkedLength", "enableTrailers", "properCaseHeaderKeyFormat"),
                *("preserveCaseHeaderKeyFormat", "http2ProtocolOptions", "earlyHeaderManipulation"),
            ),
            "HttpConnectionManagerSettings.SetCurrentClientCertDetails": ALL,
            "HttpConnectionManagerSettings.UuidRequestIdConfigSettings": ALL,
            "HttpConnectionManagerSettings.InternalAddressConfig": ALL,
            "HttpConnectionManagerSettings.CidrRange": ALL,
            "Http2ProtocolOptions": ALL,
            "EarlyHeaderManipulation": ALL,
        },
        default=default,
        on_listener=speak,
    ),
    Feature(name="headerValidationSettings", reads={"HeaderValidationSettings": ALL}, on_listener=validate),
)
