"""What is served in place of what is refused."""

from __future__ import annotations

import pytest
from envoy.config.route.v3 import route_components_pb2

from services.gloo.parts import parts_of
from services.gloo.resources import CLUSTER, LISTENER, ROUTES, Resource, TypeUrl, resource
from services.gloo.translator.names import forward_proxy_name
from tests.services.gloo.quarantine.world import ROLE, Envoy, World, begun, dislikes, many, routes


def host_of(served: Resource, name: str) -> route_components_pb2.VirtualHost:
    return route_components_pb2.VirtualHost.FromString(parts_of(ROUTES, served.body)[name])


def test_a_new_host_that_is_refused_is_left_out() -> None:
    world, envoy = begun(many(2), dislikes("bad"))

    world.want(routes(many(2, {"new": "bad"})))
    world.settle(envoy)

    assert world.hosts() == many(2)
    assert world.quarantine.held(ROLE)[0].good is None


def test_options_of_the_configuration_itself_are_a_part_of_their_own() -> None:
    world = World()
    envoy = Envoy(world, "1", lambda given: "too much" if b"\x5a\x02\x08\x09" in given.body else None)
    world.want(routes(many(2)))
    world.settle(envoy)

    world.want(routes(many(2, {"h1": "new"}), limit=9))
    world.settle(envoy)

    assert world.held() == [""]
    assert world.hosts() == many(2, {"h1": "new"})


def test_a_stand_in_leaves_its_domains_to_who_has_them_by_now() -> None:
    world = World()
    envoy = Envoy(world, "1", dislikes("bad"))
    world.want(routes({"a": "old", "b": "old"}, domains={"a": ("x.com", "y.com"), "b": ("b.com",)}))
    world.settle(envoy)

    now = {"a": ("y.com",), "b": ("X.com",)}
    world.want(routes({"a": "bad", "b": "new"}, domains=now))
    world.settle(envoy)

    assert host_of(world.served()["routes"], "a").domains == ["y.com"]
    assert host_of(world.served()["routes"], "b").domains == ["X.com"]
    assert world.hosts() == {"a": "old", "b": "new"}


@pytest.mark.parametrize("type_url", [CLUSTER, LISTENER])
def test_a_cluster_or_listener_goes_back_to_its_last_good_version(type_url: TypeUrl) -> None:
    world = World()
    envoy = Envoy(world, "1", lambda given: "no" if b"bad" in given.body else None, type_url)
    world.want(resource("a", b"good"), resource("b", b"good"), type_url=type_url)
    world.settle(envoy)

    world.want(resource("a", b"bad"), resource("b", b"new"), resource("c", b"bad"), type_url=type_url)
    world.settle(envoy)

    assert {name: each.body for name, each in world.served(type_url).items()} == {"a": b"good", "b": b"new"}
    assert len(envoy.refusals) == 2
    assert [held.place.name for held in world.quarantine.held(ROLE)] == ["a", "c"]


def test_what_forwards_to_any_host_goes_back_to_the_version_of_another_name() -> None:
    def forwarding(routes: str, settings: str) -> Resource:
        name = forward_proxy_name(routes, settings)
        return resource(name, f"{name} {settings}".encode())

    world, names = World(), [forward_proxy_name("a", each) for each in ("first", "worse", "other")]
    envoy = Envoy(world, "1", lambda given: "no" if b" worse" in given.body else None, CLUSTER)
    world.want(forwarding("a", "first"), forwarding("b", "first"), type_url=CLUSTER)
    world.settle(envoy)

    world.want(forwarding("a", "worse"), forwarding("b", "first"), type_url=CLUSTER)
    world.settle(envoy)
    assert world.served(CLUSTER)[names[1]].body == f"{names[1]} first".encode()
    assert [held.place.name for held in world.quarantine.held(ROLE)] == [names[1]]

    world.want(forwarding("a", "other"), forwarding("b", "first"), type_url=CLUSTER)
    world.settle(envoy)
    assert world.served(CLUSTER)[names[2]].body == f"{names[2]} other".encode()
    assert world.quarantine.held(ROLE) == []
