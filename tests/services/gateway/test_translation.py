"""The translation over time: what an edit costs, and what is remembered."""

from __future__ import annotations

from typing import Any

import orjson

from services.gateway.translation import Changes, Translation
from services.gateway.translator.model import Rules
from shared.incremental.units import at_once
from shared.ref import Ref, Source
from tests.services.gateway.support import NAMESPACE, apply, documents, findings, objects, source_of

GATEWAY = {
    "kind": "Gateway",
    "metadata": {"name": "gw"},
    "bindAddress": "::",
    "bindPort": 8080,
    "httpGateway": {},
}


def service(name: str, domain: str = "", status: int = 200, **fields: Any) -> dict[str, Any]:
    route = {"matchers": [{"prefix": "/"}], "directResponseAction": {"status": status}}
    host = {"domains": [domain or f"{name}.com"], "routes": [route]}
    return {"kind": "VirtualService", "metadata": {"name": name}, "virtualHost": host, **fields}


def delegating(name: str, **action: Any) -> dict[str, Any]:
    route = {"matchers": [{"prefix": "/"}], "delegateAction": action}
    return {
        "kind": "VirtualService",
        "metadata": {"name": name},
        "virtualHost": {"domains": [name], "routes": [route]},
    }


def table(name: str, status: int = 200, labels: dict[str, str] | None = None) -> dict[str, Any]:
    route = {"matchers": [{"prefix": "/"}], "directResponseAction": {"status": status}}
    return {"kind": "RouteTable", "metadata": {"name": name, "labels": labels or {}}, "routes": [route]}


def translated(*world: dict[str, Any]) -> Translation:
    translation = Translation(NAMESPACE)
    apply(translation, [GATEWAY, *world])
    translation.render()
    return translation


def statuses(translation: Translation) -> dict[str, int]:
    """What every virtual host's first route answers."""
    (listener,) = documents(translation)["gateway-proxy"]["listeners"]
    hosts = listener["httpListener"].get("virtualHosts", ())
    return {host["name"]: host["routes"][0]["directResponseAction"]["status"] for host in hosts}


def test_one_edit_among_many_costs_one_unit_and_no_new_plan() -> None:
    translation = translated(*(service(f"v{i}") for i in range(50)))
    computed, plan = translation.services.computed, translation.plan

    touched = apply(translation, [service("v7", status=201)])

    assert translation.services.computed == computed + 1
    assert translation.plan is plan
    assert touched == {source_of("VirtualService", "v7")}
    assert statuses(translation)["gloo-system.v7"] == 201


def test_an_edit_leaves_the_other_virtual_hosts_the_very_same_bytes() -> None:
    translation = translated(service("a"), service("b"))
    before = translation.render()["gateway-proxy"].parts

    apply(translation, [service("b", status=201)])
    after = translation.render()["gateway-proxy"].parts

    assert after[0] is before[0]
    assert after[1] != before[1]


def test_a_status_alone_costs_nothing() -> None:
    translation = translated(service("a"))
    computed = translation.services.computed

    touched = apply(translation, [service("a", status=200) | {"status": {"state": "Accepted"}}])

    assert translation.services.computed == computed
    assert touched == {source_of("VirtualService", "a")}


def test_a_table_wakes_those_that_use_it_alone() -> None:
    translation = translated(
        delegating("a", ref={"name": "t"}), delegating("b", ref={"name": "t"}), service("c"), table("t")
    )
    computed = translation.services.computed

    touched = apply(translation, [table("t", 201)])

    assert translation.services.computed == computed + 2
    assert touched == {
        source_of("VirtualService", "a"),
        source_of("VirtualService", "b"),
        source_of("RouteTable", "t"),
    }
    assert statuses(translation)["gloo-system.a"] == 201


def test_a_table_that_comes_wakes_whoever_misses_or_selects_it() -> None:
    translation = translated(
        delegating("a", ref={"name": "t"}), delegating("b", selector={"labels": {"x": "y"}}), service("c")
    )
    assert len(findings(translation)) == 2

    apply(translation, [table("t", 201, {"x": "y"})])

    assert findings(translation) == {}
    assert statuses(translation) == {"gloo-system.a": 201, "gloo-system.b": 201, "gloo-system.c": 200}
    computed = translation.services.computed
    apply(translation, [table("t", 202, {"x": "y"})])  # labels as before: selectors are not asked again
    assert translation.services.computed == computed + 2


def test_a_table_has_a_share_in_the_proxies_of_its_users() -> None:
    translation = translated(delegating("a", ref={"name": "t"}), table("t"), table("orphan"))

    assert translation.shares(source_of("RouteTable", "t")) == {"gateway-proxy"}
    assert translation.shares(source_of("RouteTable", "orphan")) == set()
    assert translation.members("gateway-proxy") == {
        source_of("Gateway", "gw"),
        source_of("VirtualService", "a"),
        source_of("RouteTable", "t"),
    }


def test_a_contested_version_takes_effect_once_the_domain_is_free() -> None:
    translation = translated(service("owner", "x.com", 201), service("guest", "y.com", 202))

    apply(translation, [two_domains("guest", "x.com", "z.com")])
    assert statuses(translation) == {"gloo-system.guest": 202, "gloo-system.owner": 201}
    apply(translation, [service("owner", "x.com", 204)])
    assert statuses(translation) == {"gloo-system.guest": 202, "gloo-system.owner": 204}
    apply(translation, delete=[("VirtualService", "owner")])

    assert statuses(translation) == {"gloo-system.guest": 299}
    assert findings(translation) == {}


def two_domains(name: str, *domains: str) -> dict[str, Any]:
    document = service(name, status=299)
    document["virtualHost"]["domains"] = list(domains)
    return document


def test_a_domain_freed_and_taken_in_one_change_goes_over() -> None:
    translation = translated(service("a", "x.com", 201), service("b", "y.com", 202))

    apply(translation, [two_domains("a", "y.com"), two_domains("b", "x.com")])

    assert findings(translation) == {}
    assert statuses(translation) == {"gloo-system.a": 299, "gloo-system.b": 299}


def test_a_wrong_gateway_keeps_its_place_and_a_deleted_one_goes() -> None:
    translation = translated(service("a"))

    apply(translation, [{**GATEWAY, "bindPort": 8081, "oops": 1}])
    kept = documents(translation)
    apply(translation, delete=[("Gateway", "gw")])

    assert kept["gateway-proxy"]["listeners"][0]["bindPort"] == 8080
    assert documents(translation) == {}
    assert findings(translation)["VirtualService gloo-system.a"]["warnings"] == [
        "no gateway serves this virtual service"
    ]


def test_a_reference_that_becomes_wrong_by_an_edit_keeps_the_good_one() -> None:
    translation = Translation(NAMESPACE)
    chosen = {"virtualServices": [{"name": "a"}, {"name": "b"}]}
    apply(translation, [{**GATEWAY, "httpGateway": chosen}, service("a"), service("b")])

    apply(translation, [{**GATEWAY, "httpGateway": {"virtualServices": [{"name": "a"}, {"name": "bb"}]}}])
    edited = statuses(translation)
    apply(translation, delete=[("VirtualService", "b")])

    assert set(edited) == {"gloo-system.a", "gloo-system.b"}
    assert set(statuses(translation)) == {"gloo-system.a"}


def test_new_rules_are_followed() -> None:
    tables = table("t")
    tables["routes"].append({"matchers": [{"exact": "/x"}], "directResponseAction": {"status": 201}})
    translation = translated(delegating("a", ref={"name": "t"}), tables)

    apply(translation, rules=Rules(sort_tables=True))

    assert statuses(translation) == {"gloo-system.a": 201}


def test_two_replicas_that_saw_the_same_say_the_same_whatever_the_order() -> None:
    world = [
        GATEWAY,
        *(delegating(f"v{i}", ref={"name": "t"}) for i in range(5)),
        {
            **table("t"),
            "routes": [{"matchers": [{"prefix": "relative"}], "directResponseAction": {"status": 200}}],
        },
    ]
    one, other = Translation(NAMESPACE), Translation(NAMESPACE)

    apply(one, world)
    for each in reversed(world):
        apply(other, [each])

    assert findings(one) == findings(other)
    assert one.render() == other.render()


def test_a_bug_in_a_translation_is_the_objects_own_and_keeps_its_last_version(monkeypatch: Any) -> None:
    translation = translated(service("a", status=201), service("b", status=202))

    def fail(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("services.gateway.translator.virtual_service.render_host", fail)
    apply(translation, [service("a", status=203)])
    monkeypatch.undo()
    apply(translation, [service("b", status=204)])

    assert statuses(translation) == {"gloo-system.a": 201, "gloo-system.b": 204}
    assert (
        "internal error: ZeroDivisionError()"
        in findings(translation)["VirtualService gloo-system.a"]["errors"][0]
    )


def test_nothing_at_all_is_nothing() -> None:
    translation = Translation(NAMESPACE)

    assert apply(translation) == set()
    assert translation.render() == {}
    assert translation.report(Source("VirtualService", Ref("a", "b"))).clean


def test_in_steps_the_result_is_the_same_and_every_service_is_a_step() -> None:
    world = [GATEWAY, *(service(f"v{i}") for i in range(20)), delegating("d", ref={"name": "none"})]
    one, other = Translation(NAMESPACE), Translation(NAMESPACE)
    changes = Changes()
    changes.add(objects(world), ())

    touched = at_once(one.update_in_steps(changes))
    computed = [other.services.computed for _ in other.update_in_steps(changes)]

    assert touched == {stored.source for stored in objects(world)} | {source_of("RouteTable", "none")}
    assert list(range(1, 22)) == sorted(set(computed))
    assert (documents(one), findings(one)) == (documents(other), findings(other))


def test_what_is_written_with_every_edit_stays_small_however_many_certificates_there_are() -> None:
    translation, many = Translation(NAMESPACE), [f"s{i:03}" for i in range(200)]
    secured = [
        service(
            name, sslConfig={"secretRef": {"name": name, "namespace": "ns"}, "sniDomains": [f"{name}.com"]}
        )
        for name in many
    ]
    apply(translation, [GATEWAY | {"ssl": True}, *secured])

    rendered = translation.render()["gateway-proxy"]
    assert len(orjson.dumps(rendered.skeleton)) < 1_000
    [listener] = documents(translation)["gateway-proxy"]["listeners"]
    assert [each["secretRef"]["name"] for each in listener["sslConfigurations"]] == many
    assert [each["sources"][0]["name"] for each in listener["metadata"]["sslConfigurations"]] == many
    assert [host["name"] for host in listener["httpListener"]["virtualHosts"]] == [
        f"gloo-system.{name}" for name in many
    ]
