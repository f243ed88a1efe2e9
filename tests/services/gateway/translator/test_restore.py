"""A stored Proxy taken apart again."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from services.gateway.translation import Translation
from services.gateway.translator.restore import restore
from shared.ref import Ref
from tests.services.gateway.support import NAMESPACE, apply, documents, findings

GATEWAY = {
    "kind": "Gateway",
    "metadata": {"name": "gw"},
    "bindAddress": "::",
    "bindPort": 8080,
    "httpGateway": {},
}
SECURE = {**GATEWAY, "metadata": {"name": "tls"}, "bindPort": 8443, "ssl": True}


def service(name: str, domain: str, status: int, **fields: Any) -> dict[str, Any]:
    route = {"matchers": [{"prefix": f"/{name}"}], "directResponseAction": {"status": status}}
    options = fields.pop("options", None)
    host = {"domains": [domain], "routes": [route], **({"options": options} if options else {})}
    return {"kind": "VirtualService", "metadata": {"name": name}, "virtualHost": host, **fields}


OPTIONS = {"corsPolicyMergeSettings": {}}
WORLD = [
    GATEWAY,
    SECURE,
    service("alone", "a.com", 201),
    service("b1", "b.com", 202),
    service("b2", "b.com", 203, options=OPTIONS),
    service("secure", "c.com", 204, sslConfig={"secretRef": {"name": "s", "namespace": "n"}}),
]


def broken(document: dict[str, Any]) -> dict[str, Any]:
    return {**document, "oops": 1}


def stored_proxies() -> dict[str, Any]:
    translation = Translation(NAMESPACE)
    apply(translation, WORLD)
    found: dict[str, Any] = orjson.loads(orjson.dumps(documents(translation)))
    return found


def restarted(*world: dict[str, Any]) -> Translation:
    translation = Translation(NAMESPACE)
    translation.adopt(restore(stored_proxies()))
    apply(translation, world)
    return translation


def test_a_restart_in_which_everything_is_wrong_serves_what_was_served() -> None:
    translation = restarted(*map(broken, WORLD))

    assert documents(translation) == stored_proxies()
    assert len(findings(translation)) == len(WORLD)


def test_a_gateway_of_udp_that_is_wrong_after_a_restart_serves_what_was_served() -> None:
    gateway = {"destination": {"upstream": {"name": "dns"}}, "options": {"idleTimeout": "5s"}}
    world = [GATEWAY, {**SECURE, "bindPort": 8080, "udpGateway": gateway}]
    del world[1]["httpGateway"]
    apply(before := Translation(NAMESPACE), world)
    stored = orjson.loads(orjson.dumps(documents(before)))

    after = Translation(NAMESPACE)
    after.adopt(restore(stored))
    apply(after, [world[0], broken(world[1])])

    assert documents(after) == stored


def test_a_part_of_a_merged_host_is_taken_out_of_it() -> None:
    for name in ("b1", "b2"):
        world = [broken(each) if each["metadata"]["name"] == name else each for each in WORLD]

        assert documents(restarted(*world)) == stored_proxies()


def test_what_is_gone_is_not_restored() -> None:
    translation = restarted(*(each for each in WORLD if each["metadata"]["name"] not in ("alone", "tls")))

    (listener,) = documents(translation)["gateway-proxy"]["listeners"]
    assert [host["name"] for host in listener["httpListener"]["virtualHosts"]] == ["merged-b.com"]


def test_a_mended_object_is_taken_from_its_document_again_and_its_next_mistake_too() -> None:
    translation = restarted(*(broken(each) if each["kind"] == "VirtualService" else each for each in WORLD))

    apply(translation, [service("alone", "a.com", 301)])
    apply(translation, [broken(service("alone", "a.com", 302))])

    listener = documents(translation)["gateway-proxy"]["listeners"][0]
    host = listener["httpListener"]["virtualHosts"][0]
    assert host["routes"][0]["directResponseAction"]["status"] == 301


def test_a_broken_table_after_a_restart_keeps_the_whole_host() -> None:
    delegating = {"matchers": [{"prefix": "/"}], "delegateAction": {"ref": {"name": "t"}}}
    top = {"kind": "VirtualService", "metadata": {"name": "top"}, "virtualHost": {"routes": [delegating]}}
    table = {
        "kind": "RouteTable",
        "metadata": {"name": "t"},
        "routes": [{"directResponseAction": {"status": 200}}],
    }
    before = Translation(NAMESPACE)
    apply(before, [GATEWAY, top, table])
    after = Translation(NAMESPACE)
    after.adopt(restore(documents(before)))

    apply(after, [GATEWAY, top, broken(table)])

    assert documents(after) == documents(before)
    assert "is rejected" in findings(after)["VirtualService gloo-system.top"]["warnings"][0]


def test_a_follower_that_takes_over_keeps_what_the_leader_served() -> None:
    leader, follower = Translation(NAMESPACE), Translation(NAMESPACE)
    for each in (GATEWAY, service("late", "x.com", 201), service("early", "x.com", 202, options=OPTIONS)):
        apply(leader, [each])
    apply(leader, [service("late", "x.com", 203, options=OPTIONS)])
    apply(
        follower,
        [service("late", "x.com", 203, options=OPTIONS), service("early", "x.com", 202, options=OPTIONS)],
    )
    apply(follower, [GATEWAY])

    follower.adopt(restore(documents(leader)))
    apply(follower)

    assert documents(follower) == documents(leader)
    assert findings(follower) == findings(leader)


def test_before_knows_who_served_which_domains() -> None:
    restored = restore(stored_proxies())

    assert restored.before[Ref(NAMESPACE, "gw"), ""] == {
        Ref(NAMESPACE, "alone"): {"a.com"},
        Ref(NAMESPACE, "b1"): {"b.com"},
        Ref(NAMESPACE, "b2"): {"b.com"},
    }


def test_proxies_of_other_makers_are_passed_over() -> None:
    foreign = {"listeners": [{"name": "l", "httpListener": {"virtualHosts": [{"name": "x"}]}}, {}]}

    assert restore({"theirs": foreign, "empty": {}}).parts == {}


HYBRID = {
    "kind": "Gateway",
    "metadata": {"name": "hybrid"},
    "bindAddress": "::",
    "bindPort": 9443,
    "hybridGateway": {
        "delegatedHttpGateways": {"selector": {}},
        "delegatedTcpGateways": {"ref": {"name": "db"}},
    },
}
ISOLATED = {
    **SECURE,
    "metadata": {"name": "isolated", "annotations": {"gateway.solo.io/isolate_vhost": "true"}},
    "bindPort": 9444,
}
INLINE: dict[str, Any] = {
    "kind": "Gateway",
    "metadata": {"name": "inline"},
    "bindAddress": "::",
    "bindPort": 9445,
    "hybridGateway": {
        "matchedGateways": [
            {"matcher": {"sslConfig": {"sniDomains": ["c.com"]}}, "httpGateway": {}},
            {"httpGateway": {"virtualServices": [{"name": "alone"}]}},
        ]
    },
}
SEVERAL = [
    *WORLD,
    HYBRID,
    INLINE,
    ISOLATED,
    {
        "kind": "MatchableHttpGateway",
        "metadata": {"name": "pets"},
        "httpGateway": {"options": {"healthCheck": {"path": "/"}}},
    },
    {
        "kind": "MatchableTcpGateway",
        "metadata": {"name": "db"},
        "tcpGateway": {"tcpHosts": [{"name": "all"}]},
    },
    {
        "kind": "ListenerOption",
        "metadata": {"name": "o"},
        "options": {"tcpStats": True},
        "targetRefs": [{"kind": "Gateway", "name": name} for name in ("gw", "hybrid")],
    },
]


def several() -> dict[str, Any]:
    translation = Translation(NAMESPACE)
    apply(translation, SEVERAL)
    found: dict[str, Any] = orjson.loads(orjson.dumps(documents(translation)))
    return found


def test_sections_are_restored_with_all_that_was_served() -> None:
    stored = several()
    translation = Translation(NAMESPACE)
    translation.adopt(restore(stored))

    apply(translation, map(broken, SEVERAL))

    assert documents(translation) == stored


@pytest.mark.parametrize("kind", ["MatchableHttpGateway", "MatchableTcpGateway", "VirtualService"])
def test_what_is_broken_after_a_restart_keeps_its_section_and_costs_no_other(kind: str) -> None:
    stored = several()
    translation = Translation(NAMESPACE)
    translation.adopt(restore(stored))
    world = [broken(each) if each["kind"] == kind else each for each in SEVERAL]

    apply(translation, world)
    assert documents(translation) == stored
    apply(translation, [{**HYBRID, "useProxyProto": True}])  # an edit beside it counts

    for proxy in (stored, documents(translation)):
        found = [each for each in proxy["gateway-proxy"]["listeners"] if each["bindPort"] == 9443]
        assert found[0].pop("useProxyProto", False) is (proxy is not stored)
    assert found[0] == next(each for each in stored["gateway-proxy"]["listeners"] if each["bindPort"] == 9443)


def test_a_broken_gateway_among_several_after_a_restart_keeps_its_section() -> None:
    stored = several()
    translation = Translation(NAMESPACE)
    translation.adopt(restore(stored))
    first = INLINE["hybridGateway"]["matchedGateways"][0]
    untyped = {**INLINE, "hybridGateway": {"matchedGateways": [first, {"matcher": {}}]}}

    apply(translation, [untyped if each is INLINE else each for each in SEVERAL])

    assert documents(translation) == stored
    assert findings(translation)["Gateway gloo-system.inline"]["errors"] == [
        "hybridGateway.matchedGateways[1]: has no type: set httpGateway or tcpGateway"
    ]
