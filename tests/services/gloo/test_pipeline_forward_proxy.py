"""Forwarding to any host through the pipeline: the cluster comes, stays and goes with what needs it."""

from __future__ import annotations

from typing import Any

from envoy.config.cluster.v3 import cluster_pb2

from services.gloo.resources import CLUSTER, LISTENER, SECRET, Resource
from services.gloo.translator.names import FORWARD_PROXY
from shared.store.keys import PROXY
from tests.services.gloo.test_pipeline import PROXY_SOURCE, World, answer, host, proxy

ROUTE = {"matchers": [{"prefix": "/any"}], "routeAction": {"dynamicForwardProxy": {}}}
SLOW = {"dnsCacheConfig": {"dnsRefreshRate": "30s"}}
BROKEN = {"dnsCacheConfig": {"dnsRefreshRate": "0s"}}


def cluster(world: World) -> Resource | None:
    found = world.pipeline.snapshot(PROXY_SOURCE.ref).of(CLUSTER).by_name
    return found.get(f"{FORWARD_PROXY}listener-routes")


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
    await serve(world, ROUTE, answer("more"), dynamicForwardProxy=SLOW)
    second = cluster(world)
    assert second is not None
    assert cluster_pb2.Cluster.FromString(second.body) != cluster_pb2.Cluster.FromString(first.body)
    await serve(world, answer("only"))
    assert cluster(world) is None


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


async def test_secrets_of_the_hosts_are_asked_for_and_served() -> None:
    world = World()
    tls = {"sslConfig": {"sslFiles": {"rootCa": "/etc/ssl/cert.pem"}}}

    await serve(world, ROUTE, dynamicForwardProxy=tls)

    assert len(world.pipeline.snapshot(PROXY_SOURCE.ref).of(SECRET).by_name) == 1
    await serve(world, ROUTE, dynamicForwardProxy={})
    assert not world.pipeline.snapshot(PROXY_SOURCE.ref).of(SECRET).by_name
