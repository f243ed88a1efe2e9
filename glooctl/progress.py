"""What has become of an object: judged or not, taken by the Envoys or not. All pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from glooctl import tables
from glooctl.objects import Found
from shared.codec import text
from shared.ref import Ref
from shared.store import keys
from shared.store.spec import fingerprint, observed, spec_of

SUBRESOURCE = "*v1.Proxy."

JUDGED_BY_GLOO = (keys.UPSTREAM, keys.UPSTREAM_GROUP, keys.PROXY)

Verdict = Literal["accepted", "rejected", ""]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the services say of the object as it stands; *verdict* is empty while they have to speak.

    *text* is the reason: of the refusal, of warnings, or of there being no verdict yet.
    """

    verdict: Verdict
    text: str = ""


def version_of(found: Found) -> str:
    """The fingerprint of the object as it stands."""
    return fingerprint(spec_of(text.parse(found.raw)))


def judge(found: Found) -> Judgement:
    """The verdict on the object as it stands; one on an earlier version of it is none."""
    statuses = tables.statuses(found.document)
    version = version_of(found)
    if not any(observed(status) == version for status in statuses):
        what = "this version of it" if statuses else "it"
        if found.kind in JUDGED_BY_GLOO:
            return Judgement(verdict="", text=f"gloo has not judged {what} yet")
        return Judgement(
            verdict="", text=f"gateway has not judged {what} yet, or gloo not the Proxy that it is in"
        )
    told = "; ".join(
        " ".join(line.split()) for reason in tables.reasons(found.document) for line in reason.split("\n")
    )
    match tables.state(found.document):
        case "Rejected":
            return Judgement(verdict="rejected", text=told)
        case "Accepted" | "Warning":
            return Judgement(verdict="accepted", text=told)
        case state:
            return Judgement(verdict="", text=f"its state is {state}")


def proxies_of(found: Found) -> list[Ref] | None:
    """The Proxies that the object is part of; None where it may be part of any."""
    if found.kind == keys.PROXY:
        return [found.ref]
    if found.kind in JUDGED_BY_GLOO:
        return None
    names = {
        name for status in tables.statuses(found.document) for name in status.get("subresourceStatuses") or {}
    }
    refs = (name.removeprefix(SUBRESOURCE).partition(".") for name in names if name.startswith(SUBRESOURCE))
    return sorted(Ref(namespace, name) for namespace, _, name in refs)


def role_of(ref: Ref) -> str:
    return f"{ref.namespace}~{ref.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one gloo says about an object: which versions it serves, and how far each role's Envoys are."""

    replica: str
    objects: Mapping[str, Mapping[str, int]]
    roles: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaited:
    """What every gloo must serve: objects at these versions, to these roles (None: to all)."""

    source: str
    indexes: Mapping[tuple[str, str], int]
    roles: Sequence[str] | None


def not_acked(awaited: Awaited, answers: Iterable[Answer]) -> list[str]:
    """Why not every Envoy has what is awaited; empty when every one has, and there is one."""
    problems: list[str] = []
    envoys = 0
    for answer in answers:
        for (kind, ref), index in awaited.indexes.items():
            if answer.objects.get(kind, {}).get(ref, 0) < index:
                problems.append(f"gloo {answer.replica} does not serve {kind} {ref} as it stands yet")
        roles = answer.roles if awaited.roles is None else awaited.roles
        for role in roles:
            told = answer.roles.get(role, {})
            envoys += int(told.get("envoys") or 0) if told.get("served") else 0
            problems += _behind(role, told)
            problems += [
                str(refusal["text"])
                for refusal in told.get("refusals") or []
                if awaited.source in refusal["objects"]
            ]
    if not envoys:
        who = "no Envoy" if awaited.roles is None else f"no Envoy of role {' or '.join(awaited.roles)}"
        problems.append(f"{who} is connected")
    return list(dict.fromkeys(problems))


def _behind(role: str, told: Mapping[str, Any]) -> Iterable[str]:
    for one in told.get("behind") or []:
        kind = str(one["type"]).rpartition(".")[2]
        yield f"Envoy {one['node']} ({role}) has not acknowledged {one['missing']} of {kind}"
