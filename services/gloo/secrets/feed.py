"""The secrets that something refers to, followed in all places for them; no other secret is ever read.

A place that gives no answer changes nothing: what was read from it stays, and it is asked again, with pauses
that grow. A new secret is read at once, known ones once in the place's period.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from services.gloo.secrets.source import Answer, SecretSource, Unavailable
from shared.ref import Ref
from shared.runtime.backoff import Backoff

log = logging.getLogger(__name__)

AT_ONCE = 8  # requests
JITTER = 0.1
TELL_EVERY = 60.0  # seconds between two log lines about the same trouble
NO_PLACE = "no place for secrets is set; set vaultSecretSource or directorySecretSource in the settings"

Changed = Callable[[Mapping[Ref, Answer]], None]


@dataclass(slots=True, eq=False)
class Place:
    """One place, and what it has said."""

    source: SecretSource
    answers: dict[Ref, Answer] = field(default_factory=dict)
    trouble: str = ""  # why it does not answer; empty: it does
    since: float = 0.0
    told: float = float("-inf")
    news: asyncio.Event = field(default_factory=asyncio.Event)


class SecretFeed:
    """``want`` says which secrets to follow; *changed* is called with those that differ.

    *namespaces* are those that may be read, empty: all.
    """

    def __init__(
        self,
        sources: Sequence[SecretSource],
        changed: Changed,
        *,
        namespaces: Set[str] = frozenset(),
    ) -> None:
        self._places = [Place(source) for source in sources]
        self._changed = changed
        self._namespaces = namespaces
        self._wanted: frozenset[Ref] = frozenset()
        self._told: dict[Ref, Answer] = {}
        self._settled = asyncio.Event()
        self._settled.set()

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for place in self._places:
                    tasks.create_task(self._follow(place), name=f"secrets in {place.source.name}")
        finally:
            for place in self._places:
                await place.source.close()

    def want(self, refs: frozenset[Ref]) -> None:
        """Follow *refs*, and nothing else."""
        if refs == self._wanted:
            return
        self._wanted = refs
        for ref in [ref for ref in self._told if ref not in refs]:
            del self._told[ref]
        for place in self._places:
            place.answers = {ref: answer for ref, answer in place.answers.items() if ref in refs}
            place.news.set()
        self._tell(refs)

    @property
    def unread(self) -> frozenset[Ref]:
        """The secrets that are wanted and about which nothing is known yet."""
        return self._wanted.difference(self._told)

    @property
    def followed(self) -> int:
        return len(self._wanted)

    @property
    def troubles(self) -> dict[str, str]:
        """The places that do not answer, and why."""
        return {place.source.name: place.trouble for place in self._places if place.trouble}

    @property
    def why_unread(self) -> str:
        """In words, for operators."""
        troubles = "; ".join(f"{place}: {why}" for place, why in self.troubles.items())
        return f"waiting for {len(self.unread)} secrets: {troubles or 'not read yet'}"

    def state(self) -> dict[str, Any]:
        """For ``/debug/gloo``: names and versions, nothing of what is in them."""
        return {
            "places": {
                each.source.name: each.trouble or f"{len(each.answers)} read" for each in self._places
            },
            "secrets": {
                str(ref): f"{told.version}{': ' if told.version and told.problem else ''}{told.problem}"
                for ref, told in sorted(self._told.items())
            },
            "unread": sorted(map(str, self.unread)),
        }

    async def settled(self, within: float) -> None:
        """Wait until all that is wanted was read, or a place for it is known not to answer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._settled.wait()

    # --- one place ----------------------------------------------------------------------------------------

    async def _follow(self, place: Place) -> None:
        backoff = Backoff(0.5, 30.0)
        due = 0.0
        while True:
            place.news.clear()
            if not self._wanted:
                await place.news.wait()
                continue
            everything = time.monotonic() >= due
            try:
                await place.source.begin()
                await self._round(place, everything)
            except Unavailable as error:
                self._failed(place, str(error))
                due, wait = 0.0, backoff.next()
            else:
                self._works(place)
                backoff.reset()
                if everything:
                    period = place.source.period
                    due = time.monotonic() + period * (1 + JITTER * (2 * random.random() - 1))
                wait = due - time.monotonic()
            self._settle()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(wait, 0.0)):
                    await place.news.wait()

    async def _round(self, place: Place, everything: bool) -> None:
        """Read what is not known, or *everything*; the first that gets no answer ends it."""
        limit = asyncio.Semaphore(AT_ONCE)
        trouble: list[Unavailable] = []

        async def one(ref: Ref) -> None:
            async with limit:
                if trouble:
                    return
                known = place.answers.get(ref, Answer())
                try:
                    answer = await place.source.read(ref, known.version)
                except Unavailable as error:
                    trouble.append(error)
                    return
            if answer is not None and ref in self._wanted:
                place.answers[ref] = answer
                self._tell({ref})

        async with asyncio.TaskGroup() as tasks:
            for ref in sorted(self._wanted):
                if everything or ref not in place.answers:
                    tasks.create_task(one(ref))
        if trouble:
            raise trouble[0]

    def _failed(self, place: Place, why: str) -> None:
        now = time.monotonic()
        if not place.trouble:
            place.since = now
        if why != place.trouble or now - place.told >= TELL_EVERY:
            place.told = now
            log.warning(
                "a place for secrets does not answer; what was read from it stays",
                extra={"place": place.source.name, "error": why, "seconds": round(now - place.since)},
            )
        place.trouble = why

    def _works(self, place: Place) -> None:
        if place.trouble:
            log.info("a place for secrets answers again", extra={"place": place.source.name})
            place.trouble, place.told = "", float("-inf")

    # --- all places ---------------------------------------------------------------------------------------

    def _answer(self, ref: Ref) -> Answer | None:
        """What is said of a secret: by the first place that has it, once all before it were asked."""
        if self._namespaces and ref.namespace not in self._namespaces:
            return Answer(problem=f"namespace {ref.namespace} is not among settings.watchNamespaces")
        absent = [NO_PLACE] if not self._places else []
        for place in self._places:
            answer = place.answers.get(ref)
            if answer is None:
                return None
            if not answer.absent:
                return answer
            absent.append(answer.problem)
        return Answer(problem="; ".join(absent), absent=True)

    def _tell(self, refs: Set[Ref]) -> None:
        changed = {}
        for ref in refs:
            answer = self._answer(ref)
            if answer is not None and answer != self._told.get(ref):
                changed[ref] = self._told[ref] = answer
        self._settle()
        if changed:
            self._changed(changed)

    def _settle(self) -> None:
        if self.unread and not self.troubles:
            self._settled.clear()
        else:
            self._settled.set()
