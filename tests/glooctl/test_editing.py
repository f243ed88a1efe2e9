"""Edits of documents."""

import pytest

from glooctl.editing import (
    RouteFlags,
    add_route,
    pick_virtual_service,
    remove_route,
    route_from,
    static_upstream,
    upstream_group,
    with_ssl,
)
from glooctl.errors import CommandError, UsageError

VIRTUAL_SERVICE = {
    "metadata": {"name": "default", "namespace": "gloo-system"},
    "virtualHost": {
        "domains": ["*"],
        "routes": [{"matchers": [{"prefix": "/a"}]}, {"matchers": [{"prefix": "/b"}]}],
    },
}


def test_the_tours_route_has_matcher_destination_and_rewrite() -> None:
    route = route_from(RouteFlags(exact="/all-pets", upstream="petstore", prefix_rewrite="/api/pets"))

    assert route == {
        "matchers": [{"exact": "/all-pets"}],
        "routeAction": {"single": {"upstream": {"name": "petstore", "namespace": "gloo-system"}}},
        "options": {"prefixRewrite": "/api/pets"},
    }


def test_headers_are_regexes_unless_they_need_only_be_there_and_query_parameters_always_are() -> None:
    flags = RouteFlags(
        prefix="/", upstream="x", headers=["a=b.*", "c"], query_parameters=["q"], methods=["get", "PUT"]
    )

    (matcher,) = route_from(flags)["matchers"]

    assert matcher["headers"] == [{"name": "a", "value": "b.*", "regex": True}, {"name": "c"}]
    assert matcher["queryParameters"] == [{"name": "q", "regex": True}]
    assert matcher["methods"] == ["GET", "PUT"]


@pytest.mark.parametrize(
    "flags",
    [
        RouteFlags(upstream="x"),
        RouteFlags(exact="/a", prefix="/b", upstream="x"),
        RouteFlags(exact="/a"),
        RouteFlags(exact="/a", upstream="x", delegate="y"),
        RouteFlags(exact="/a", upstream="x", headers=["=v"]),
    ],
)
def test_a_route_needs_exactly_one_path_and_one_destination(flags: RouteFlags) -> None:
    with pytest.raises(UsageError):
        route_from(flags)


def test_a_route_goes_in_at_its_index_and_past_the_end_comes_last() -> None:
    first = add_route(VIRTUAL_SERVICE, {"name": "new"}, 0)
    last = add_route(VIRTUAL_SERVICE, {"name": "new"}, 99)

    assert first["virtualHost"]["routes"][0] == {"name": "new"}
    assert last["virtualHost"]["routes"][2] == {"name": "new"}
    assert len(VIRTUAL_SERVICE["virtualHost"]["routes"]) == 2  # the argument is untouched


def test_removing_a_route_that_is_not_there_says_how_many_there_are() -> None:
    with pytest.raises(CommandError, match="it has 2 routes, numbered from 0"):
        remove_route(VIRTUAL_SERVICE, 2)


def test_a_route_table_takes_routes_too() -> None:
    table = {"metadata": {"name": "t", "namespace": "n"}}

    assert add_route(table, {"name": "r"}, 0)["routes"] == [{"name": "r"}]


def test_the_virtual_service_for_every_domain_is_picked() -> None:
    other = {"virtualHost": {"domains": ["example.com"]}}
    unnamed = {"virtualHost": {}}

    assert pick_virtual_service([other, VIRTUAL_SERVICE]) is VIRTUAL_SERVICE
    assert pick_virtual_service([other, unnamed]) is unnamed
    assert pick_virtual_service([other]) is None


def test_static_hosts_have_port_80_unless_they_say_otherwise() -> None:
    document = static_upstream("x", "n", ["a.example", "10.0.0.1:8080", "[::1]:9000"], False)

    hosts = document["static"]["hosts"]
    assert [(host["addr"], host["port"]) for host in hosts] == [
        ("a.example", 80),
        ("10.0.0.1", 8080),
        ("::1", 9000),
    ]


@pytest.mark.parametrize("host", ["a:b", ":80", "a:70000"])
def test_a_bad_static_host_is_named(host: str) -> None:
    with pytest.raises(UsageError, match="is not host:port"):
        static_upstream("x", "n", [host], False)


def test_weighted_upstreams_become_a_group() -> None:
    document = upstream_group("g", "n", ["ns.one=90", "ns.two=10"])

    assert [member["weight"] for member in document["destinations"]] == [90, 10]
    with pytest.raises(UsageError, match=r"namespace\.name=weight"):
        upstream_group("g", "n", ["one=90"])


def test_ssl_flags_change_only_what_they_name() -> None:
    secured = with_ssl(VIRTUAL_SERVICE, secret_name="cert", sni=["a.example"])
    moved = with_ssl(secured, sni=["b.example"])

    assert moved["sslConfig"] == {
        "secretRef": {"name": "cert", "namespace": "gloo-system"},
        "sniDomains": ["b.example"],
    }
    assert "sslConfig" not in with_ssl(moved, remove=True)
