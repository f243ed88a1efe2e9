"""Statuses made of our own findings and gloo's."""

from __future__ import annotations

from typing import Any

import pytest

from services.gateway.feedback import Feedback, report_of_reason
from shared.ref import Source
from shared.report import Problem, Report
from shared.store.objects import Stored
from shared.store.spec import observed
from shared.store.status import build_status
from tests.services.gateway.support import NAMESPACE, source_of, stored

PROXY = "gateway-proxy"
SUB = f"*v1.Proxy.{NAMESPACE}.{PROXY}"
BAD, GOOD = source_of("VirtualService", "bad"), source_of("VirtualService", "good")
CLEAN = {"state": "Accepted", "reportedBy": "gloo"}


def judged(*reports: dict[str, Any], state: str = "Rejected") -> dict[str, Any]:
    return {"state": state, "reportedBy": "gloo", "details": {"reports": list(reports)}}


def about(source: Source, *errors: str) -> dict[str, Any]:
    return {
        "kind": source.kind,
        "namespace": source.ref.namespace,
        "name": source.ref.name,
        "errors": list(errors),
    }


def members() -> set[Source]:
    return {BAD, GOOD}


def status(feedback: Feedback, source: Source, own: Report | None = None, **before: Any) -> dict[str, Any]:
    """The status, with ``this`` for the mark that it speaks of this version of the object."""
    object_ = object_of(source, before)
    found = feedback.status(object_, own or Report(), [PROXY])
    if observed(found) == object_.fingerprint:
        found["details"] = {"observed": "this"}
    return found


def object_of(source: Source, before: dict[str, Any] | None = None) -> Stored:
    return stored({"metadata": {"name": source.ref.name}, "status": before or {}}, source)


def test_one_mistake_is_said_to_one_object() -> None:
    feedback = Feedback(NAMESPACE)

    touched = feedback.observe(PROXY, 7, judged(about(BAD, "routes[0]: no")), members)

    assert touched == {BAD, GOOD}
    assert status(feedback, BAD) == {
        "state": "Rejected",
        "reportedBy": "gateway",
        "reason": "routes[0]: no",
        "subresourceStatuses": {SUB: {"state": "Rejected", "reportedBy": "gloo", "reason": "routes[0]: no"}},
        "details": {"observed": "this"},
    }
    assert status(feedback, GOOD) == {
        "state": "Accepted",
        "reportedBy": "gateway",
        "subresourceStatuses": {SUB: CLEAN},
        "details": {"observed": "this"},
    }


def test_own_findings_come_first_and_do_not_blame_the_proxy() -> None:
    feedback, own = Feedback(NAMESPACE), Report()
    own.error("virtualHost", "is missing")
    feedback.observe(PROXY, 7, judged(), members)

    found = status(feedback, BAD, own)

    assert (found["state"], found["reason"]) == ("Rejected", "virtualHost: is missing")
    assert found["subresourceStatuses"] == {SUB: CLEAN}


def test_only_what_differs_is_told_anew() -> None:
    feedback = Feedback(NAMESPACE)
    feedback.observe(PROXY, 7, judged(about(BAD, "a")), members)

    assert feedback.observe(PROXY, 8, judged(about(BAD, "a")), members) == set()
    assert feedback.observe(PROXY, 9, judged(about(BAD, "b")), members) == {BAD}
    assert feedback.observe(PROXY, 10, judged(), members) == {BAD}


def test_between_a_write_and_the_verdict_the_old_word_stands() -> None:
    feedback = Feedback(NAMESPACE)
    feedback.observe(PROXY, 7, judged(about(BAD, "a")), members)
    feedback.written(PROXY, 8, [BAD])

    pending = feedback.observe(PROXY, 8, {}, members)
    stale = feedback.observe(PROXY, 7, judged(), members)
    meanwhile = status(
        feedback,
        BAD,
        state="Rejected",
        reason="a",
        subresourceStatuses={SUB: build_status(_error("a"), reported_by="gloo")},
    )
    new = status(feedback, BAD)
    told = feedback.observe(PROXY, 9, judged(), members)

    assert (pending, stale, told) == (set(), set(), {BAD})
    assert meanwhile["reason"] == "a"
    assert new == {"state": "Accepted", "reportedBy": "gateway"}
    assert status(feedback, BAD)["subresourceStatuses"] == {SUB: CLEAN}


def test_a_status_names_the_version_it_is_the_last_word_about() -> None:
    feedback, own = Feedback(NAMESPACE), Report()
    feedback.observe(PROXY, 7, judged(), members)
    feedback.written(PROXY, 8, [GOOD])
    own.error("virtualHost", "is missing")

    meanwhile = status(feedback, GOOD, details={"observed": "an older one"})
    hopeless = status(feedback, GOOD, own)
    feedback.observe(PROXY, 9, judged(), members)

    assert meanwhile["details"] == {"observed": "an older one"}
    assert hopeless["details"] == {"observed": "this"}
    assert status(feedback, GOOD)["details"] == {"observed": "this"}


def test_a_verdict_seen_before_the_writer_knows_its_index_counts() -> None:
    feedback = Feedback(NAMESPACE)
    feedback.observe(PROXY, 9, judged(), members)

    feedback.written(PROXY, 8, [GOOD])

    assert status(feedback, GOOD)["subresourceStatuses"] == {SUB: CLEAN}


def test_after_a_restart_a_pending_proxy_leaves_statuses_as_they_are() -> None:
    feedback = Feedback(NAMESPACE)
    before = {
        "state": "Warning",
        "reportedBy": "gateway",
        "reason": "warning: upstream x not found",
        "subresourceStatuses": {
            SUB: {"state": "Warning", "reportedBy": "gloo", "reason": "warning: upstream x not found"}
        },
    }

    assert status(feedback, BAD, **before) == before


def test_what_gloo_says_of_nobody_is_shown_to_all_and_laid_to_nobody() -> None:
    feedback = Feedback(NAMESPACE)
    feedback.observe(PROXY, 7, {"state": 2, "reason": "listener broken"}, members)

    found = status(feedback, GOOD)
    assert found["subresourceStatuses"][SUB] == {
        "state": "Rejected",
        "reportedBy": "gloo",
        "reason": "listener broken",
    }
    assert found["state"] == "Accepted"
    assert status(Feedback(NAMESPACE), GOOD, **found) == found


def test_a_listeners_paths_are_told_as_the_gateways() -> None:
    feedback, gateway = Feedback(NAMESPACE), source_of("Gateway", "gw")

    feedback.observe(PROXY, 7, judged(about(gateway, "httpListener.options.gzip: no")), members)

    assert status(feedback, gateway)["reason"] == "httpGateway.options.gzip: no"


@pytest.mark.parametrize(
    ("kind", "said", "told"),
    [
        (
            "Gateway",
            "hybridGateway.matchedGateways[1].tcpListener.tcpHosts[0]: no",
            "hybridGateway.matchedGateways[1].tcpGateway.tcpHosts[0]: no",
        ),
        ("MatchableHttpGateway", "httpListener.options.gzip: no", "httpGateway.options.gzip: no"),
        ("VirtualService", "httpListener.options.gzip: no", "httpListener.options.gzip: no"),
    ],
)
def test_paths_in_parts_of_a_listener_are_told_as_those_who_wrote_them_know_them(
    kind: str, said: str, told: str
) -> None:
    feedback, source = Feedback(NAMESPACE), source_of(kind, "x")

    feedback.observe(PROXY, 7, judged(about(source, said)), members)

    assert status(feedback, source)["reason"] == told


def test_an_object_says_who_uses_it_but_not_without_end() -> None:
    feedback, option = Feedback(NAMESPACE), source_of("RouteOption", "quick")
    users = [source_of("RouteTable", f"t{i:02}") for i in range(12)]

    few = feedback.status(stored({}, option), Report(), [], (), users[:2])
    many = feedback.status(stored({}, option), Report(), [], (), users)

    assert few["details"]["usedBy"] == ["RouteTable gloo-system.t00", "RouteTable gloo-system.t01"]
    assert len(many["details"]["usedBy"]) == 11
    assert many["details"]["usedBy"][-1] == "and 2 more"


def test_a_proxy_that_is_gone_says_nothing_any_more() -> None:
    feedback = Feedback(NAMESPACE)
    feedback.observe(PROXY, 7, judged(about(BAD, "a")), members)

    assert feedback.observe(PROXY, 0, None, set) == {BAD}
    gone = feedback.status(object_of(BAD), Report(), [])
    assert gone == {"state": "Accepted", "reportedBy": "gateway", "details": gone["details"]}


def test_a_proxy_of_somebody_else_is_the_gateways_mistake() -> None:
    feedback, gateway = Feedback(NAMESPACE), source_of("Gateway", "gw")

    on_gateway = feedback.status(stored({}, gateway), Report(), [PROXY], {PROXY})
    on_service = feedback.status(stored({}, GOOD), Report(), [PROXY], {PROXY})

    assert (
        on_gateway["reason"] == "proxyNames: there is a proxy gateway-proxy already that gateway did not make"
    )
    assert on_service["state"] == "Accepted"
    assert "subresourceStatuses" not in on_service


@pytest.mark.parametrize(
    "garbage", [{"state": "Rejected", "details": "x"}, {"state": "Accepted", "details": {"reports": [1, {}]}}]
)
def test_a_status_of_another_shape_is_survived(garbage: dict[str, Any]) -> None:
    feedback = Feedback(NAMESPACE)

    feedback.observe(PROXY, 7, garbage, members)

    assert SUB in status(feedback, GOOD)["subresourceStatuses"]


def test_a_reason_is_read_back_as_it_was_written() -> None:
    report = Report([Problem("a", "one"), Problem("", "two")], [Problem("", "three")])

    again = report_of_reason(build_status(report, reported_by="gloo"))

    assert build_status(again, reported_by="gloo") == build_status(report, reported_by="gloo")
    assert report_of_reason({}).clean


def _error(text: str) -> Report:
    return Report([Problem("", text)])
