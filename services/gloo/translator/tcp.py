"""TCP: a filter chain for each host of a listener, chosen by the server name that the client asks for.

A host with a mistake costs only itself: the chain that served it before stays. A chain depends on nothing but
its own host, so an edit of one closes the connections of no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from protos import gloo
from protos.envoy import listener, route, sni_cluster, tcp_proxy
from services.gloo import checks
from services.gloo.features import network_limits
from services.gloo.features.custom_filters import check_custom
from services.gloo.features.headers import added
from services.gloo.features.tunnel import HOST_AND_PORT
from services.gloo.plugin import Scope, within
from services.gloo.resources import Resource
from services.gloo.translator.destination import Found, translate_action
from services.gloo.translator.filter_chains import ALL_TAKEN, Trying
from services.gloo.translator.matching import Claims, Holder, narrow, spots_of
from services.gloo.translator.names import TCP_STAT_PREFIX, ref_of
from services.gloo.translator.network import network_filters
from services.gloo.translator.patches import Joined
from services.gloo.translator.secret import names_asked_for
from services.gloo.translator.ssl import downstream_tls, sni_problem, tls_socket
from services.gloo.translator.supported import refuse_unread
from shared.codec.encode import encode, pack
from shared.ref import Source
from shared.report import Report

TCP_PROXY = "envoy.filters.network.tcp_proxy"
SNI_CLUSTER = "envoy.filters.network.sni_cluster"
SHORTEST = timedelta(milliseconds=1)  # between two records of a connection in an access log


@dataclass(slots=True, kw_only=True)
class TcpChains:
    """The filter chains of a listener, what they refer to, and what is wrong with single hosts."""

    chains: list[listener.FilterChain] = field(default_factory=list)
    found: Found = field(default_factory=Found)
    report: Report = field(default_factory=Report)


def translate_tcp(
    given: gloo.TcpListener,
    scope: Scope,
    before: Mapping[str, listener.FilterChain],
    fields: Mapping[str, Any],
    claims: Claims | None = None,
    match: listener.FilterChainMatch | None = None,
    trying: Trying = ALL_TAKEN,
    sources: Iterable[Source] = (),
) -> TcpChains:
    """The chains of *given*; what is wrong with all of them goes to *scope*. *before* are the chains that
    served, by host: who had a name then keeps it. *fields* are more of Envoy's TcpProxy, *match* is what all
    of them take, and *claims* what others do. Who comes to name other secrets stays as it was until an Envoy
    has taken those, which are tried for *sources*."""
    settings = {**proxy_settings(given, scope), **fields}
    first = first_filters(given, scope)
    done, claims = TcpChains(), claims or Claims()
    made: dict[str, listener.FilterChain | None] = {}
    for i in sorted(range(len(given.tcp_hosts)), key=lambda i: given.tcp_hosts[i].name not in before):
        host, report = given.tcp_hosts[i], Report()
        chain = translate_host(host, first, settings, replace(scope, path="", report=report), done.found)
        if chain is not None and match is not None:
            narrow(chain, match)
        names, stale = names_in(chain), before.get(host.name)
        if stale is not None and trying.waits(names, names_in(stale), sources):
            chain = stale
        if host.name and host.name in made:
            report.error("name", f"another host is named {host.name}, too")
            chain = None
        elif chain is not None and not take(chain, claims, report):
            chain = None
        made.setdefault(host.name, chain)
        done.report.add(report, f"{scope.path}.tcpHosts[{i}]")
    for name in sorted(made):
        stale = before.get(name)
        if made[name] is None and stale is not None and take(stale, claims, Report()):
            made[name] = stale
    done.chains = [chain for _, chain in sorted(made.items()) if chain is not None]
    return done


def names_in(chain: listener.FilterChain | None) -> frozenset[str]:
    """The secrets that *chain* names."""
    socket = chain.transport_socket if chain is not None else None
    return frozenset() if socket is None else names_asked_for(encode(socket))


def take(chain: listener.FilterChain, claims: Claims, report: Report) -> bool:
    """Have *chain* take its connections, unless some are another's already."""
    spots = spots_of(chain.filter_chain_match)
    holder = Holder(chain=chain, who=f"the host {chain.name}")
    rivals = dict.fromkeys(
        rival[1].said_of(rival[0][0]) for spot in spots if (rival := claims.rival([spot], holder.chain))
    )
    for text in rivals:
        report.error("sslConfig.sniDomains", text)
    if not rivals:
        claims.take(spots, holder)
    return not rivals


def translate_host(
    host: gloo.TcpHost,
    first: Sequence[listener.Filter],
    settings: Mapping[str, Any],
    scope: Scope,
    found: Found,
) -> listener.FilterChain | None:
    """The chain of one host, with *first* before the proxy; None when there is a mistake in it."""
    refuse_unread(host, scope.report)
    if not host.name:
        scope.error("name", "required")
    elif problem := checks.text_value(host.name):
        scope.error("name", problem)
    to = destination(host.destination, scope, found)
    broken = bool(scope.report.errors)  # a Secret with a problem has a last good version: no reason to refuse
    chain = listener.FilterChain(name=host.name, filters=[*first, *filters(to, settings)])
    return chain if encrypt(chain, host.ssl_config, scope) and not broken else None


def encrypt(chain: listener.FilterChain, config: gloo.SslConfig | None, scope: Scope) -> bool:
    """Have *chain* take what *config* says; False when that cannot be."""
    if config is None:
        return True
    scope = replace(scope, path="sslConfig")
    if config.sni_domains:
        names = sorted({name.lower() for name in config.sni_domains})
        chain.filter_chain_match = listener.FilterChainMatch(server_names=names)
    if config == gloo.SslConfig(sni_domains=config.sni_domains):
        return passes_on(config, scope)
    context = downstream_tls(config, scope)
    if context is not None:
        chain.transport_socket = tls_socket(context)
        chain.transport_socket_connect_timeout = config.transport_socket_connect_timeout
    return context is not None


def passes_on(config: gloo.SslConfig, scope: Scope) -> bool:
    """TLS without a certificate of ours is the upstream's business: only the names are looked at."""
    problems = [sni_problem(name) for name in config.sni_domains]
    for i, problem in enumerate(problems):
        if problem:
            scope.error(f"sniDomains[{i}]", problem)
    if not problems:
        scope.error(
            "", "needs a certificate (secretRef, sslFiles or sds), or sniDomains to pass on encrypted"
        )
    return bool(problems) and not any(problems)


def destination(action: gloo.TcpHostTcpAction | None, scope: Scope, found: Found) -> dict[str, Any] | None:
    """Where connections go, as fields of Envoy's TcpProxy; None when it is to the server name's cluster."""
    if action is not None and action.forward_sni_cluster_name is not None:
        return None
    if action is None or action == gloo.TcpHostTcpAction():
        scope.error("destination", "required: one of single, multi, upstreamGroup, forwardSniClusterName")
        return {}
    # An HTTP answer in place of a missing upstream's would be no answer here.
    policy = replace(scope.policy, replace_invalid_routes=False)
    to = gloo.RouteAction(single=action.single, multi=action.multi, upstream_group=action.upstream_group)
    fields = translate_action(to, replace(scope, path="destination", policy=policy), found)
    warn_of_options(action, scope)
    weighted: route.WeightedCluster | None = fields.pop("weighted_clusters", None)
    if weighted is None:
        return fields
    shares = [
        tcp_proxy.TcpProxyWeightedClusterClusterWeight(
            name=each.name, weight=each.weight, metadata_match=each.metadata_match
        )
        for each in weighted.clusters
        if each.weight  # Envoy takes no share of 0
    ]
    return {"weighted_clusters": tcp_proxy.TcpProxyWeightedCluster(clusters=shares)}


def warn_of_options(action: gloo.TcpHostTcpAction, scope: Scope) -> None:
    """Options of weighted destinations are about HTTP, all of them."""
    where, members = "destination.multi", action.multi.destinations if action.multi is not None else []
    if action.upstream_group is not None:
        where = "destination.upstreamGroup"
        group: gloo.UpstreamGroup | None = scope.read("UpstreamGroup", ref_of(action.upstream_group))
        members = group.destinations if group is not None else []
    if any(member.options is not None for member in members):
        scope.warn(where, "options of destinations have no effect on TCP")
    if action.upstream_group is not None and any(calls_a_function(member) for member in members):
        scope.warn(where, "destinationSpec has no effect on TCP")


def calls_a_function(member: gloo.WeightedDestination) -> bool:
    return member.destination is not None and member.destination.destination_spec is not None


def filters(to: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> Iterator[listener.Filter]:
    if to is None:
        yield listener.Filter(name=SNI_CLUSTER, typed_config=pack(sni_cluster.SniCluster()))
    through = tcp_proxy.TcpProxy(**(to or {"cluster": ""}), **settings)
    yield listener.Filter(name=TCP_PROXY, typed_config=pack(through))


def proxy_settings(given: gloo.TcpListener, scope: Scope) -> dict[str, Any]:
    """What is the same for all hosts, as fields of Envoy's TcpProxy."""
    if problem := checks.text_value(given.stat_prefix):
        scope.error("statPrefix", problem)
    fields: dict[str, Any] = {"stat_prefix": given.stat_prefix or TCP_STAT_PREFIX}
    settings = given.options.tcp_proxy_settings if given.options is not None else None
    if settings is None:
        return fields
    scope = replace(scope, path=f"{scope.path}.options.tcpProxySettings")
    if settings.idle_timeout is not None and (problem := checks.duration(settings.idle_timeout)):
        scope.error("idleTimeout", problem)
    if settings.max_connect_attempts == 0:
        scope.error("maxConnectAttempts", "must be more than 0")
    fields["idle_timeout"] = settings.idle_timeout
    fields["max_connect_attempts"] = settings.max_connect_attempts
    if settings.access_log_flush_interval is not None:
        fields["access_log_options"] = flushing(settings.access_log_flush_interval, scope)
    if settings.tunneling_config is not None:
        at = replace(scope, path=f"{scope.path}.tunnelingConfig")
        fields["tunneling_config"] = tunnel(settings.tunneling_config, at)
    return fields


def flushing(interval: timedelta, scope: Scope) -> tcp_proxy.TcpProxyTcpAccessLogOptions:
    if interval < SHORTEST:
        scope.error("accessLogFlushInterval", "must be 1ms or more")
    elif problem := checks.duration(interval):
        scope.error("accessLogFlushInterval", problem)
    return tcp_proxy.TcpProxyTcpAccessLogOptions(access_log_flush_interval=interval)


def first_filters(given: gloo.TcpListener, scope: Scope) -> list[listener.Filter]:
    """What connections pass before the proxy, whatever the host; the limits are those of HTTP listeners."""
    options, limits = given.options or gloo.TcpListenerOptions(), Joined()
    if options.connection_limit is not None:
        at = within(scope, "options.connectionLimit")
        limits.add(network_limits.limit_connections(options.connection_limit, at))
    if options.local_ratelimit is not None:
        at = within(scope, "options.localRatelimit")
        limits.add(network_limits.limit_new_connections(options.local_ratelimit, at))
    ours = (*network_limits.NAMES, SNI_CLUSTER, TCP_PROXY)
    check_custom(given.custom_network_filters, ours, within(scope, "customNetworkFilters"))
    with scope.report.collect():
        return network_filters(limits.network, given.custom_network_filters)
    return []


def tunnel(config: gloo.TcpProxySettingsTunnelingConfig, scope: Scope) -> tcp_proxy.TcpProxyTunnelingConfig:
    """The host to ask the upstream for may be made of what is known of the connection."""
    wanted = config.hostname
    found = HOST_AND_PORT.fullmatch(wanted)
    if "%" in wanted:
        if problem := checks.format_string(wanted):
            scope.error("hostname", problem)
    elif not found or checks.host_name(found[1].strip("[]")) or checks.port(int(found[2])):
        scope.error("hostname", f"{checks.shown(wanted)} is no host with a port: example.com:443")
    headers = added(config.headers_to_add, "headersToAdd", scope)
    return tcp_proxy.TcpProxyTunnelingConfig(hostname=wanted, headers_to_add=headers)


def asks_for_names(given: gloo.TcpListener, chains: Sequence[listener.FilterChain]) -> bool:
    """Whether Envoy has to look for server names, for which clients must be the first to speak."""
    return any(asks_for_name(chain) for chain in chains) or any(
        host.ssl_config is not None
        or (host.destination is not None and host.destination.forward_sni_cluster_name is not None)
        for host in given.tcp_hosts
    )


def asks_for_name(chain: listener.FilterChain) -> bool:
    """Whether a chain takes only connections that ask for some name, or those of TLS."""
    match = chain.filter_chain_match
    return match is not None and bool(match.server_names or match.transport_protocol)


def chains_of(served: Resource) -> dict[str, listener.FilterChain]:
    """The chains of hosts in a listener as it was served, by name."""
    chains = listener.Listener.parse(served.body).filter_chains
    return {chain.name: chain for chain in chains if any(each.name == TCP_PROXY for each in chain.filters)}
