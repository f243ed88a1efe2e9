"""Refusals: kept until they are mended, and handed to the right object."""

from __future__ import annotations

from services.gloo.feedback import Feedback, add_refusals
from services.gloo.resources import CLUSTER, ROUTES, resource
from services.gloo.statuses import proxy_status
from services.gloo.translator.sources import Reports
from services.gloo.xds.cache import Cache
from shared.ref import Ref, Source
from shared.report import Report

ROLE = "gloo-system~gateway-proxy"
OWNER = Source("Proxy", Ref("gloo-system", "gateway-proxy"))
UPSTREAM = Source("Upstream", Ref("gloo-system", "web"))


def refusing() -> tuple[Feedback, list[str]]:
    told: list[str] = []
    feedback = Feedback(told.append, Cache())
    feedback.connected("1", ROLE, "envoy-1")
    feedback.nacked("1", ROLE, CLUSTER, "v1", (resource("web", b"x", [UPSTREAM]),), "no such policy")
    return feedback, told


def test_a_refusal_stands_until_that_client_takes_the_resource() -> None:
    feedback, told = refusing()

    (refusal,) = feedback.refusals(ROLE)
    assert str(refusal) == "Envoy envoy-1 refused cluster web: no such policy"
    feedback.acked("1", ROLE, CLUSTER, "v2", (resource("other", b"x"),), ())
    assert feedback.refusals(ROLE)
    feedback.acked("1", ROLE, CLUSTER, "v2", (resource("web", b"y"),), ())
    assert feedback.refusals(ROLE) == []
    assert told == [ROLE, ROLE]


def test_a_client_that_goes_takes_its_refusals_with_it() -> None:
    feedback, told = refusing()

    feedback.disconnected("1")

    assert feedback.refusals(ROLE) == []
    assert told == [ROLE, ROLE]


def test_the_one_object_behind_a_resource_owns_the_refusal_else_the_proxy_does() -> None:
    feedback, _ = refusing()
    several = resource(
        "routes", b"x", [Source("VirtualService", Ref("n", "a")), Source("VirtualService", Ref("n", "b"))]
    )
    feedback.nacked("1", ROLE, ROUTES, "v1", (several,), "bad route")
    found: Reports = {OWNER: Report()}

    add_refusals(found, feedback.refusals(ROLE), OWNER)

    assert "bad route" in found[OWNER].errors[0].text
    assert "no such policy" in found[UPSTREAM].errors[0].text


def test_a_proxys_status_hands_each_finding_to_its_object() -> None:
    mistaken = Report()
    mistaken.error("virtualHost.routes[0].options.csrf", "not supported yet")
    service = Source("VirtualService", Ref("gloo-system", "a"))

    status = proxy_status({OWNER: Report(), service: mistaken}, [], OWNER)

    assert status["state"] == "Rejected"
    assert status["reason"].startswith("VirtualService gloo-system.a: virtualHost")
    assert status["details"]["reports"] == [
        {
            "kind": "VirtualService",
            "namespace": "gloo-system",
            "name": "a",
            "errors": ["virtualHost.routes[0].options.csrf: not supported yet"],
            "warnings": [],
        }
    ]
