"""Parts of resources: cut and joined without a byte's difference."""

from __future__ import annotations

import pytest

from protos.envoy import route
from services.gloo.parts import WHOLE, domains_of, joined, parts_of, without_domains
from services.gloo.resources import CLUSTER, ROUTES, Resource, resource
from shared.codec.encode import encode
from shared.ref import Ref, Source


def configuration(*names: str) -> Resource:
    hosts = [
        route.VirtualHost(
            name=name,
            domains=[f"{name}.com", f"www.{name}.com"],
            routes=[route.Route(name="r" * 200, match=route.RouteMatch(prefix="/"))],
        )
        for name in names
    ]
    made = route.RouteConfiguration(
        name="routes",
        virtual_hosts=hosts,
        most_specific_header_mutations_wins=True,
        max_direct_response_body_size_bytes=9,
    )
    return resource("routes", encode(made), [Source("VirtualService", Ref("n", "a"))])


def test_a_route_configuration_falls_into_its_hosts_and_the_frame_around_them() -> None:
    given = configuration("a", "b")

    parts = parts_of(ROUTES, given.body)

    assert list(parts) == [WHOLE, "a", "b"]
    assert joined(ROUTES, given, parts) is given


def test_another_host_makes_another_resource_with_the_same_frame_and_sources() -> None:
    given, other = configuration("a", "b"), configuration("c")

    parts = {**parts_of(ROUTES, given.body), "c": parts_of(ROUTES, other.body)["c"]}
    del parts["b"]

    made = joined(ROUTES, given, parts)
    assert made.body == configuration("a", "c").body
    assert made.sources == given.sources


def test_any_other_resource_is_one_part() -> None:
    given = resource("a", b"anything")

    assert joined(CLUSTER, given, parts_of(CLUSTER, given.body)).body == b"anything"


def test_domains_are_read_and_taken_away_in_the_bytes() -> None:
    host = parts_of(ROUTES, configuration("a").body)["a"]

    assert domains_of(host) == ["a.com", "www.a.com"]
    assert domains_of(without_domains(host, {"a.com"})) == ["www.a.com"]
    assert without_domains(host, {"a.com", "www.a.com"}) == b""


@pytest.mark.parametrize("body", [b"\x12\x09short", b"\x0f", b"\xff"])
def test_bytes_that_are_no_message_are_told_apart(body: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        parts_of(ROUTES, body)
