"""The two loops of the gateway: objects to Proxies, and findings to statuses.

The first is the fast path: a change is translated and the Proxies are written before anything else. The
second follows with the statuses. Only the leader writes; the others translate all the same, so that one
of them can go on at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial

from services.gateway.composition import Rendered
from services.gateway.defaults import create_default_gateways
from services.gateway.feedback import Feedback
from services.gateway.inputs import KINDS, Inputs
from services.gateway.sink import Sink
from services.gateway.translation import Changes, Translation, Unit
from services.gateway.translator.model import Rules
from services.gateway.translator.restore import restore
from shared.consul.election import Election
from shared.consul.holds import Holds
from shared.ref import Source
from shared.runtime.breath import Breath
from shared.runtime.lull import Lull
from shared.runtime.settle import Settle
from shared.store.status import StatusWriter, parse_state
from shared.store.store import Store
from shared.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

COLLECT_SECONDS = 300.0
STATUS_PAUSE = 0.1
"""Seconds between two rounds of statuses in a burst: each wakes the watches that are to hear of edits."""
QUIET = 0.05
"""Seconds without an edit before statuses are told: gloo mostly has its say within them, so that one status
does for both, and an edit has its way to Envoy to itself."""
REPORT_WITHIN = 1.0
"""Seconds that statuses wait at most while edit follows edit."""

Ready = Callable[[bool, str], None]


class Pipeline:
    """Holds the translation and drives it."""

    def __init__(
        self,
        *,
        inputs: Inputs,
        election: Election,
        sink: Sink,
        statuses: StatusWriter,
        store: Store,
        namespace: str,
        rules: Rules,
        make_defaults: bool,
        metrics: Metrics,
        ready: Ready,
        holds: Holds | None = None,
    ) -> None:
        self._rules = rules
        self.translation = Translation(namespace, rules)
        self.feedback = Feedback(namespace)
        self._inputs = inputs
        self._lull = Lull(QUIET, REPORT_WITHIN)
        self._election = election
        self._sink = sink
        self._statuses = statuses
        self._store = store
        self._namespace = namespace
        self._make_defaults = make_defaults
        self._holds = holds
        self._ready = ready
        self._kinds = {kind.name: kind for kind in KINDS}
        self._started = self._leads = False
        self._whole = asyncio.Lock()
        self._untold: set[Source] = set()
        self._states: dict[Source, str] = {}
        self._told: dict[Source, Mapping[str, object]] = {}
        self._unwritten: set[Source] = set()
        self._known_failures: dict[Unit, Exception] = {}
        self._translating = metrics.histogram(
            "gateway_translation_seconds", "From a change taken up to the Proxies rendered"
        )
        self._writing = metrics.histogram("gateway_write_seconds", "Writing the Proxies of one change")
        self._objects = metrics.gauge("gateway_objects", "Objects by kind and state", ["kind", "state"])
        self._leading = metrics.gauge("gateway_leader", "1 while this process writes")

    # Objects to Proxies

    async def translate(self) -> None:
        """Translate and write, for ever."""
        settle = Settle()
        self._inputs.work.set()
        while True:
            await self._inputs.work.wait()
            async with settle:
                self._inputs.work.clear()
                await self._turn()

    async def _turn(self) -> None:
        if waiting_for := self._inputs.waiting_for:
            self._ready(False, waiting_for)
            return
        leads = self._election.leader
        if not self._started or (leads and not self._leads):
            await self._adopt()
        self._started, self._leads = True, leads
        self._leading.set(leads)
        self._lull.note()
        began = time.perf_counter()
        changes = self._inputs.take_changes()
        touched = await self._update(changes)
        self._unwritten |= touched
        self._untold |= touched
        if leads:
            rendered = self.translation.render()
            self._translating.observe(time.perf_counter() - began)
            async with self._whole:  # what the watch shows of a write is looked at when that has ended
                self._observe()
                await self._write(rendered)
            await self._make_default_gateways()
        else:
            self._unwritten.clear()
        for source in changes.gone:
            self._statuses.withdraw(self._kinds[source.kind], source.ref)
        self._log_failures()
        self._ready(True, "")
        self._inputs.news.set()

    async def _update(self, changes: Changes) -> set[Source]:
        """Bring the translation up to date; nothing is told meanwhile, since half of it is still the old."""
        async with self._whole:
            return await Breath().between(self.translation.update_in_steps(changes, self._rules))

    async def _adopt(self) -> None:
        """Start from what is stored: whoever wrote before us may have known better versions."""
        self._sink.forget()
        self.feedback.forget()
        for name in self._inputs.take_moved() | self._inputs.proxies.keys():
            self._sink.observe(name, self._inputs.proxies.get(name))
        stored = {}
        for name, proxy in self._inputs.proxies.items():
            if proxy.ours and (whole := await self._sink.whole(proxy)) is not None:
                stored[name] = whole
        self.translation.adopt(restore(stored))
        for name, proxy in self._inputs.proxies.items():
            self.feedback.observe(name, proxy.index, proxy.status, set)
        self._untold |= self._inputs.objects.keys()
        self._statuses.wake()

    async def _write(self, rendered: Mapping[str, Rendered]) -> None:
        began = time.perf_counter()
        foreign = set(self._sink.foreign)
        written = await self._sink.write(rendered)
        for name, index in written.items():
            changed = [source for source in self._unwritten if name in self.translation.shares(source)]
            self.feedback.written(name, index, changed)
        self._unwritten.clear()
        for name in foreign ^ self._sink.foreign:
            self._untold |= self.translation.members(name)
        if written:
            self._writing.observe(time.perf_counter() - began)
            log.info("wrote Proxies", extra={"proxies": sorted(written)})

    async def _make_default_gateways(self) -> None:
        if self._make_defaults and not self._inputs.gateway_seen:
            if self._holds is not None and await self._holds.notes():
                return  # Consul has lost what others go on with; it is no new one
            await create_default_gateways(self._store, self._namespace)
        self._make_defaults = False

    def _log_failures(self) -> None:
        """A unit that raises is a bug of ours: told once in the log, and in the object's status."""
        failures = {**self.translation.services.failures, **self.translation.gateways.failures}
        for (kind, ref), error in failures.items():
            if self._known_failures.get((kind, ref)) is not error:
                log.error("translation failed", extra={"kind": kind, "ref": ref}, exc_info=error)
        self._known_failures = failures

    # Findings to statuses

    async def report(self) -> None:
        """Say what is found, for ever."""
        settle = Settle(least=STATUS_PAUSE)
        while True:
            await self._inputs.news.wait()
            await self._lull.wait()
            async with settle:
                self._inputs.news.clear()
                await self._tell()

    async def _tell(self) -> None:
        async with self._whole:
            if self._started:
                self._observe()
        if not self._leads:
            return
        breath = Breath()
        for source in sorted(self._untold):
            await breath.take()
            async with self._whole:
                self._tell_of(source)

    def _observe(self) -> None:
        """Note of which objects there may be something new to tell."""
        for name in self._inputs.take_moved():
            proxy = self._inputs.proxies.get(name)
            if self._sink.observe(name, proxy) or proxy is None:
                self._inputs.work.set()
            status, index = (proxy.status, proxy.index) if proxy else (None, 0)
            members = partial(self.translation.members, name)
            self._untold |= self.feedback.observe(name, index, status, members)
        self._untold |= {source for source in self._inputs.take_restated() if not self._stands(source)}

    def _stands(self, source: Source) -> bool:
        """Whether the object's status is the very one that was told last."""
        stored, told = self._inputs.objects.get(source), self._told.get(source)
        return stored is not None and told is not None and stored.status(self._namespace) == told

    def _tell_of(self, source: Source) -> None:
        if source in self._unwritten:
            return  # on its way into a Proxy: it would be told the verdict on what it was before
        self._untold.discard(source)
        stored, known = self._inputs.objects.get(source), self.translation.objects.get(source)
        if stored is None or known is None or not stored.same_spec(known):
            self._count(source, None)
            self._told.pop(source, None)
            return  # gone, or edited again: the translation has it before it next
        status = self.feedback.status(
            stored,
            self.translation.report(source),
            self.translation.shares(source),
            self._sink.foreign,
            self.translation.users(source),
        )
        self._statuses.submit(stored, status)
        self._told[source] = status
        self._count(source, status["state"])

    def _count(self, source: Source, state: str | None) -> None:
        """Keep the number of objects by kind and state, for the metrics."""
        if (before := self._states.pop(source, None)) is not None:
            self._objects.labels(source.kind, before).dec()
        if state is not None:
            self._states[source] = state
            self._objects.labels(source.kind, state).inc()

    # Beside them

    def use(self, rules: Rules) -> None:
        """Translate by *rules* from now on."""
        self._rules = rules
        self._inputs.work.set()

    async def follow_leadership(self) -> None:
        """Have a change of leadership acted on, for ever."""
        while True:
            self._inputs.work.set()
            self._statuses.wake()
            await self._election.wait_changed()

    async def collect(self) -> None:
        """Clear away chunks that nothing needs, now and then, for ever."""
        while True:
            await asyncio.sleep(COLLECT_SECONDS)
            if self._election.leader:
                await self._sink.collect()

    def state(self) -> dict[str, object]:
        """All that ``/debug/gateway`` shows."""
        objects = {}
        for source, stored in sorted(self._inputs.objects.items()):
            report = self.translation.report(source)
            objects[str(source)] = {
                "index": stored.index,
                "state": parse_state(stored.status(self._namespace)).value,
                "errors": list(map(str, report.errors)),
                "warnings": list(map(str, report.warnings)),
                "proxies": sorted(self.translation.shares(source)),
            }
        proxies = {
            name: {
                listener.head.name: {
                    "gateway": str(listener.gateway),
                    "virtualHosts": {host.name: list(map(str, host.members)) for host in listener.hosts},
                }
                for listener in listeners
            }
            for name, listeners in self.translation.plan.proxies.items()
        }
        return {
            "leader": self._election.leader,
            "holder": self._election.holder,
            "waitingFor": self._inputs.waiting_for,
            "objects": objects,
            "proxies": proxies,
            "foreignProxies": sorted(self._sink.foreign),
            "watches": self._inputs.watches,
            "statusesWaiting": self._statuses.waiting,
        }
