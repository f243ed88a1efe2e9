"""Metrics: one registry a process, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

Collect = Callable[[], Iterable[Metric]]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """Makes and holds a process' metrics; a name asked for twice gives the same metric."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._made: dict[str, Counter | Gauge | Histogram] = {}
        self._collected = _Collected()
        ProcessCollector(registry=self.registry)
        self.registry.register(self._collected)

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

    def collect(self, name: str, collect: Collect) -> None:
        """Ask *collect* for metrics at each scrape, in place of who had *name* before."""
        self._collected.by_name[name] = collect

    def render(self) -> bytes:
        return generate_latest(self.registry)


class _Collected(Collector):
    """What is found out only when somebody asks."""

    def __init__(self) -> None:
        self.by_name: dict[str, Collect] = {}

    def collect(self) -> Iterator[Metric]:
        for collect in self.by_name.values():
            yield from collect()
