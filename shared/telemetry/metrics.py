"""Metrics: one registry a process, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """Makes and holds a process' metrics; a name asked for twice gives the same metric."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._made: dict[str, Counter | Gauge | Histogram] = {}
        ProcessCollector(registry=self.registry)

    def counter(self, name: str, help: str, labels: Sequence[str] = ()) -> Counter:
        made = self._made.get(name) or self._made.setdefault(
            name, Counter(name, help, labels, registry=self.registry)
        )
        assert isinstance(made, Counter), name
        return made

    def gauge(self, name: str, help: str, labels: Sequence[str] = ()) -> Gauge:
        made = self._made.get(name) or self._made.setdefault(
            name, Gauge(name, help, labels, registry=self.registry)
        )
        assert isinstance(made, Gauge), name
        return made

    def histogram(
        self, name: str, help: str, labels: Sequence[str] = (), *, buckets: Sequence[float] = SECONDS
    ) -> Histogram:
        made = self._made.get(name) or self._made.setdefault(
            name, Histogram(name, help, labels, registry=self.registry, buckets=buckets)
        )
        assert isinstance(made, Histogram), name
        return made

    def render(self) -> bytes:
        return generate_latest(self.registry)
