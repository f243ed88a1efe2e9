"""Gateways of several parts, and options that are objects, over time."""

from __future__ import annotations

from typing import Any

from services.gateway.translation import Translation
from tests.services.gateway.support import NAMESPACE, apply, documents, findings, source_of
from tests.services.gateway.test_translation import delegating, service, table


def gateway(*matched: dict[str, Any], **fields: Any) -> dict[str, Any]:
    fields = fields or {"hybridGateway": {"matchedGateways": list(matched)}}
    return {"kind": "Gateway", "metadata": {"name": "gw"}, "bindAddress": "::", "bindPort": 8080, **fields}


def part(source: str, *services: str, server: str = "") -> dict[str, Any]:
    """HTTP for connections from *source*."""
    options = {"httpConnectionManagerSettings": {"serverName": server}} if server else {}
    http = {"virtualServices": [{"name": name} for name in services], "options": options}
    return {"matcher": {"sourcePrefixRanges": [{"addressPrefix": source}]}, "httpGateway": http}


def untyped(source: str) -> dict[str, Any]:
    return {"matcher": {"sourcePrefixRanges": [{"addressPrefix": source}]}}


def option(kind: str, name: str, options: dict[str, Any], *targets: str) -> dict[str, Any]:
    refs = [{"kind": "Gateway", "name": target} for target in targets]
    return {"kind": kind, "metadata": {"name": name}, "options": options, "targetRefs": refs}


def servers(translation: Translation) -> dict[str, str]:
    """By source what each part calls itself."""
    (listener,) = documents(translation)["gateway-proxy"]["listeners"]
    return {
        each["matcher"]["sourcePrefixRanges"][0]["addressPrefix"]: each["httpListener"]["options"][
            "httpConnectionManagerSettings"
        ]["serverName"]
        for each in listener["hybridListener"].get("matchedListeners", ())
    }


def test_a_part_goes_back_to_what_it_was_last_and_not_further() -> None:
    translation = Translation(NAMESPACE)
    apply(translation, [gateway(part("1.1.1.1", server="a"), part("2.2.2.2", server="b"))])

    apply(translation, [gateway(untyped("1.1.1.1"), part("2.2.2.2", server="c"))])
    assert servers(translation) == {"1.1.1.1": "a", "2.2.2.2": "c"}

    apply(translation, [gateway(untyped("1.1.1.1"), untyped("2.2.2.2"))])
    assert servers(translation) == {"1.1.1.1": "a", "2.2.2.2": "c"}
    assert len(findings(translation)["Gateway gloo-system.gw"]["errors"]) == 2

    apply(translation, [gateway(part("2.2.2.2", server="d"))])
    assert servers(translation) == {"2.2.2.2": "d"}


def test_a_part_is_known_by_its_matcher_and_else_by_its_place() -> None:
    translation = Translation(NAMESPACE)
    apply(translation, [gateway(part("1.1.1.1", server="a"), part("2.2.2.2", server="b"))])

    apply(translation, [gateway(untyped("2.2.2.2"))])
    assert servers(translation) == {"2.2.2.2": "b"}
    apply(translation, [gateway(untyped("3.3.3.3"))])  # its matcher was edited, too
    assert servers(translation) == {"2.2.2.2": "b"}


def test_a_reference_to_nothing_costs_one_part() -> None:
    translation = Translation(NAMESPACE)
    apply(translation, [gateway(part("1.1.1.1", "a"), part("2.2.2.2", "a", server="b")), service("a")])

    apply(translation, [gateway(part("1.1.1.1", "gone"), part("2.2.2.2", "a", server="c"))])

    (listener,) = documents(translation)["gateway-proxy"]["listeners"]
    first, second = listener["hybridListener"]["matchedListeners"]
    assert [host["name"] for host in first["httpListener"]["virtualHosts"]] == ["gloo-system.a"]
    assert second["httpListener"]["options"]["httpConnectionManagerSettings"]["serverName"] == "c"


def test_a_matchable_gateway_that_refers_to_nothing_keeps_what_it_served() -> None:
    def matchable(name: str) -> dict[str, Any]:
        http = {"virtualServices": [{"name": name}]}
        return {"kind": "MatchableHttpGateway", "metadata": {"name": "m"}, "httpGateway": http}

    translation = Translation(NAMESPACE)
    shared = gateway(hybridGateway={"delegatedHttpGateways": {"selector": {}}})
    apply(translation, [shared, matchable("a"), service("a")])
    before = documents(translation)

    apply(translation, [matchable("nobody")])

    assert documents(translation) == before
    problem = "httpGateway.virtualServices[0]: virtual service gloo-system.nobody not found"
    assert findings(translation) == {
        "Gateway gloo-system.gw": {
            "warnings": [
                f"hybridGateway.delegatedHttpGateways: MatchableHttpGateway gloo-system.m: {problem}"
            ]
        },
        "MatchableHttpGateway gloo-system.m": {"errors": [problem]},
    }


def test_domains_are_contested_in_each_part_by_itself() -> None:
    translation = Translation(NAMESPACE)
    apply(translation, [gateway(part("1.1.1.1", "a"), part("2.2.2.2", "b"))])
    overlapping = service("b")
    overlapping["virtualHost"]["domains"] = ["x.com", "y.com"]

    apply(translation, [service("a", "x.com"), overlapping])

    assert findings(translation) == {}


def test_objects_have_a_share_where_they_are_used_and_say_by_whom() -> None:
    translation = Translation(NAMESPACE)
    matchable = {"kind": "MatchableHttpGateway", "metadata": {"name": "m"}, "httpGateway": {}}
    refs = {"optionsConfigRefs": {"delegateOptions": [{"name": "quick"}]}}
    routes = table("t")
    routes["routes"][0] |= refs
    apply(
        translation,
        [
            gateway(hybridGateway={"delegatedHttpGateways": {"ref": {"name": "m"}}}),
            matchable,
            option("ListenerOption", "lo", {"tcpStats": True}, "gw"),
            option("HttpListenerOption", "hlo", {"healthCheck": {"path": "/"}}, "gw"),
            option("HttpListenerOption", "idle", {}),
            {"kind": "RouteOption", "metadata": {"name": "quick"}, "options": {"timeout": "1s"}},
            delegating("a", ref={"name": "t"}),
            routes,
        ],
    )

    users = {
        name: {str(user) for user in translation.users(source_of(kind, name))}
        for kind, name in (
            ("MatchableHttpGateway", "m"),
            ("ListenerOption", "lo"),
            ("HttpListenerOption", "hlo"),
            ("HttpListenerOption", "idle"),
            ("RouteOption", "quick"),
        )
    }
    gw = {"Gateway gloo-system.gw"}
    assert users == {"m": gw, "lo": gw, "hlo": gw, "idle": set(), "quick": {"VirtualService gloo-system.a"}}
    assert translation.shares(source_of("RouteOption", "quick")) == {"gateway-proxy"}
    assert translation.shares(source_of("HttpListenerOption", "idle")) == set()
    assert source_of("ListenerOption", "lo") in translation.members("gateway-proxy")


def test_options_wake_those_they_are_for_alone() -> None:
    translation = Translation(NAMESPACE)
    other = {**gateway(httpGateway={}), "metadata": {"name": "other"}, "bindPort": 8081}
    apply(translation, [gateway(httpGateway={}), other, option("ListenerOption", "o", {}, "gw")])
    computed = translation.gateways.computed

    touched = apply(translation, [option("ListenerOption", "o", {"tcpStats": True}, "gw")])

    assert translation.gateways.computed == computed + 1
    assert touched == {source_of("ListenerOption", "o"), source_of("Gateway", "gw")}
    first, second = documents(translation)["gateway-proxy"]["listeners"]
    assert (first["options"], "options" in second) == ({"tcpStats": True}, False)


def test_a_gateway_that_comes_ends_the_warning_of_its_options() -> None:
    translation = Translation(NAMESPACE)
    apply(translation, [option("ListenerOption", "o", {}, "gw")])
    assert findings(translation)["ListenerOption gloo-system.o"]["warnings"] == [
        "targetRefs[0]: Gateway gloo-system.gw not found"
    ]

    touched = apply(translation, [gateway(httpGateway={})])

    assert source_of("ListenerOption", "o") in touched
    assert findings(translation) == {}
