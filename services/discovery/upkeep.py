"""Keeps the stored Upstreams as the catalog asks: looks when something changed, writes what differs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from services.discovery.inputs import Inputs
from services.discovery.sink import Outcome, write_upstreams
from services.discovery.upstreams.consul import Rules, Wanted, wanted_upstreams
from services.discovery.upstreams.reconcile import Create, Delete, Reconciled, Update, Write, owned, reconcile
from shared.consul.polling import Holding
from shared.errors import ConsulError
from shared.ref import Ref
from shared.runtime.backoff import Backoff
from shared.runtime.breath import Breath
from shared.runtime.hold import Hold
from shared.runtime.settle import Settle
from shared.store.kv import KeyValues
from shared.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

UNTIL_SEEN = 5.0
"""So long after a write the store may take to show it before it is looked at as if it had not been."""
UNTIL_RETRIED = 1.0
UNTIL_FAILED_AGAIN = 30.0
ACCIDENT_SECONDS = 30.0
"""How long after Consul lost its history what vanishes may be a part of that."""
MOST_NAMED = 20

VERBS: dict[type[Write], str] = {Create: "create", Update: "update", Delete: "delete"}


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldOptions:
    """How long an Upstream outlives its service, in seconds: *linger* always, *seconds* when more services
    than *share* and *least* vanish at once, which is hard to believe. What vanishes with Consul's history is
    held longer.

    Within *linger* gloo hears of the last instance that went, so that no Envoy keeps sending to its address
    while the cluster is being taken away; and a service that is only registered anew keeps its Upstream, with
    the edits in it.
    """

    linger: float = 1.0
    share: float = 0.5
    least: int = 10
    seconds: float = 30.0


class Upkeep:
    """Carries the difference between what is wanted and what is stored into the store, for ever."""

    def __init__(
        self,
        inputs: Inputs,
        kv: KeyValues,
        root: str,
        rules: Rules,
        owns: Callable[[Ref], bool],
        metrics: Metrics,
        hold: HoldOptions | None = None,
        holds: Holding | None = None,
    ) -> None:
        self.rounds = 0
        self._inputs = inputs
        self._kv = kv
        self._root = root
        self._rules = rules
        self._owns = owns
        hold = hold or HoldOptions()
        self._holds = holds
        self._history = holds.history if holds is not None else 0
        self._limit = holds.limit if holds is not None else hold.seconds
        self._hold_seconds = min(hold.seconds, self._limit)
        self._hold = Hold[Ref](share=hold.share, least=hold.least, seconds=self._hold_seconds)
        self._linger = hold.linger
        self._lingering: dict[Ref, float] = {}
        self._looked_at = float("-inf")
        self._wanted: Mapping[Ref, Wanted] = {}
        self._problems: dict[Ref, str] = {}
        self._failed: dict[Ref, str] = {}
        self._kept: set[Ref] = set()
        self._writes = metrics.counter("discovery_writes", "Upstreams written", ["verb"])
        self._conflicts = metrics.counter("discovery_conflicts", "Writes that met a newer version")
        self._failures = metrics.counter("discovery_failures", "Writes that Consul refused")
        self._gauges = {
            name: metrics.gauge(f"discovery_{name}", text)
            for name, text in (
                ("upstreams", "Upstreams that the catalog asks for"),
                ("held", "Upstreams kept although their services vanished"),
                ("left_alone", "Upstreams that are somebody else's, have an error, or cannot be written"),
            )
        }

    async def run(self, ready: Callable[[bool, str], None] = lambda ok, why: None) -> None:
        """Look and write for ever; *ready* is told once all was read and written."""
        settle, backoff, inputs = Settle(), Backoff(ceiling=10.0), self._inputs
        while True:
            ready(bool(self.rounds), inputs.waiting_for or "the first writes are under way")
            await self._until_due()
            async with settle:
                inputs.changed.clear()
                if inputs.waiting_for:
                    continue
                try:
                    await self.look()
                except ConsulError as error:
                    log.warning("Upstreams not written, trying again", extra={"error": str(error)})
                    inputs.changed.set()
                    await asyncio.sleep(backoff.next())
                else:
                    backoff.reset()

    async def look(self) -> Outcome:
        """Look once, and write what is ours to write."""
        inputs, breath = self._inputs, Breath()
        self._looked_at = now = time.monotonic()
        catalog, stored = dict(inputs.catalog), dict(inputs.stored)  # others go on meanwhile
        unheard, lost = inputs.unheard, inputs.lost
        ours = await breath.between(owned(stored.values()))
        wanted = self._wanted = await breath.between(wanted_upstreams(catalog, self._rules, ours))
        result = await breath.between(reconcile(wanted, stored, unheard=unheard, lost=lost))
        gone = {ref for ref, write in result.writes.items() if isinstance(write, Delete)}
        if gone - self._kept:
            await self._look_at_history()
        self._keep_implausible_losses(gone, len(ours), now)
        self._lingering = {ref: self._lingering.get(ref, now + self._linger) for ref in gone}
        inputs.stop_awaiting(now)
        writes = [
            write
            for ref, write in result.writes.items()
            if ref not in self._kept
            and ref not in inputs.awaited
            and self._lingering.get(ref, now) <= now
            and self._owns(ref)
        ]
        # The watch may show a write before its own answer is here.
        inputs.awaited.update({write.ref: now + UNTIL_SEEN for write in writes})
        try:
            outcome = await write_upstreams(self._kv, self._root, writes)
        except ConsulError:
            inputs.awaited.clear()
            raise
        self._note(result, outcome, {write.ref: write for write in writes})
        self.rounds += 1
        return outcome

    def state(self) -> dict[str, Any]:
        """For ``/debug``."""
        return {
            "waiting_for": self._inputs.waiting_for,
            "rounds": self.rounds,
            "upstreams": len(self._wanted),
            "own": sum(self._owns(ref) for ref in self._wanted),
            "renamed": {
                str(ref): each.service for ref, each in self._wanted.items() if each.service != ref.name
            },
            "left_alone": self._problems,
            "held": sorted(map(str, self._kept)),
            "unheard_datacenters": self._inputs.unheard,
            "services": {name: len(services) for name, services in self._inputs.catalog.items()},
            "watches": self._inputs.watches,
        }

    async def _until_due(self) -> None:
        """Wait for a change, or for the time at which something is to be looked at again."""
        lingering = (until for until in self._lingering.values() if until > self._looked_at)
        due = [*self._inputs.awaited.values(), *lingering, *filter(None, (self._hold.until(),))]
        try:
            async with asyncio.timeout(max(0.0, min(due) - time.monotonic()) if due else None):
                await self._inputs.changed.wait()
        except TimeoutError:
            pass

    async def _look_at_history(self) -> None:
        if self._holds is not None and (history := await self._holds.look()) != self._history:
            self._history, self._inputs.lost_past_at = history, time.monotonic()

    def _keep_implausible_losses(self, gone: Set[Ref], ours: int, now: float) -> None:
        """Keep what vanished just after Consul lost its past; what is merely doubtful for a while."""
        suspect = 0.0
        if now - self._inputs.lost_past_at < ACCIDENT_SECONDS:
            suspect = self._limit
        elif now - self._inputs.troubled_at < self._hold_seconds:
            suspect = self._hold_seconds
        fresh = gone - self._inputs.awaited.keys()
        before, self._kept = self._kept, self._hold.keep(fresh, ours, now, suspect=suspect)
        if self._holds is not None and self._kept != before:
            self._holds.tell("services of Upstreams", [str(ref) for ref in self._kept], self._release)

    def _release(self) -> None:
        self._hold.release()
        self._inputs.changed.set()

    def _note(self, result: Reconciled, outcome: Outcome, writes: Mapping[Ref, Write]) -> None:
        inputs, now = self._inputs, time.monotonic()
        for refs, wait in ((outcome.conflicts, UNTIL_RETRIED), (outcome.failed, UNTIL_FAILED_AGAIN)):
            inputs.awaited.update({ref: now + wait for ref in refs if ref in inputs.awaited})
        self._tell_written(sorted(outcome.done), writes)
        self._conflicts.inc(len(outcome.conflicts))
        self._failures.inc(len(outcome.failed))
        self._failed = {ref: why for ref, why in self._failed.items() if ref in inputs.awaited}
        self._failed |= outcome.failed
        self._tell_problems({**result.problems, **self._failed})
        self._gauges["upstreams"].set(len(self._wanted))
        self._gauges["held"].set(len(self._kept))
        self._gauges["left_alone"].set(len(self._problems))

    def _tell_written(self, done: Sequence[Ref], writes: Mapping[Ref, Write]) -> None:
        verbs = [VERBS[type(writes[ref])] for ref in done]
        for verb in set(verbs):
            self._writes.labels(verb).inc(verbs.count(verb))
            refs = [str(ref) for ref, each in zip(done, verbs, strict=True) if each == verb]
            extra = {"verb": verb, "count": len(refs), "upstreams": refs[:MOST_NAMED]}
            log.info("Upstreams written", extra=extra)

    def _tell_problems(self, problems: dict[Ref, str]) -> None:
        for ref, problem in problems.items():
            if self._problems.get(ref) != problem:
                log.warning("Upstream not as it ought to be", extra={"upstream": ref, "problem": problem})
        self._problems = problems
