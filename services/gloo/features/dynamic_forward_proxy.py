"""The dynamic forward proxy of a listener: it looks up the hosts that requests ask for.

Its filter and its cluster share what was looked up. Envoy knows that by name and lets nothing with the same
name differ, so the name follows from the settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from hashlib import blake2b

from protos import gloo
from protos.envoy import cares_dns, cluster, core, forward_proxy, forward_proxy_dns
from services.gloo import checks
from services.gloo.plugin import ALL, Feature, HttpFilter, Patch, Scope, Stage, within
from shared.codec.encode import encode, pack

FILTER = "envoy.filters.http.dynamic_forward_proxy"
CARES = "envoy.network.dns_resolver.cares"
SHORTEST = timedelta(milliseconds=1)
WAITING = forward_proxy.FilterConfig(sub_cluster_config=forward_proxy.SubClusterConfig())  # looks nothing up
FAMILIES = {
    gloo.DnsLookupFamily.V4_PREFERRED: cluster.ClusterDnsLookupFamily.V4_PREFERRED,
    gloo.DnsLookupFamily.V4_ONLY: cluster.ClusterDnsLookupFamily.V4_ONLY,
    gloo.DnsLookupFamily.V6_ONLY: cluster.ClusterDnsLookupFamily.V6_ONLY,
    gloo.DnsLookupFamily.AUTO: cluster.ClusterDnsLookupFamily.AUTO,
    gloo.DnsLookupFamily.ALL: cluster.ClusterDnsLookupFamily.ALL,
}


def forward(given: gloo.DynamicForwardProxyConfig, scope: Scope) -> Patch:
    check_cache(given.dns_cache_config or gloo.DnsCacheConfig(), within(scope, "dnsCacheConfig"))
    made = forward_proxy.FilterConfig(
        dns_cache_config=dns_cache(given), save_upstream_address=given.save_upstream_address
    )
    return Patch(filters={FILTER: made})


def dns_cache(given: gloo.DynamicForwardProxyConfig) -> forward_proxy_dns.DnsCacheConfig:
    """How hosts are looked up and remembered, under a name that no other settings have."""
    config = given.dns_cache_config or gloo.DnsCacheConfig()
    breaker, again = config.dns_cache_circuit_breaker, config.dns_failure_refresh_rate
    made = forward_proxy_dns.DnsCacheConfig(
        dns_lookup_family=FAMILIES[config.dns_lookup_family],
        dns_refresh_rate=config.dns_refresh_rate,
        host_ttl=config.host_ttl,
        max_hosts=config.max_hosts,
        dns_query_timeout=config.dns_query_timeout,
        preresolve_hostnames=[address(each) for each in config.preresolve_hostnames],
    )
    if again is not None:
        made.dns_failure_refresh_rate = cluster.ClusterRefreshRate(
            base_interval=again.base_interval, max_interval=again.max_interval
        )
    if breaker is not None:
        made.dns_cache_circuit_breaker = forward_proxy_dns.DnsCacheCircuitBreakers(
            max_pending_requests=breaker.max_pending_requests
        )
    if config.cares_dns is not None:
        resolver = pack(with_cares(config.cares_dns))
        made.typed_dns_resolver_config = core.TypedExtensionConfig(name=CARES, typed_config=resolver)
    made.name = f"dynamic-forward-proxy:{blake2b(encode(made), digest_size=8).hexdigest()}"
    return made


def with_cares(given: gloo.CaresDnsResolverConfig) -> cares_dns.CaresDnsResolverConfig:
    options = given.dns_resolver_options or gloo.DnsResolverOptions()
    return cares_dns.CaresDnsResolverConfig(
        resolvers=[
            core.Address(socket_address=address(each.socket_address))
            for each in given.resolvers
            if each.socket_address is not None
        ],
        dns_resolver_options=core.DnsResolverOptions(
            use_tcp_for_dns_lookups=options.use_tcp_for_dns_lookups,
            no_default_search_domain=options.no_default_search_domain,
        ),
    )


def address(given: gloo.SocketAddress) -> core.SocketAddress:
    return core.SocketAddress(address=given.address, port_value=given.port_value or 0)


def check_cache(config: gloo.DnsCacheConfig, scope: Scope) -> None:
    again = config.dns_failure_refresh_rate
    first, longest = (again.base_interval, again.max_interval) if again is not None else (None, None)
    for name, value, least in (
        ("dnsRefreshRate", config.dns_refresh_rate, SHORTEST),
        ("hostTtl", config.host_ttl, SHORTEST),
        ("dnsQueryTimeout", config.dns_query_timeout, timedelta(0)),
        ("dnsFailureRefreshRate.baseInterval", first, SHORTEST),
        ("dnsFailureRefreshRate.maxInterval", longest, SHORTEST),
    ):
        if value is not None and (problem := time_problem(value, least)):
            scope.error(name, problem)
    if again is not None and first is None:
        scope.error("dnsFailureRefreshRate.baseInterval", "required")
    elif first is not None and longest is not None and longest < first:
        scope.error("dnsFailureRefreshRate.maxInterval", "must not be shorter than baseInterval")
    if config.max_hosts == 0:
        scope.error("maxHosts", "must be more than 0")
    if config.apple_dns is not None:
        scope.error("appleDns", "there is no such resolver where Envoy runs on Linux; use caresDns")
    for i, each in enumerate(config.preresolve_hostnames):
        check_address(each, checks.host_name(each.address), f"preresolveHostnames[{i}]", scope)
    check_resolvers(config.cares_dns.resolvers if config.cares_dns is not None else (), scope)


def check_resolvers(resolvers: Sequence[gloo.Address], scope: Scope) -> None:
    for i, each in enumerate(resolvers):
        at = f"caresDns.resolvers[{i}]"
        if each.socket_address is None:
            scope.error(at, "needs a socketAddress")
            continue
        found = each.socket_address
        problem = None if checks.is_ip(found.address) else f"{checks.shown(found.address)} is no IP address"
        check_address(found, problem, f"{at}.socketAddress", scope)


def check_address(given: gloo.SocketAddress, problem: str | None, where: str, scope: Scope) -> None:
    if problem := problem if given.address else "required":
        scope.error(f"{where}.address", problem)
    if problem := checks.port(given.port_value or 0):
        scope.error(f"{where}.portValue", problem)


def time_problem(value: timedelta, least: timedelta) -> str | None:
    if timedelta(0) <= value < least:
        return f"must be {least // timedelta(milliseconds=1)}ms or more"
    return checks.duration(value)


FEATURES = (
    Feature(
        name="dynamicForwardProxy",
        reads={
            "DynamicForwardProxyConfig": ALL,
            "DynamicForwardProxyRoute": ALL,
            "DnsCacheConfig": ALL,
            "DnsCacheCircuitBreakers": ALL,
            "RefreshRate": ALL,
            "CaresDnsResolverConfig": ALL,
            "DnsResolverOptions": ALL,
            "Address": ("socketAddress",),
            "SocketAddress": ("address", "portValue"),
        },
        looks_at={"HttpListenerOptions": ("dynamicForwardProxy",)},
        on_listener=forward,
        filter=HttpFilter(name=FILTER, stage=Stage.OUT_AUTH, config=WAITING),
    ),
)
