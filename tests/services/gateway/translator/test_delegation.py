"""The bounds of delegation; its rules are in the golden cases."""

from __future__ import annotations

from typing import Any

from services.gateway.translation import Translation
from tests.services.gateway.support import NAMESPACE, apply, documents, findings


def delegating(name: str, prefix: str = "/") -> dict[str, Any]:
    return {"matchers": [{"prefix": prefix}], "delegateAction": {"ref": {"name": name}}}


def table(name: str, *routes: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "RouteTable", "metadata": {"name": name}, "routes": list(routes)}


def top(*routes: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "VirtualService", "metadata": {"name": "top"}, "virtualHost": {"routes": list(routes)}}


GATEWAY = {
    "kind": "Gateway",
    "metadata": {"name": "gw"},
    "bindAddress": "::",
    "bindPort": 8080,
    "httpGateway": {},
}


def test_tables_that_double_the_routes_at_every_level_end_somewhere() -> None:
    tables = [table(f"t{i}", delegating(f"t{i + 1}"), delegating(f"t{i + 1}")) for i in range(30)]
    translation = Translation(NAMESPACE)

    apply(translation, [GATEWAY, top(delegating("t0")), *tables, table("t30")])

    told = findings(translation)["VirtualService gloo-system.top"]["errors"]
    assert told == ["virtualHost.routes: delegation makes more than 100000 routes of them"]


def test_tables_nested_without_end_are_an_error_on_the_one_that_goes_too_deep() -> None:
    tables = [table(f"t{i:02}", delegating(f"t{i + 1:02}")) for i in range(40)]
    translation = Translation(NAMESPACE)

    apply(translation, [GATEWAY, top(delegating("t00")), *tables])

    told = findings(translation)
    assert told["RouteTable gloo-system.t31"]["errors"] == [
        "routes[0].delegateAction: is nested deeper than 32 route tables"
    ]


def test_a_table_that_selects_itself_is_a_circle() -> None:
    selecting = {"delegateAction": {"selector": {"labels": {"team": "a"}}}}
    alone = {
        "kind": "RouteTable",
        "metadata": {"name": "self", "labels": {"team": "a"}},
        "routes": [selecting],
    }
    translation = Translation(NAMESPACE)

    apply(translation, [GATEWAY, top(selecting), alone])

    told = findings(translation)
    assert told["RouteTable gloo-system.self"]["errors"] == [
        "routes[0].delegateAction: delegation goes in a circle: gloo-system.self -> gloo-system.self"
    ]


def test_one_table_may_serve_several_routes() -> None:
    answer = {"matchers": [{"prefix": "/"}], "directResponseAction": {"status": 200}}
    translation = Translation(NAMESPACE)

    apply(translation, [GATEWAY, top(delegating("t"), delegating("t")), table("t", answer)])

    (listener,) = documents(translation)["gateway-proxy"]["listeners"]
    assert len(listener["httpListener"]["virtualHosts"][0]["routes"]) == 2
    assert findings(translation) == {}
