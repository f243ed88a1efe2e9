"""Small Envoy resources for tests with the real Envoy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from protos.envoy import cluster, core, endpoint, hcm, listener, route, router
from services.gloo.resources import (
    CLUSTER,
    ENDPOINTS,
    LISTENER,
    ROUTES,
    Resource,
    Resources,
    Snapshot,
    TypeUrl,
    resource,
)
from shared.codec.encode import encode, pack


def _ads() -> core.ConfigSource:
    return core.ConfigSource(ads=core.AggregatedConfigSource(), resource_api_version=core.ApiVersion.V3)


def _address(port: int) -> core.Address:
    return core.Address(socket_address=core.SocketAddress(address="127.0.0.1", port_value=port))


def eds_cluster(name: str, **more: Any) -> Resource:
    message = cluster.Cluster(
        name=name,
        type=cluster.ClusterDiscoveryType.EDS,
        connect_timeout=timedelta(seconds=1),
        eds_cluster_config=cluster.ClusterEdsClusterConfig(eds_config=_ads()),
    )
    for field, value in more.items():
        setattr(message, field, value)
    return resource(name, encode(message))


def endpoints(name: str, *ports: int) -> Resource:
    members = [endpoint.LbEndpoint(endpoint=endpoint.Endpoint(address=_address(port))) for port in ports]
    localities = (
        [
            endpoint.LocalityLbEndpoints(
                locality=core.Locality(), lb_endpoints=members, load_balancing_weight=1
            )
        ]
        if members
        else []
    )
    return resource(name, encode(endpoint.ClusterLoadAssignment(cluster_name=name, endpoints=localities)))


def routes(name: str, by_prefix: Mapping[str, str], domains: Sequence[str] = ("*",)) -> Resource:
    """Routes by prefix to a cluster, the longest prefix first."""
    found = [
        route.Route(match=route.RouteMatch(prefix=prefix), route=route.RouteAction(cluster=to))
        for prefix, to in sorted(by_prefix.items(), key=lambda item: -len(item[0]))
    ]
    host = route.VirtualHost(name="host", domains=list(domains), routes=found)
    return resource(name, encode(route.RouteConfiguration(name=name, virtual_hosts=[host])))


def http_listener(name: str, port: int, routes_name: str, stat_prefix: str = "http") -> Resource:
    manager = hcm.HttpConnectionManager(
        stat_prefix=stat_prefix,
        rds=hcm.Rds(config_source=_ads(), route_config_name=routes_name),
        http_filters=[hcm.HttpFilter(name="envoy.filters.http.router", typed_config=pack(router.Router()))],
    )
    return listener_with("envoy.filters.network.http_connection_manager", pack(manager), name, port)


def listener_with(filter_name: str, config: Any, name: str, port: int) -> Resource:
    chain = listener.FilterChain(filters=[listener.Filter(name=filter_name, typed_config=config)])
    return resource(name, encode(listener.Listener(name=name, address=_address(port), filter_chains=[chain])))


def snapshot_of(**by_type: Sequence[Resource]) -> Snapshot:
    """A snapshot of ``clusters``, ``endpoints``, ``listeners`` and ``routes``."""
    kinds: dict[str, TypeUrl] = {
        "clusters": CLUSTER,
        "endpoints": ENDPOINTS,
        "listeners": LISTENER,
        "routes": ROUTES,
    }
    return Snapshot({kinds[kind]: Resources.of(members) for kind, members in by_type.items()})
