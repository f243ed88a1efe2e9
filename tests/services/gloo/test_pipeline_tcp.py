"""TCP hosts through the pipeline: a mistake costs one host, which keeps what served it before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from services.gloo.resources import CLUSTER, LISTENER, ROUTES
from shared.ref import Ref, Source
from shared.report import Report
from shared.store.keys import PROXY, UPSTREAM
from tests.services.gloo.test_pipeline import PROXY_SOURCE, World

TCP = Source("Gateway", Ref("gloo-system", "tcp"))
SOURCES = {"sources": [{"kind": "*v1.Gateway", "name": "tcp", "namespace": "gloo-system"}]}


def to(service: str) -> dict[str, Any]:
    return {"single": {"consul": {"serviceName": service}}}


def host(name: str, destination: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {"name": name, "destination": destination, "sslConfig": {"sniDomains": list(names or [name])}}


def proxy(*hosts: dict[str, Any]) -> dict[str, Any]:
    listener = {"name": "listener", "bindAddress": "::", "bindPort": 9000, "metadata": SOURCES}
    return {"listeners": [listener | {"tcpListener": {"tcpHosts": list(hosts)}}]}


async def serve(world: World, *hosts: dict[str, Any]) -> list[str]:
    """What is said of the Gateway when it has *hosts*."""
    await world.put(PROXY, "gateway-proxy", proxy(*hosts))
    return [str(problem) for problem in told(world).errors]


def told(world: World) -> Report:
    return world.pipeline.proxies.served[PROXY_SOURCE.ref].reports.get(TCP, Report())


def served(world: World) -> dict[str, str]:
    """Each server name with the cluster it leads to."""
    found = {}
    for each in world.pipeline.snapshot(PROXY_SOURCE.ref).of(LISTENER).by_name.values():
        for chain in listener_pb2.Listener.FromString(each.body).filter_chains:
            through = tcp_proxy_pb2.TcpProxy()
            chain.filters[-1].typed_config.Unpack(through)
            found |= dict.fromkeys(chain.filter_chain_match.server_names, through.cluster)
    return found


def clusters(world: World) -> set[str]:
    return set(world.pipeline.snapshot(PROXY_SOURCE.ref).of(CLUSTER).by_name)


def cluster(service: str) -> str:
    return f"consul-svc:{service}_gloo-system"


async def test_a_broken_host_keeps_what_served_it_and_costs_no_other() -> None:
    world = World()
    assert await serve(world, host("a", to("one")), host("b", to("two"))) == []
    assert served(world) == {"a": cluster("one"), "b": cluster("two")}
    assert not world.pipeline.snapshot(PROXY_SOURCE.ref).of(ROUTES).by_name

    said = await serve(world, host("a", {}), host("b", to("three")), host("new", {}))

    nowhere = "required: one of single, multi, upstreamGroup, forwardSniClusterName"
    assert said == [f"tcpListener.tcpHosts[{i}].destination: {nowhere}" for i in (0, 2)]
    assert served(world) == {"a": cluster("one"), "b": cluster("three")}
    assert clusters(world) == {cluster("one"), cluster("three")}
    assert await serve(world, host("b", to("three"))) == []
    assert served(world) == {"b": cluster("three")}
    assert clusters(world) == {cluster("three")}


async def test_a_host_broken_at_the_start_keeps_what_was_served_before_it() -> None:
    before = World()
    await serve(before, host("a", to("one")), host("b", to("two")))
    world = before.restarted()

    assert await serve(world, host("a", {}), host("b", to("three")))

    for _ in range(2):
        assert served(world) == {"a": cluster("one"), "b": cluster("three")}
        assert clusters(world) == {cluster("one"), cluster("three")}
        await serve(world, host("a", {"single": {}}), host("b", to("three")))


async def test_a_server_name_stays_with_the_host_that_had_it() -> None:
    world = World()
    await serve(world, host("b", to("two"), "name"))

    said = await serve(world, host("a", to("one"), "name", "other"), host("b", to("two"), "name"))

    assert said == ["tcpListener.tcpHosts[0].sslConfig.sniDomains: name goes to the host b"]
    assert served(world) == {"name": cluster("two")}


async def test_options_that_are_wrong_leave_the_listener_as_it_was() -> None:
    world = World()
    await serve(world, host("a", to("one")))
    broken = proxy(host("a", to("two")))
    broken["listeners"][0]["tcpListener"]["options"] = {"tcpProxySettings": {"maxConnectAttempts": 0}}

    await world.put(PROXY, "gateway-proxy", broken)

    assert served(world) == {"a": cluster("one")}
    assert cluster("one") in clusters(world)


async def test_an_upstream_that_appears_is_taken_up() -> None:
    world = World()
    destination = {
        "single": {"upstream": {"name": "db", "namespace": "gloo-system"}, "subset": {"values": {"a": "b"}}}
    }
    await serve(world, host("a", destination))
    assert "*v1.Upstream { gloo-system.db } not found" in str(told(world).warnings)

    await world.put(UPSTREAM, "db", {"static": {"hosts": [{"addr": "127.0.0.1", "port": 1}]}})

    assert "the upstream has no such subset" in str(told(world).warnings)
