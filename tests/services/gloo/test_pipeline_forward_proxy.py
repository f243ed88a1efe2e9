"""Forwarding to any host through the pipeline: the cluster comes, stays and goes with what needs it."""

from __future__ import annotations

from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.route.v3 import route_pb2

from services.gloo.parts import parts_of
from services.gloo.resources import CLUSTER, LISTENER, ROUTES, SECRET, Resource
from services.gloo.translator.names import FORWARD_PROXY, virtual_host_name
from shared.store.keys import PROXY
from tests.services.gloo.test_pipeline import PROXY_SOURCE, World, answer, host, proxy

ROUTE = {"matchers": [{"prefix": "/any"}], "routeAction": {"dynamicForwardProxy": {}}}
SLOW = {"dnsCacheConfig": {"dnsRefreshRate": "30s"}}
NAME = "listener-routes"
BROKEN = {"dnsCacheConfig": {"dnsRefreshRate": "0s"}}


def cluster(world: World) -> Resource | None:
    """The one that there is; the routes, if they forward, do by it."""
    snapshot = world.pipeline.snapshot(PROXY_SOURCE.ref)
    made = [each for name, each in snapshot.of(CLUSTER).by_name.items() if name.startswith(FORWARD_PROXY)]
    assert len(made) < 2
    parsed = route_pb2.RouteConfiguration.FromString(snapshot.of(ROUTES).by_name[NAME].body)
    asked = {
        each.route.cluster for host in parsed.virtual_hosts for each in host.routes if each.HasField("route")
    }
    assert asked == {each.name for each in made}
    return made[0] if made else None


def settings(given: Resource | None) -> cluster_pb2.Cluster:
    assert given is not None
    parsed = cluster_pb2.Cluster.FromString(given.body)
    assert parsed.name == given.name
    parsed.ClearField("name")
    return parsed


def listener(world: World) -> Resource:
    return world.pipeline.snapshot(PROXY_SOURCE.ref).of(LISTENER).by_name["listener"]


async def serve(world: World, *routes: dict[str, Any], **options: Any) -> None:
    await world.put(PROXY, "gateway-proxy", proxy(host("a", *routes), **options))


async def test_the_cluster_is_there_as_long_as_the_listener_forwards() -> None:
    world = World()

    await serve(world, ROUTE, dynamicForwardProxy={})
    first = cluster(world)
    assert first is not None
    assert first.sources == listener(world).sources
    await serve(world, ROUTE, answer("only"))
    await serve(world, answer("only"))
    assert cluster(world) is None


async def test_other_settings_are_another_cluster_with_the_same_statistics() -> None:
    world = World()

    await serve(world, ROUTE, dynamicForwardProxy={})
    first = cluster(world)
    await serve(world, ROUTE, answer("more"), dynamicForwardProxy={})
    assert cluster(world) == first
    await serve(world, ROUTE, answer("more"), dynamicForwardProxy=SLOW)
    second = cluster(world)
    assert first is not None
    assert second is not None
    assert first.name != second.name
    assert settings(first).alt_stat_name == settings(second).alt_stat_name == FORWARD_PROXY + NAME


async def test_a_mistake_leaves_listener_and_cluster_as_they_were() -> None:
    world = World()
    await serve(world, ROUTE, dynamicForwardProxy=SLOW)
    before = cluster(world), listener(world)

    await serve(world, ROUTE, answer("more"), dynamicForwardProxy=BROKEN)
    assert (cluster(world), listener(world)) == before
    again = world.restarted()
    await serve(again, ROUTE, answer("more"), dynamicForwardProxy=BROKEN)
    assert (cluster(again), listener(again)) == before
    await serve(again, ROUTE)  # which the route does not outlive either
    assert cluster(again) == before[0]

    await serve(again, answer("only"))
    assert cluster(again) is None


async def test_an_envoys_refusal_is_told_to_the_table_that_all_new_routes_are_from() -> None:
    def of_a_table(body: str) -> dict[str, Any]:
        table = {"kind": "*v1.RouteTable", "name": "table", "namespace": "gloo-system", "path": "routes[0]"}
        return answer(body, metadata={"sources": [table]})

    world, name = World(), virtual_host_name("gloo-system.a")
    await serve(world, ROUTE, of_a_table("good"), dynamicForwardProxy={})
    good = parts_of(ROUTES, world.pipeline.snapshot(PROXY_SOURCE.ref).of(ROUTES).by_name[NAME].body)[name]

    await serve(world, ROUTE, of_a_table("bad"), dynamicForwardProxy=SLOW)
    told = world.pipeline.proxies.refused(PROXY_SOURCE.ref, NAME, name, "no", good)

    assert [source.kind for source, report in told.items() if report.errors] == ["RouteTable"]


async def test_secrets_of_the_hosts_are_asked_for_and_served() -> None:
    world = World()
    tls = {"sslConfig": {"sslFiles": {"rootCa": "/etc/ssl/cert.pem"}}}

    await serve(world, ROUTE, dynamicForwardProxy=tls)

    assert len(world.pipeline.snapshot(PROXY_SOURCE.ref).of(SECRET).by_name) == 1
    await serve(world, ROUTE, dynamicForwardProxy={})
    assert not world.pipeline.snapshot(PROXY_SOURCE.ref).of(SECRET).by_name
