"""Waiting until an object is judged, taken by the Envoys, or gone.

Statuses are awaited by blocking queries: nothing is asked again before it has changed. How far the Envoys
are is asked of every gloo, a few times a second.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from glooctl import admin
from glooctl.errors import CommandError, UsageError
from glooctl.objects import Found, Objects
from glooctl.progress import (
    Answer,
    Awaited,
    Judgement,
    judge,
    not_acked,
    proxies_of,
    role_of,
    version_of,
)
from glooctl.replicas import address_of, gloos
from shared.ref import Ref
from shared.store import keys
from shared.store.keys import Kind

GOALS = ("accepted", "acked", "rejected", "deleted")
TIMEOUT = 30.0
LONGEST_POLL = 60.0
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.5
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """``30s``, ``500ms``, ``2m``, or a number of seconds."""
    number = text.rstrip("smh")
    try:
        value = float(number) * UNITS[text[len(number) :] or "s"]
    except (ValueError, KeyError):
        raise UsageError(f"--timeout {text!r} is no duration; write 30s, 500ms or 2m") from None
    if value < 0:
        raise UsageError(f"--timeout {text!r} is negative")
    return value


def wait(
    objects: Objects, kind: Kind, ref: Ref, goal: str, timeout: float, addresses: Sequence[str] = ()
) -> str:
    """Return what was reached, in a few words, or raise what stands in the way."""
    waiting = Waiting(objects, kind, ref, time.monotonic() + timeout, timeout)
    match goal:
        case "deleted":
            waiting.until_gone()
        case "acked":
            waiting.until_acked(addresses)
        case _:
            waiting.until_judged(goal)
    return f"{kind.name} {ref} is {goal}"


class Waiting:
    """One wait for one object, with its deadline."""

    def __init__(self, objects: Objects, kind: Kind, ref: Ref, deadline: float, timeout: float) -> None:
        self._objects = objects
        self._kind = kind
        self._ref = ref
        self._deadline = deadline
        self._timeout = timeout
        self._index = 0

    def until_judged(self, goal: str) -> Found:
        """The object, once it is *goal* as it stands; a rejection ends a wait for better at once."""
        while True:
            found = self._get()
            judgement = judge(found)
            if judgement.verdict == goal:
                if judgement.text:
                    print(judgement.text, file=sys.stderr)
                return found
            if judgement.verdict == "rejected":
                raise self._rejected(judgement)
            self._sleep(found.key, judgement.text or "it is accepted")

    def until_acked(self, addresses: Sequence[str]) -> None:
        """Return once every connected Envoy that the object concerns has taken it, and there is one."""
        found = self.until_judged("accepted")
        awaited, pause = self._awaited(found), FIRST_PAUSE
        while True:
            problems = not_acked(awaited, self._ask(addresses))
            now = self._get()
            if version_of(now) != version_of(found):
                raise CommandError(f"{self._what} was changed by somebody else meanwhile; wait again")
            if (judgement := judge(now)).verdict == "rejected":
                raise self._rejected(judgement)
            if not problems:
                return
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise self._late("acknowledged", "; ".join(problems))
            time.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE)

    def until_gone(self) -> None:
        while (found := self._objects.find(self._kind, self._ref)) is not None:
            self._sleep(found.key, "it is still in Consul", goal="deleted")

    def _awaited(self, found: Found) -> Awaited:
        proxies = proxies_of(found)
        source = f"{found.kind.name} {found.ref}"
        if proxies is None:
            return Awaited(
                source=source, indexes={(found.kind.name, str(found.ref)): found.index}, roles=None
            )
        if not proxies:
            raise CommandError(f"{self._what} is in no Proxy, so no Envoy will ever get it")
        indexes = {
            (keys.PROXY.name, str(ref)): proxy.index
            for ref in proxies
            if (proxy := self._objects.find(keys.PROXY, ref)) is not None
        }
        return Awaited(source=source, indexes=indexes, roles=[role_of(ref) for ref in proxies])

    def _ask(self, addresses: Sequence[str]) -> list[Answer]:
        answers = []
        for replica in gloos(self._objects, addresses):
            address = address_of(replica)
            page = f"/debug/roles/{self._kind.name}/{self._ref.namespace}/{self._ref.name}"
            told = admin.fetch(address, page, str(replica))
            answers.append(Answer(replica=replica.name, objects=told["objects"], roles=told["roles"]))
        return answers

    def _get(self) -> Found:
        found = self._objects.get(self._kind, self._ref)
        if found.problem:
            raise CommandError(f"{self._what}: {found.problem}")
        return found

    def _sleep(self, key: str, why: str, goal: str = "judged") -> None:
        """Wait for the next change of *key*; at the end of our patience *why* is what is missing."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise self._late(goal, why)
        self._index = self._objects.consul.changed(key, self._index, min(left, LONGEST_POLL))

    @property
    def _what(self) -> str:
        return f"{self._kind.name} {self._ref}"

    def _rejected(self, judgement: Judgement) -> CommandError:
        return CommandError(f"{self._what} is rejected: {judgement.text}")

    def _late(self, goal: str, why: str) -> CommandError:
        return CommandError(f"{self._what} is not {goal} after {self._timeout:g} s: {why}")
