"""Listeners: an address, and a connection manager that fetches its routes by RDS, or TCP hosts.

An HTTP listener does not depend on its virtual hosts: every HTTP filter there is stands in it from the start,
in one fixed order, the router last. The listener's options switch some on; all others are disabled.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import betterproto2

from protos import gloo
from protos.envoy import core, hcm, listener, proxy_protocol, raw_buffer, tcp_stats, tls_inspector
from services.gloo import checks
from services.gloo.features import FEATURES, SCRIPTS
from services.gloo.features.custom_filters import check_custom, placed
from services.gloo.features.network_limits import NAMES as NETWORK_LIMITS
from services.gloo.features.sockets import PROXY_PROTOCOL
from services.gloo.plugin import HttpFilter, Patch, Policy, Reader, Scope, within
from services.gloo.resources import Resource, resource
from services.gloo.translator import http3
from services.gloo.translator.addresses import address_of
from services.gloo.translator.ads import ADS
from services.gloo.translator.consul import ConsulSelection
from services.gloo.translator.filter_chains import (
    NO_CONFIGS,
    Chain,
    Remembered,
    configurations,
    translate_chains,
)
from services.gloo.translator.forward_proxy import forward_proxies
from services.gloo.translator.names import HTTP_STAT_PREFIX, route_configuration_name
from services.gloo.translator.network import network_filters as first_filters
from services.gloo.translator.network import packed
from services.gloo.translator.patches import Joined, join_patches
from services.gloo.translator.secret import names_asked_for
from services.gloo.translator.sources import Origin, Reports, attribute, origins_of
from services.gloo.translator.supported import refuse_unread
from services.gloo.translator.tcp import asks_for_names, chains_of, translate_tcp
from shared.codec.encode import encode, length_delimited, pack
from shared.ref import Source
from shared.report import Report

CONNECTION_MANAGER = "envoy.filters.network.http_connection_manager"
RAW_BUFFER = "envoy.transport_sockets.raw_buffer"
TCP_STATS = "envoy.transport_sockets.tcp_stats"
TLS_INSPECTOR = "envoy.filters.listener.tls_inspector"
HTTP_FILTERS = SCRIPTS.keys() | {each.filter.name for each in FEATURES if each.filter is not None}
MAX_STAT_PREFIX = 255
CHAINS_FIELD = 3  # of envoy.config.listener.v3.Listener


@dataclass(frozen=True, slots=True, kw_only=True)
class TranslatedListener:
    """*resource* is None when there are no virtual hosts or something is wrong with all of it.

    *tls* are the last good TLS configurations by where they stand; *secrets* the names of those that are
    needed, and the objects they are needed for; *selections* what `consul` destinations of TCP chose.
    *http3* is the listener of HTTP/3 beside it.
    """

    resource: Resource | None
    http3: Resource | None = None
    reports: Reports
    tls: Mapping[Origin, gloo.SslConfig]
    secrets: Mapping[str, frozenset[Source]]
    selections: frozenset[ConsulSelection] = frozenset()
    clusters: tuple[Resource, ...] = ()  # that forward to any host


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What there is around a listener: *path* is its own in *owner*, the Proxy, and *conflict* what
    ``listener_conflicts`` says of it. TCP hosts of *served* stand in for broken ones."""

    path: str
    owner: Source
    conflict: str = ""
    policy: Policy
    read: Reader
    served: Resource | None = None
    remembered: Remembered = field(default_factory=Remembered)

    def origins(self, given: gloo.Listener) -> tuple[Origin, ...]:
        """Where the listener came from; without anything else that is the Proxy."""
        return origins_of(given) or (Origin(source=self.owner, path=self.path),)

    def scope(self, path: str, report: Report) -> Scope:
        return Scope(path=path, report=report, policy=self.policy, read=self.read)


def translate_listener(given: gloo.Listener, around: Surroundings) -> TranslatedListener:
    """A listener of HTTP or of TCP."""
    report = Report()
    refuse_unread(given, report)
    check_listener(given, report)
    tcp = given.tcp_listener is not None
    of_all = Scope(path="options", report=report, policy=around.policy, tcp=tcp)
    frame = join_patches("on_any_listener", given.options, of_all)
    if given.tcp_listener is not None:
        return tcp_listener(given, given.tcp_listener, frame, report, around)
    scope = around.scope("httpListener", report)
    joined = join_http(given.http_listener or gloo.HttpListener(), frame.manager, scope)
    if around.conflict:
        report.error("", around.conflict)
    origins = around.origins(given)
    sources = {origin.source for origin in origins}
    http = given.http_listener
    clusters = forward_proxies(route_configuration_name(given.name), http, scope, sources)
    reports = Reports()
    brought, last_good = configurations(given, around.path, around.owner), around.remembered.last_good
    chains = translate_chains(brought, scope, reports, around.remembered)
    good = {each.origin: last_good[each.origin] for each in brought if each.origin in last_good}
    quic_chains = http3.usable(given, chains, joined, scope)
    found = beside = None
    serving = http is not None and http.virtual_hosts and (chains or not given.ssl_configurations)
    if http is not None and serving and not report.errors:
        with report.collect():
            found = resource(given.name, encoded_listener(given, http, joined, frame, chains), sources)
            if quic_chains:
                out = build_http3(given, http, joined, frame, quic_chains)
                beside = resource(out.name, encode(out), sources)
    attribute(report, origins, reports)
    return TranslatedListener(
        resource=found,
        http3=beside,
        reports=reports,
        tls=good | {origin: config for chain in chains for origin, config in chain.good.items()},
        secrets=secrets_of(chains),
        clusters=clusters,
    )


def tcp_listener(
    given: gloo.Listener, tcp: gloo.TcpListener, frame: Joined, report: Report, around: Surroundings
) -> TranslatedListener:
    """A listener of TCP hosts; what is wrong with one of them is reported and costs only that one."""
    if around.conflict:
        report.error("", around.conflict)
    scope, origins = around.scope("tcpListener", report), around.origins(given)
    before = chains_of(around.served) if around.served is not None else {}
    sources, trying = frozenset(origin.source for origin in origins), around.remembered.trying
    done = translate_tcp(tcp, scope, before, frame.manager, trying=trying, sources=sources)
    found, secrets = None, frozenset[str]()
    if done.chains and not report.errors:
        out = framed(given, frame, done.chains, with_names=asks_for_names(tcp, done.chains))
        found = resource(given.name, encode(out), sources)
        secrets = names_asked_for(found.body)
    report.add(done.report)
    reports = Reports()
    attribute(report, origins, reports)
    return TranslatedListener(
        resource=found,
        reports=reports,
        tls=NO_CONFIGS,
        secrets=dict.fromkeys(secrets, sources),
        selections=frozenset(done.found.selections),
    )


def secrets_of(chains: Iterable[Chain]) -> dict[str, frozenset[Source]]:
    """The secrets that *chains* name, and the objects they do it for."""
    found: dict[str, frozenset[Source]] = {}
    for chain in chains:
        sources = frozenset(origin.source for origin in chain.good)
        for name in chain.secrets:
            found[name] = found.get(name, frozenset()) | sources
    return found


def check_listener(given: gloo.Listener, report: Report) -> None:
    if not given.name:
        report.error("name", "required")
    if not given.bind_address:
        report.error("bindAddress", "required")
    elif not checks.is_ip(given.bind_address):
        report.error("bindAddress", f"{checks.shown(given.bind_address)} is no IP address")
    if problem := checks.port(given.bind_port):
        report.error("bindPort", problem)
    if given.tcp_listener is not None:
        if given.ssl_configurations:
            report.error(
                "sslConfigurations", "goes with httpListener; a TCP host has an sslConfig of its own"
            )
        if given.route_options is not None:
            report.warn("routeOptions", "has no effect on TCP")
    elif given.hybrid_listener is not None:
        if given.ssl_configurations:
            report.error("sslConfigurations", "goes with httpListener; a matched listener has its own")
    elif (given.http_listener, given.udp_listener, given.aggregate_listener) == (None, None, None):
        kinds = "httpListener, tcpListener, hybridListener, udpListener"
        report.error("", f"no listener type; one of {kinds}")


def join_http(given: gloo.HttpListener, manager: Mapping[str, Any], scope: Scope) -> Joined:
    """What an HTTP listener's options and filters come to; *manager* are more fields of what takes its
    connections, and *scope* is its own."""
    options = given.options or gloo.HttpListenerOptions()
    joined = join_patches("on_listener", options, within(scope, "options"))
    joined.fields |= manager
    joined.add(own_filters(given, HTTP_FILTERS.union(each.name for each in joined.waiting), scope))
    if problem := checks.text_value(given.stat_prefix, MAX_STAT_PREFIX):
        scope.error("statPrefix", problem)
    return joined


def own_filters(given: gloo.HttpListener, taken: Collection[str], scope: Scope) -> Patch:
    """Filters in Envoy's own words, without the names that are *taken*; *scope* is the HTTP listener's."""
    check_custom(given.custom_http_filters, taken, within(scope, "customHttpFilters"))
    ours = (*NETWORK_LIMITS, CONNECTION_MANAGER)
    check_custom(given.custom_network_filters, ours, within(scope, "customNetworkFilters"))
    own = placed(given.custom_http_filters)
    return Patch(waiting=tuple(own), filters={each.name: each.config for each in own})


def encoded_listener(
    given: gloo.Listener, http: gloo.HttpListener, joined: Joined, frame: Joined, chains: Sequence[Chain] = ()
) -> bytes:
    filters = network_filters(route_configuration_name(given.name), http, joined)
    with_names, named = bool(given.ssl_configurations), sorted(chains, key=lambda chain: chain.name)
    if not named or (given.options is not None and given.options.tcp_stats):
        built = [chain.build(filters) for chain in named] or [listener.FilterChain(filters=filters)]
        return encode(framed(given, frame, built, with_names=with_names))
    around = framed(given, frame, [], with_names=with_names)
    head = listener.Listener(name=around.name, address=around.address)
    around.name, around.address = "", None
    same = encode(listener.FilterChain(filters=filters))
    encoded = (length_delimited(CHAINS_FIELD, chain.encoded(same)) for chain in named)
    return b"".join((encode(head), *encoded, encode(around)))


def build_http3(
    given: gloo.Listener, http: gloo.HttpListener, joined: Joined, frame: Joined, chains: Sequence[Chain]
) -> listener.Listener:
    filters = network_filters(route_configuration_name(given.name), http, http3.speaking(joined))
    return http3.beside(given, frame, chains, filters)


def framed(
    given: gloo.Listener, frame: Joined, chains: list[listener.FilterChain], *, with_names: bool
) -> listener.Listener:
    """The listener around its filter chains, with what *frame* says of it; *with_names* it looks for the
    server names of TLS."""
    if given.options is not None and given.options.tcp_stats:
        for chain in chains:
            chain.transport_socket = counting(chain.transport_socket)
    out = listener.Listener(
        name=given.name,
        address=address_of(given),
        filter_chains=chains,
    )
    frame.write(out)
    if given.use_proxy_proto and not out.listener_filters:
        out.listener_filters.append(listener_filter(PROXY_PROTOCOL, proxy_protocol.ProxyProtocol()))
    if with_names:  # always for TLS: the first name to come must not drain the listener
        out.listener_filters.append(listener_filter(TLS_INSPECTOR, tls_inspector.TlsInspector()))
    return out


def listener_filter(name: str, config: betterproto2.Message) -> listener.ListenerFilter:
    return listener.ListenerFilter(name=name, typed_config=pack(config))


def counting(socket: core.TransportSocket | None) -> core.TransportSocket:
    """*socket*, plain by default, with the operating system's TCP statistics."""
    if socket is not None and socket.name == TCP_STATS:
        return socket  # a TCP host that stayed as it was
    inner = socket or core.TransportSocket(name=RAW_BUFFER, typed_config=pack(raw_buffer.RawBuffer()))
    return core.TransportSocket(name=TCP_STATS, typed_config=pack(tcp_stats.Config(transport_socket=inner)))


def network_filters(routes: str, http: gloo.HttpListener, joined: Joined) -> list[listener.Filter]:
    """What takes connections of HTTP; *routes* is the name of their route configuration."""
    manager = build_manager(routes, http, joined)
    first = first_filters(joined.network, http.custom_network_filters)
    return [*first, listener.Filter(name=CONNECTION_MANAGER, typed_config=pack(manager))]


def build_manager(routes: str, http: gloo.HttpListener, joined: Joined) -> hcm.HttpConnectionManager:
    return hcm.HttpConnectionManager(
        stat_prefix=http.stat_prefix or HTTP_STAT_PREFIX,
        rds=hcm.Rds(config_source=ADS, route_config_name=routes),
        http_filters=http_filters(joined),
        **joined.fields,
    )


def http_filters(joined: Joined) -> list[hcm.HttpFilter]:
    """All filters of all features in Gloo's order.

    One that the listener's own options have settings for works for all requests, with those; each other one
    waits to be switched on by a route.
    """
    declared = {f.filter.name: f.filter for f in FEATURES if f.filter is not None}
    declared |= {each.name: each for each in joined.waiting}
    return [
        hcm.HttpFilter(
            name=each.name,
            typed_config=packed(joined.filters.get(each.name, each.config)),
            disabled=each.name not in joined.filters,
        )
        if isinstance(each, HttpFilter)
        else SCRIPTS[each.name].filter
        for each in sorted(declared.values(), key=lambda each: each.place)
    ]
