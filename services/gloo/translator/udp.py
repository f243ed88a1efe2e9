"""UDP: datagrams of a listener to one upstream, and its answers back, while the session lasts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from protos import gloo
from protos.envoy import core, listener, udp_proxy, xds_core, xds_matcher
from services.gloo import checks
from services.gloo.plugin import Scope, within
from services.gloo.resources import resource
from services.gloo.translator.addresses import UDP, address_of
from services.gloo.translator.destination import Found, translate_destination
from services.gloo.translator.filter_chains import NO_CONFIGS
from services.gloo.translator.listener import Surroundings, TranslatedListener, check_listener
from services.gloo.translator.names import UDP_STAT_PREFIX, ref_of
from services.gloo.translator.patches import join_patches
from services.gloo.translator.sources import Reports, attribute
from services.gloo.translator.supported import refuse_unread
from shared.codec.encode import encode, pack
from shared.report import Report

UDP_PROXY = "envoy.filters.udp_listener.udp_proxy"
LARGEST = 65535
ABOUT_CONNECTIONS = {
    "listenerAccessLoggingService": "listener_access_logging_service",
    "perConnectionBufferLimitBytes": "per_connection_buffer_limit_bytes",
    "proxyProtocol": "proxy_protocol",
    "connectionBalanceConfig": "connection_balance_config",
    "tcpStats": "tcp_stats",
}


def translate_udp(given: gloo.Listener, around: Surroundings) -> TranslatedListener:
    """A listener of datagrams. With a mistake all of it stays as it was."""
    report, found, made, origins = Report(), Found(), None, around.origins(given)
    refuse_unread(given, report)
    check_listener(given, report)
    if around.conflict:
        report.error("", around.conflict)
    scope = replace(around.scope("udpListener", report), tcp=True)
    check_options(given, report)
    frame = join_patches("on_any_listener", given.options, replace(scope, path="options"))
    with report.collect():
        proxy = translate_proxy(given.udp_listener or gloo.UdpListener(), frame.manager, scope, found)
        if not report.errors:
            out = build(given, proxy)
            frame.write(out)
            made = resource(given.name, encode(out), {origin.source for origin in origins})
    reports = Reports()
    attribute(report, origins, reports)
    return TranslatedListener(
        resource=made,
        reports=reports,
        tls=NO_CONFIGS,
        secrets={},
        selections=frozenset(found.selections if made is not None else ()),
    )


def check_options(given: gloo.Listener, report: Report) -> None:
    options = given.options or gloo.ListenerOptions()
    for name, attribute_name in ABOUT_CONNECTIONS.items():
        if getattr(options, attribute_name) is not None:
            report.error(f"options.{name}", "is about connections, of which UDP has none")
    if given.use_proxy_proto:
        report.error("useProxyProto", "is about connections, of which UDP has none")
    if given.ssl_configurations:
        report.error("sslConfigurations", "is about connections, of which UDP has none")
    if given.route_options is not None:
        report.warn("routeOptions", "has no effect on UDP")


def translate_proxy(
    given: gloo.UdpListener, fields: Mapping[str, Any], scope: Scope, found: Found
) -> udp_proxy.UdpProxyConfig:
    """*fields* are more of the proxy's."""
    if problem := checks.text_value(given.stat_prefix):
        scope.error("statPrefix", problem)
    cluster = destination(given, within(scope, "destination"), found)
    options = given.options or gloo.UdpListenerOptions()
    if options.idle_timeout is not None and (problem := checks.duration(options.idle_timeout, positive=True)):
        scope.error("options.idleTimeout", problem)
    size = options.max_datagram_size
    if size is not None and not 1 <= size <= LARGEST:
        scope.error("options.maxDatagramSize", f"{size} is out of range; 1 to {LARGEST}")
    hashes = [udp_proxy.UdpProxyConfigHashPolicy(source_ip=True)] if options.hash_source_ip else []
    route = xds_core.TypedExtensionConfig(name="route", typed_config=pack(udp_proxy.Route(cluster=cluster)))
    return udp_proxy.UdpProxyConfig(
        stat_prefix=given.stat_prefix or UDP_STAT_PREFIX,
        matcher=xds_matcher.Matcher(on_no_match=xds_matcher.MatcherOnMatch(action=route)),
        idle_timeout=options.idle_timeout,
        hash_policies=hashes,
        use_per_packet_load_balancing=options.per_packet_load_balancing,
        upstream_socket_config=sockets(options),
        **fields,
    )


def destination(given: gloo.UdpListener, scope: Scope, found: Found) -> str:
    """The name of the cluster."""
    to = given.destination
    if to is None:
        scope.error("", "required")
        return ""
    if to.subset is not None:
        scope.error("subset", "cannot be had over UDP; make it an upstream of its own")
    # An HTTP answer in place of a missing upstream's would be no answer here.
    policy = replace(scope.policy, replace_invalid_routes=False)
    whole = replace(to, subset=None)
    cluster, _ = translate_destination(whole, replace(scope, policy=policy), found)
    upstream: gloo.Upstream | None = scope.read("Upstream", ref_of(to.upstream)) if to.upstream else None
    if upstream is not None and upstream.ssl_config is not None:
        scope.warn("upstream", "has an sslConfig, which has no effect on UDP")
    return cluster


def build(given: gloo.Listener, proxy: udp_proxy.UdpProxyConfig) -> listener.Listener:
    udp = given.udp_listener or gloo.UdpListener()
    return listener.Listener(
        name=given.name,
        address=address_of(given, UDP),
        udp_listener_config=listener.UdpListenerConfig(
            downstream_socket_config=sockets(udp.options or gloo.UdpListenerOptions())
        ),
        listener_filters=[listener.ListenerFilter(name=UDP_PROXY, typed_config=pack(proxy))],
    )


def sockets(options: gloo.UdpListenerOptions) -> core.UdpSocketConfig | None:
    """The same towards clients and upstream."""
    if options.max_datagram_size is None:
        return None
    return core.UdpSocketConfig(max_rx_datagram_size=options.max_datagram_size)
