"""Refusals: kept until they are mended, and what is served meanwhile."""

from __future__ import annotations

import asyncio

from services.gloo.feedback import Feedback
from services.gloo.resources import CLUSTER, Resources, Snapshot, resource
from services.gloo.statuses import proxy_status
from services.gloo.xds.cache import Cache
from shared.ref import Ref, Source
from shared.report import Report
from tests.support.waiting import eventually

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


def refused_by_envoy() -> tuple[Feedback, Cache, list[str]]:
    """A cluster of one Upstream: accepted at first, then refused."""
    told: list[str] = []
    cache = Cache()
    feedback = Feedback(told.append, cache)
    feedback.connected("1", ROLE, "envoy-1")
    for body in (b"good", b"bad"):
        wanted = resource("web", body, [UPSTREAM])
        feedback.publish(ROLE, Snapshot({CLUSTER: Resources.of([wanted])}))
        if body == b"good":
            feedback.acked("1", ROLE, CLUSTER, "v1", (wanted,), ())
    feedback.nacked("1", ROLE, CLUSTER, "v2", (wanted,), "no such policy")
    return feedback, cache, told


def served(cache: Cache) -> list[bytes]:
    snapshot = cache.get(ROLE)
    assert snapshot is not None
    return [each.body for each in snapshot.of(CLUSTER).by_name.values()]


def test_what_is_refused_gives_way_to_its_last_good_version_and_is_told_until_it_changes() -> None:
    feedback, cache, told = refused_by_envoy()

    assert served(cache) == [b"good"]
    (refusal,) = feedback.refusals(ROLE)
    assert str(refusal) == (
        "Envoy envoy-1 refused cluster web, served in its last good version: no such policy"
    )
    assert refusal.sources == {UPSTREAM}
    assert ROLE in told
    assert feedback.good(ROLE)
    feedback.acked("1", ROLE, CLUSTER, "v1", (resource("web", b"good", [UPSTREAM]),), ())
    assert len(feedback.refusals(ROLE)) == 1

    mended = resource("web", b"mended", [UPSTREAM])
    feedback.publish(ROLE, Snapshot({CLUSTER: Resources.of([mended])}))
    assert (served(cache), feedback.refusals(ROLE), feedback.held_back) == ([b"mended"], [], 0)


def test_what_was_never_good_is_left_out() -> None:
    cache = Cache()
    feedback = Feedback(lambda role: None, cache)
    wanted = resource("web", b"bad", [UPSTREAM])
    feedback.publish(ROLE, Snapshot({CLUSTER: Resources.of([wanted])}))

    feedback.nacked("1", ROLE, CLUSTER, "v1", (wanted,), "no such policy")

    assert served(cache) == []
    assert "cluster web, not served" in str(feedback.refusals(ROLE)[0])


def test_what_was_held_before_a_restart_is_told_and_held_after_it() -> None:
    feedback, cache, _ = refused_by_envoy()
    snapshot, held = cache.get(ROLE), feedback.held(ROLE)
    assert snapshot is not None

    again, told = Cache(), list[str]()
    after = Feedback(told.append, again)
    after.restore(ROLE, snapshot, held)
    assert (served(again), len(after.refusals(ROLE))) == ([b"good"], 1)
    after.publish(ROLE, Snapshot({CLUSTER: Resources.of([resource("web", b"bad", [UPSTREAM])])}))

    assert (served(again), len(after.refusals(ROLE))) == ([b"good"], 1)


async def test_what_was_refused_by_an_envoy_that_is_gone_is_tried_again() -> None:
    now = 0.0
    cache = Cache()
    feedback = Feedback(lambda role: None, cache, retry=5.0, clock=lambda: now)
    feedback.connected("1", ROLE, "envoy-1")
    wanted = resource("web", b"bad", [UPSTREAM])
    feedback.publish(ROLE, Snapshot({CLUSTER: Resources.of([wanted])}))
    feedback.nacked("1", ROLE, CLUSTER, "v2", (wanted,), "no such policy")
    running = asyncio.create_task(feedback.run())
    await asyncio.sleep(0)
    assert served(cache) == []

    now = 5.0
    feedback.disconnected("1")
    await eventually(lambda: served(cache) == [b"bad"])

    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
