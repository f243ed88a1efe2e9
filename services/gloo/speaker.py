"""The one of all gloo processes that writes statuses, and what it says in them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from prometheus_client import Counter, Gauge

from services.gloo.feedback import Feedback
from services.gloo.parts import WHOLE
from services.gloo.pipeline import Changes, Pipeline, role_of
from services.gloo.statuses import object_status, proxy_status
from shared.consul.client import Consul
from shared.consul.election import Election
from shared.consul.operations import CheckSession
from shared.ref import Ref, Source
from shared.report import Report
from shared.runtime.breath import Breath
from shared.store.keys import Kind
from shared.store.objects import Stored
from shared.store.status import StatusWriter, same_status
from shared.telemetry.metrics import Metrics

log = logging.getLogger(__name__)


class Speaker:
    """Speaks of the objects that translation has taken in, as long as this process leads."""

    def __init__(
        self,
        consul: Consul,
        root: str,
        *,
        name: str,
        namespace: str,
        pipeline: Pipeline,
        feedback: Feedback,
        metrics: Metrics,
    ) -> None:
        self.stored: dict[Source, Stored] = {}
        self.election = Election(consul, f"{root}/_leaders/gloo", name)
        self._namespace = namespace
        self._pipeline = pipeline
        self._feedback = feedback
        self._leading: Gauge = metrics.gauge("leader", "1 while this process writes statuses")
        self._writes: Counter = metrics.counter(
            "status_writes", "Statuses, by what became of them", ["result"]
        )
        self.writer = StatusWriter(
            consul.kv, root, namespace=namespace, fence=self._fence, observe=self._count_writes
        )

    def withdraw(self, kind: Kind, gone: Iterable[Ref]) -> None:
        """Say no more of what is gone."""
        for ref in gone:
            self.writer.withdraw(kind, ref)

    def take_over(self, changes: Changes) -> None:
        """Speak of these versions from now on: of a newer one, what is known of the older would be untrue."""
        for gone, refs in changes.gone.items():
            for ref in refs:
                self.stored.pop(Source(gone.name, ref), None)
        for put in changes.put.values():
            self.stored.update((stored.source, stored) for stored in put.values())

    async def speak(self, sources: Iterable[Source]) -> None:
        """Have the statuses of these objects written where they differ from what stands there."""
        breath = Breath()
        for source in sources:
            await breath.take()
            stored = self.stored.get(source)
            if stored is None or stored.document is None:
                continue
            status = self._status_of(source, stored.fingerprint)
            if status is not None and not same_status(stored.status(self._namespace), status):
                self.writer.submit(stored, status)

    async def follow_leadership(self) -> None:
        while True:
            leading = await self.election.wait_changed()
            self._leading.set(leading)
            log.info("leading" if leading else "not leading", extra={"key": self.election.key})
            if leading:
                await self.speak(list(self.stored))
            self.writer.wake()

    def _status_of(self, source: Source, about: str) -> dict[str, Any] | None:
        if source.kind == "Proxy":
            refusals = self._feedback.refusals(role_of(source.ref))
            found = self._pipeline.found_in(source.ref, refusals)
            others = [refusal for refusal in refusals if refusal.part == WHOLE]
            return proxy_status(found, others, source, about) if found else None
        report = self._pipeline.reports.get(source)
        if report is None:
            return None
        whole = Report()
        whole.add(report)
        for text in self._refused_of(source):
            whole.error("", text)
        return object_status(whole, about)

    def _refused_of(self, source: Source) -> list[str]:
        """Refusals of resources that come from this object alone."""
        return sorted(
            {
                str(refusal)
                for ref in self._pipeline.proxies.served
                for refusal in self._feedback.refusals(role_of(ref))
                if refusal.sources == {source}
            }
        )

    def _fence(self) -> CheckSession | None:
        return self.election.fence

    def _count_writes(self, what: str, count: int) -> None:
        self._writes.labels(what).inc(count)
