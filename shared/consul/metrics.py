"""Watches as metrics: read from their state when somebody asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from shared.consul.polling import WatchState
from shared.telemetry.metrics import Metrics

COUNTERS = {
    "polls": "Blocking queries that ended",
    "errors": "Reads that failed",
    "resets": "Times the index went back and the watch began anew",
    "held_reads": "Reads that were doubted, for having lost too much at once",
    "bytes": "Bytes of answers",
}


def show_watches(metrics: Metrics, watches: Callable[[], Iterable[WatchState]]) -> None:
    """Have *watches* shown, each under its name."""
    metrics.collect("watches", lambda: families(watches()))


def families(watches: Iterable[WatchState]) -> Iterator[Metric]:
    states = {state.name: state for state in watches}
    for name, text in COUNTERS.items():
        counter = CounterMetricFamily(f"watch_{name}", text, labels=["watch"])
        for state in states.values():
            counter.add_metric([state.name], getattr(state, name))
        yield counter
    objects = GaugeMetricFamily("watch_objects", "Keys that a watch of the KV store sees", labels=["watch"])
    age = GaugeMetricFamily("watch_age_seconds", "Since a watch was last answered", labels=["watch"])
    now = time.time()
    for state in states.values():
        objects.add_metric([state.name], state.objects)
        if state.last_success:
            age.add_metric([state.name], max(0.0, now - state.last_success))
    yield objects
    yield age
