"""What is served in place of something broken: its last good version, else what is left of it.

Pure decisions. The caller keeps the last good values and their life; a report always speaks of the new
version, whichever is served. The fallback cluster and listener answer for routes that cannot be served,
where ``settings.gloo.invalidConfigPolicy.replaceInvalidRoutes`` asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from protos.envoy import cluster, core, endpoint, hcm, listener, route, router
from services.gloo.features.router import ROUTER
from services.gloo.plugin import Policy
from services.gloo.resources import Resource, resource
from services.gloo.translator.ads import ADS
from services.gloo.translator.listener import CONNECTION_MANAGER
from services.gloo.translator.names import (
    FALLBACK_CLUSTER,
    FALLBACK_LISTENER,
    FALLBACK_SOCKET,
    route_configuration_name,
)
from services.gloo.translator.route import MAX_BODY
from services.gloo.translator.sources import Reports
from services.gloo.translator.virtual_host import TranslatedHost
from shared.codec.encode import encode, pack
from shared.report import Report


def choose_host(new: TranslatedHost, last_good: TranslatedHost | None) -> TranslatedHost:
    """The virtual host to serve. A broken one gives way to its last good version; without one it is
    served without its broken routes."""
    if not new.broken or last_good is None:
        return new
    return replace(last_good, reports=new.reports)


def choose_resource(new: Resource | None, errors: bool, last_good: Resource | None) -> Resource | None:
    """The listener or cluster to serve; None, without errors, says that there is to be none."""
    return last_good if errors and last_good is not None else new


def has_errors(reports: Report | Reports | Mapping[object, Report]) -> bool:
    """Whether anything found refuses the object."""
    found: Iterable[Report] = [reports] if isinstance(reports, Report) else reports.values()
    return any(report.errors for report in found)


def fallback_resources(policy: Policy) -> tuple[Resource, Resource, Resource]:
    """The fallback cluster, its listener and the listener's routes: a socket inside Envoy that gives one
    answer to everything."""
    address = core.Address(pipe=core.Pipe(path=FALLBACK_SOCKET))
    member = endpoint.LbEndpoint(endpoint=endpoint.Endpoint(address=address))
    assignment = endpoint.ClusterLoadAssignment(
        cluster_name=FALLBACK_CLUSTER, endpoints=[endpoint.LocalityLbEndpoints(lb_endpoints=[member])]
    )
    out = cluster.Cluster(
        name=FALLBACK_CLUSTER, type=cluster.ClusterDiscoveryType.STATIC, load_assignment=assignment
    )
    manager = listener.Filter(name=CONNECTION_MANAGER, typed_config=pack(fallback_manager()))
    serving = listener.Listener(
        name=FALLBACK_LISTENER, address=address, filter_chains=[listener.FilterChain(filters=[manager])]
    )
    routes = fallback_routes(policy)
    return (
        resource(FALLBACK_CLUSTER, encode(out)),
        resource(FALLBACK_LISTENER, encode(serving)),
        resource(routes.name, encode(routes)),
    )


def fallback_manager() -> hcm.HttpConnectionManager:
    """The answer comes as routes of their own: a listener with another one would go on giving the old answer
    on the connections that the cluster has open."""
    return hcm.HttpConnectionManager(
        stat_prefix=FALLBACK_LISTENER,
        rds=hcm.Rds(config_source=ADS, route_config_name=route_configuration_name(FALLBACK_LISTENER)),
        http_filters=[hcm.HttpFilter(name=ROUTER, typed_config=pack(router.Router()))],
    )


def fallback_routes(policy: Policy) -> route.RouteConfiguration:
    body = core.DataSource(inline_string=policy.invalid_route_body) if policy.invalid_route_body else None
    everything = route.Route(
        match=route.RouteMatch(prefix="/"),
        direct_response=route.DirectResponseAction(status=policy.invalid_route_code, body=body),
    )
    host = route.VirtualHost(name=FALLBACK_CLUSTER, domains=["*"], routes=[everything])
    return route.RouteConfiguration(
        name=route_configuration_name(FALLBACK_LISTENER),
        virtual_hosts=[host],
        max_direct_response_body_size_bytes=max(len(policy.invalid_route_body.encode()), MAX_BODY),
    )
