"""Hybrid listeners through the pipeline: a mistake costs one part, and edits of routes never a listener."""

from __future__ import annotations

from typing import Any

from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from services.gloo.resources import CLUSTER, LISTENER, ROUTES
from services.gloo.translator.names import route_configuration_name
from shared.ref import Ref, Source
from shared.report import Report
from shared.store.keys import PROXY
from tests.services.gloo.test_pipeline import PROXY_SOURCE, World, answer, host

GATEWAY = Source("Gateway", Ref("gloo-system", "hybrid"))
BROKEN = {"httpConnectionManagerSettings": {"maxConnectionDuration": "-1s"}}


def http(source: str, body: str, **options: Any) -> dict[str, Any]:
    """HTTP for connections from *source*."""
    hosts = [host("web", answer(body), domain="*")]
    return {**of(source), "httpListener": {"virtualHosts": hosts, "options": options}}


def tcp(source: str, service: str, **options: Any) -> dict[str, Any]:
    hosts = [{"name": "all", "destination": {"single": {"consul": {"serviceName": service}}}}]
    return {**of(source), "tcpListener": {"tcpHosts": hosts, "options": options}}


def of(source: str) -> dict[str, Any]:
    ranges = [{"addressPrefix": source, "prefixLen": 32}]
    return {"matcher": {"sourcePrefixRanges": ranges}} if source else {}


async def serve(world: World, *parts: dict[str, Any]) -> list[str]:
    """What is said of the Gateway when it has *parts*."""
    told = [
        {
            "sources": [
                {"kind": "*v1.Gateway", "name": "hybrid", "namespace": "gloo-system", "path": f"parts[{i}]"}
            ]
        }
        for i in range(len(parts))
    ]
    sources = [{"kind": "*v1.Gateway", "name": "hybrid", "namespace": "gloo-system"}]
    listener = {
        "name": "listener",
        "bindAddress": "::",
        "bindPort": 9000,
        "metadata": {"sources": sources, "matchedListeners": told},
        "hybridListener": {"matchedListeners": list(parts)},
    }
    await world.put(PROXY, "gateway-proxy", {"listeners": [listener]})
    reports = world.pipeline.proxies.served[PROXY_SOURCE.ref].reports
    return [str(problem) for problem in reports.get(GATEWAY, Report()).errors]


def served(world: World) -> dict[str, str]:
    """By source address what is answered, or the cluster that connections go to."""
    snapshot, found = world.pipeline.snapshot(PROXY_SOURCE.ref), {}
    for each in snapshot.of(LISTENER).by_name.values():
        for chain in listener_pb2.Listener.FromString(each.body).filter_chains:
            ranges = chain.filter_chain_match.source_prefix_ranges
            source, config = ranges[0].address_prefix if ranges else "", chain.filters[-1].typed_config
            through, manager = tcp_proxy_pb2.TcpProxy(), hcm_pb2.HttpConnectionManager()
            if config.Unpack(through):
                found[source] = through.cluster
            elif config.Unpack(manager):
                body = snapshot.of(ROUTES).by_name[manager.rds.route_config_name].body
                (only,) = route_pb2.RouteConfiguration.FromString(body).virtual_hosts
                found[source] = only.routes[0].direct_response.body.inline_string
    return found


async def test_a_broken_part_stays_as_it_was_and_costs_no_other() -> None:
    world = World()
    assert await serve(world, http("10.0.0.1", "a"), tcp("10.0.0.2", "db"), http("", "rest")) == []
    cluster = "consul-svc:db_gloo-system"
    assert served(world) == {"10.0.0.1": "a", "10.0.0.2": cluster, "": "rest"}

    said = await serve(
        world,
        http("10.0.0.1", "b", **BROKEN),
        tcp("10.0.0.2", "other", tcpProxySettings={"maxConnectAttempts": 0}),
        http("", "all"),
    )

    assert said == [
        "parts[0].httpListener.options.httpConnectionManagerSettings.maxConnectionDuration: "
        "must not be negative",
        "parts[1].tcpListener.options.tcpProxySettings.maxConnectAttempts: must be more than 0",
    ]
    assert served(world) == {"10.0.0.1": "b", "10.0.0.2": cluster, "": "all"}  # routes are no part of it
    assert cluster in world.pipeline.snapshot(PROXY_SOURCE.ref).of(CLUSTER).by_name


async def test_a_part_that_lost_its_type_stays_as_it_was() -> None:
    world = World()
    await serve(world, http("10.0.0.1", "a"), http("", "rest"))

    said = await serve(world, of("10.0.0.1"), http("", "all"))

    assert said == ["parts[0]: no listener type; one of httpListener, tcpListener"]
    assert served(world) == {"10.0.0.1": "a", "": "all"}


async def test_a_part_that_is_broken_with_another_matcher_stays_as_it_was_too() -> None:
    world = World()
    await serve(world, http("10.0.0.1", "a"), http("", "rest"))

    await serve(world, http("10.0.0.9", "b", **BROKEN), http("", "all"))
    assert served(world) == {"10.0.0.1": "a", "": "all"}

    again = world.restarted()
    await serve(again, http("10.0.0.9", "b", **BROKEN), http("", "new"))
    assert served(again) == {"10.0.0.1": "a", "": "new"}

    await serve(again, http("10.0.0.9", "b"), http("", "new"))
    assert served(again) == {"10.0.0.9": "b", "": "new"}


async def test_who_took_connections_before_keeps_them() -> None:
    world = World()
    await serve(world, http("", "first"))

    said = await serve(world, tcp("", "db"), http("", "second"))

    assert said == [
        "parts[0].tcpListener.tcpHosts[0].sslConfig.sniDomains: "
        "needed: all other names go to parts[1] of Gateway gloo-system.hybrid"
    ]
    assert served(world) == {"": "second"}


async def test_a_new_broken_part_is_left_out() -> None:
    world = World()
    await serve(world, http("", "rest"))

    await serve(world, http("", "all"), http("10.0.0.1", "a", **BROKEN))

    assert served(world) == {"": "all"}


async def test_an_edit_of_routes_touches_no_listener() -> None:
    world = World()
    await serve(world, http("10.0.0.1", "a"), http("", "rest"))
    before = world.pipeline.snapshot(PROXY_SOURCE.ref)

    await serve(world, http("10.0.0.1", "b"), http("", "rest"))
    after = world.pipeline.snapshot(PROXY_SOURCE.ref)

    assert after.of(LISTENER) is before.of(LISTENER)
    assert served(world) == {"10.0.0.1": "b", "": "rest"}
    name = route_configuration_name("listener")
    assert after.of(ROUTES).by_name[name] == before.of(ROUTES).by_name[name]


async def test_a_listener_that_was_of_one_type_and_comes_back_broken_as_another_goes_on() -> None:
    world = World()
    plain = {"name": "listener", "bindAddress": "::", "bindPort": 9000}
    hosts = [host("web", answer("plain"), domain="*")]
    await world.put(
        PROXY, "gateway-proxy", {"listeners": [{**plain, "httpListener": {"virtualHosts": hosts}}]}
    )

    broken = {**plain, "bindPort": 99999, "hybridListener": {"matchedListeners": [tcp("", "db")]}}
    await world.put(PROXY, "gateway-proxy", {"listeners": [broken]})
    assert served(world) == {"": "plain"}
    await serve(world, http("10.0.0.1", "a"))
    assert served(world) == {"10.0.0.1": "a"}
    broken = {**plain, "bindPort": 99999, "httpListener": {"virtualHosts": hosts}}
    await world.put(PROXY, "gateway-proxy", {"listeners": [broken]})
    assert served(world) == {"10.0.0.1": "a"}
