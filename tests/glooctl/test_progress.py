"""What has become of an object."""

from __future__ import annotations

from typing import Any

import pytest

from glooctl import progress, waiting
from glooctl.errors import UsageError
from glooctl.objects import Found
from glooctl.progress import Answer, Awaited
from shared.codec import text
from shared.ref import Ref
from shared.store import keys
from shared.store.keys import Kind

REF = Ref("gloo-system", "web")
ROLE = "gloo-system~gateway-proxy"
SUB = "*v1.Proxy.gloo-system.gateway-proxy"


def found(
    status: dict[str, Any] | None = None, kind: Kind = keys.VIRTUAL_SERVICE, *, of_this: bool = True
) -> Found:
    document: dict[str, Any] = {"metadata": {"name": "web", "namespace": "gloo-system"}, "virtualHost": {}}
    bare = Found(kind, "key", REF, document, text.render_json(document), 7)
    if status is None:
        return bare
    about = progress.version_of(bare) if of_this else "an older one"
    document = {**document, "status": {**status, "details": {"observed": about}}}
    return Found(kind, "key", REF, document, text.render_json(document), 8)


@pytest.mark.parametrize(
    ("object_", "verdict", "says"),
    [
        (found(), "", "gateway has not judged it yet"),
        (found({"state": "Accepted"}, of_this=False), "", "has not judged this version of it yet"),
        (found({"state": "Accepted"}), "accepted", ""),
        (found({"state": 1}), "accepted", ""),
        (found({"state": "Warning", "reason": "warning: no upstream"}), "accepted", "warning: no upstream"),
        (found({"state": "Rejected", "reason": "a: no\nb: no"}), "rejected", "a: no; b: no"),
        (found({"state": "Rejected", "reason": "old"}, of_this=False), "", "has not judged this version"),
        (found(kind=keys.UPSTREAM), "", "gloo has not judged it yet"),
    ],
)
def test_a_verdict_is_one_on_the_object_as_it_stands(object_: Found, verdict: str, says: str) -> None:
    judgement = progress.judge(object_)

    assert judgement.verdict == verdict
    assert says in judgement.text


def test_an_objects_proxies_are_those_that_judged_it() -> None:
    assert progress.proxies_of(found({"state": "Accepted", "subresourceStatuses": {SUB: {}}})) == [
        Ref("gloo-system", "gateway-proxy")
    ]
    assert progress.proxies_of(found({"state": "Accepted"})) == []
    assert progress.proxies_of(found(kind=keys.PROXY)) == [REF]
    assert progress.proxies_of(found(kind=keys.UPSTREAM)) is None


def answer(index: int = 9, **told: Any) -> Answer:
    role = {"served": True, "envoys": 1, "behind": [], "refusals": [], **told}
    return Answer(replica="a", objects={"Proxy": {"p": index}}, roles={ROLE: role})


AWAITED = Awaited(source="VirtualService gloo-system.web", indexes={("Proxy", "p"): 9}, roles=[ROLE])
BEHIND = [{"node": "n", "type": "x.Listener", "missing": 2}]


@pytest.mark.parametrize(
    ("answers", "missing"),
    [
        ([answer()], []),
        ([answer(), answer(envoys=0)], []),
        ([answer(envoys=0)], [f"no Envoy of role {ROLE} is connected"]),
        ([answer(), answer(8)], ["gloo a does not serve Proxy p as it stands yet"]),
        ([answer(behind=BEHIND)], [f"Envoy n ({ROLE}) has not acknowledged 2 of Listener"]),
        (
            [answer(refusals=[{"text": "refused", "objects": ["VirtualService gloo-system.web"]}])],
            ["refused"],
        ),
        ([answer(refusals=[{"text": "refused", "objects": ["VirtualService gloo-system.other"]}])], []),
        ([answer(served=False)], [f"no Envoy of role {ROLE} is connected"]),
    ],
)
def test_acked_is_when_every_gloo_serves_it_and_every_envoy_took_it(
    answers: list[Answer], missing: list[str]
) -> None:
    assert progress.not_acked(AWAITED, answers) == missing


@pytest.mark.parametrize(("text_", "seconds"), [("30s", 30), ("500ms", 0.5), ("2m", 120), ("1.5", 1.5)])
def test_a_timeout_is_a_duration(text_: str, seconds: float) -> None:
    assert waiting.seconds(text_) == seconds


@pytest.mark.parametrize("text_", ["", "s", "soon", "-1s", "1d"])
def test_what_is_no_duration_is_refused(text_: str) -> None:
    with pytest.raises(UsageError):
        waiting.seconds(text_)
