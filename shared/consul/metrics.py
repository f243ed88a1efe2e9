"""Watches as metrics: read from their state when somebody asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from shared.consul.holds import Holds
from shared.consul.polling import WatchState
from shared.telemetry.admin import Admin
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


def show_holds(metrics: Metrics, admin: Admin, holds: Holds) -> None:
    """Have what is held shown in metrics, at ``/readyz`` and at ``/debug/holds``."""
    metrics.collect("holds", lambda: held_families(holds))
    admin.held = holds.in_words
    admin.debug("holds", holds.state)


def held_families(holds: Holds) -> Iterator[Metric]:
    objects = GaugeMetricFamily(
        "held_objects", "What Consul has lost and we go on with, by watch", labels=["watch"]
    )
    seconds = GaugeMetricFamily("held_seconds", "Since something of it is held", labels=["watch"])
    now = time.time()
    for what, held in sorted(holds.held.items()):
        objects.add_metric([what], len(held.names))
        seconds.add_metric([what], max(0.0, now - held.since))
    yield objects
    yield seconds


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
