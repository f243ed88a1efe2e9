"""The cluster of a dynamic forward proxy, and the routes to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from protos import gloo
from protos.envoy import cluster, core, forward_proxy, forward_proxy_cluster, tls
from services.gloo import checks
from services.gloo.features.circuit_breakers import break_circuits
from services.gloo.features.dynamic_forward_proxy import FILTER, dns_cache
from services.gloo.plugin import Scope, within
from services.gloo.resources import Resource
from services.gloo.translator.cluster import build_cluster, default_circuit_breakers
from services.gloo.translator.forwarding import stable_name, with_version
from services.gloo.translator.functions import Filters
from services.gloo.translator.names import forward_proxy_name
from services.gloo.translator.patches import Joined
from services.gloo.translator.ssl import tls_socket, upstream_tls
from shared.codec.encode import pack
from shared.ref import Source

CLUSTER_TYPE = "envoy.clusters.dynamic_forward_proxy"


def forward_proxies(
    routes: str, http: gloo.HttpListener | None, scope: Scope, sources: Iterable[Source]
) -> tuple[Resource, ...]:
    """The cluster that a route configuration may forward to, if the options of its listener say so."""
    given = http.options.dynamic_forward_proxy if http is not None and http.options is not None else None
    if given is None:
        return ()
    scope = within(scope, "options.dynamicForwardProxy")
    config = forward_proxy_cluster.ClusterConfig(dns_cache_config=dns_cache(given))
    own, joined = dict[str, Any](lb_policy=cluster.ClusterLbPolicy.CLUSTER_PROVIDED), Joined()
    name = forward_proxy_name(routes)
    own["alt_stat_name"] = stable_name(name)  # in statistics and logs it stays one
    if given.circuit_breakers is not None:
        joined.add(break_circuits(given.circuit_breakers, within(scope, "circuitBreakers")))
    else:
        default_circuit_breakers(joined, scope.policy, scope.report)
    if given.ssl_config is not None:
        if given.ssl_config.sni:
            scope.warn("sslConfig.sni", "has no effect; each host is asked for by its own name")
        context = upstream_tls(replace(given.ssl_config, sni=""), within(scope, "sslConfig"))
        own["transport_socket"] = tls_socket(context)
        checked = checks_certificates(context)
        config.allow_insecure_cluster_options = not checked
        joined.protocol["upstream_http_protocol_options"] = core.UpstreamHttpProtocolOptions(
            auto_sni=True, auto_san_validation=checked
        )
    packed = pack(config)
    own["cluster_type"] = cluster.ClusterCustomClusterType(name=CLUSTER_TYPE, typed_config=packed)
    if scope.report.errors:
        return ()
    return (with_version(build_cluster(name, own, joined, *sources)),)


def checks_certificates(context: tls.UpstreamTlsContext) -> bool:
    """Whether there is an authority that a host's certificate must be from."""
    common = context.common_tls_context or tls.CommonTlsContext()
    return bool(common.validation_context_sds_secret_config or common.combined_validation_context)


def forward(
    given: gloo.DynamicForwardProxyRoute, routes: str, scope: Scope
) -> tuple[dict[str, Any], Filters]:
    """The fields of Envoy's RouteAction that have requests forwarded, and the settings of filters."""
    if scope.listener.dynamic_forward_proxy is None:
        scope.error("", "needs dynamicForwardProxy among the options of the listener (its httpGateway)")
    settings = forward_proxy.PerRouteConfig(
        host_rewrite_literal=given.host_rewrite, host_rewrite_header=given.auto_host_rewrite_header
    )
    if given.host_rewrite is not None and (problem := checks.authority(given.host_rewrite)):
        scope.error("hostRewrite", problem)
    if given.auto_host_rewrite_header is not None and (
        problem := checks.header_name(given.auto_host_rewrite_header)
    ):
        scope.error("autoHostRewriteHeader", problem)
    filters: Filters = {FILTER: settings} if settings != forward_proxy.PerRouteConfig() else {}
    return {"cluster": forward_proxy_name(routes)}, filters
