"""UDP and HTTP/3 through the pipeline: what stands beside a listener, and what stays after a mistake."""

from __future__ import annotations

from typing import Any

from envoy.config.listener.v3 import listener_pb2

from services.gloo.resources import CLUSTER, LISTENER
from shared.store.keys import PROXY
from tests.services.gloo.test_pipeline import PROXY_SOURCE, World

TLS = [{"sslFiles": {"tlsCert": "/etc/a.pem", "tlsKey": "/etc/a.key"}}]
HOSTS = [{"name": "a", "domains": ["*"], "routes": [{"directResponseAction": {"status": 200}}]}]


async def serve(world: World, **listener: Any) -> None:
    given = {"name": "listener", "bindAddress": "::", "bindPort": 9000, **listener}
    await world.put(PROXY, "gateway-proxy", {"listeners": [given]})


def listeners(world: World) -> dict[str, bytes]:
    return {
        name: each.body
        for name, each in world.pipeline.snapshot(PROXY_SOURCE.ref).of(LISTENER).by_name.items()
    }


def clusters(world: World) -> set[str]:
    return set(world.pipeline.snapshot(PROXY_SOURCE.ref).of(CLUSTER).by_name)


async def test_instances_of_a_consul_service_are_wanted_for_datagrams() -> None:
    world = World()
    await serve(world, udpListener={"destination": {"consul": {"serviceName": "dns"}}})

    assert "consul-svc:dns_gloo-system" in clusters(world)
    before = listeners(world)

    broken = {"destination": {"consul": {"serviceName": "other"}}, "options": {"idleTimeout": "0s"}}
    await serve(world, udpListener=broken)

    assert listeners(world) == before
    assert "consul-svc:dns_gloo-system" in clusters(world)
    assert "consul-svc:other_gloo-system" not in clusters(world)


async def test_http3_comes_goes_and_stays_with_its_listener() -> None:
    world = World()

    async def http(**options: Any) -> None:
        await serve(world, sslConfigurations=TLS, httpListener={"virtualHosts": HOSTS, "options": options})

    await http()
    assert listeners(world).keys() == {"listener"}

    await http(http3={})
    both = listeners(world)
    assert both.keys() == {"listener", "listener-http3"}
    quick = listener_pb2.Listener.FromString(both["listener-http3"])
    assert quick.address.socket_address.protocol == quick.address.socket_address.UDP

    await http(http3={"advertisedPort": 0})
    assert listeners(world) == both

    await http()
    assert listeners(world).keys() == {"listener"}
