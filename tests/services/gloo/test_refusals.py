"""Refusals are handed to the right object."""

from __future__ import annotations

from services.gloo.refusals import Refusal, add_refusals
from services.gloo.resources import CLUSTER, ROUTES, SECRET, TypeUrl
from services.gloo.translator.sources import Reports
from shared.ref import Ref, Source
from shared.report import Report

OWNER = Source("Proxy", Ref("gloo-system", "gateway-proxy"))
UPSTREAM = Source("Upstream", Ref("gloo-system", "web"))
ONE, OTHER = (Source("VirtualService", Ref("n", name)) for name in ("a", "b"))


def refusal(type_url: TypeUrl, name: str, text: str, *sources: Source) -> Refusal:
    return Refusal(
        role="gloo-system~gateway-proxy",
        node="envoy-1",
        type_url=type_url,
        name=name,
        text=text,
        sources=frozenset(sources),
    )


def test_the_one_object_behind_a_resource_owns_the_refusal_else_the_proxy_does() -> None:
    found: Reports = {OWNER: Report()}

    add_refusals(
        found,
        [
            refusal(CLUSTER, "web", "no such policy", UPSTREAM),
            refusal(ROUTES, "routes", "bad route", ONE, OTHER),
        ],
        OWNER,
    )

    assert [each.text for each in found[OWNER].errors] == ["Envoy envoy-1 refused routes routes: bad route"]
    assert [each.text for each in found[UPSTREAM].errors] == [
        "Envoy envoy-1 refused cluster web: no such policy"
    ]


def test_everyone_who_refers_to_a_secret_is_told_of_its_refusal() -> None:
    found: Reports = {OWNER: Report()}

    add_refusals(found, [refusal(SECRET, "files:/cert:/key:", "no such file", ONE, OTHER, UPSTREAM)], OWNER)

    assert found.keys() == {OWNER, ONE, OTHER}
    assert found[ONE] == found[OTHER]
    assert not found[OWNER].errors
