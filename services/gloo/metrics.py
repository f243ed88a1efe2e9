"""What gloo counts: the conversation with Envoys, what it serves them, and how old that may be."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from services.gloo.resources import Resources, TypeUrl
from services.gloo.xds.cache import Cache
from shared.telemetry.metrics import Metrics


class StaleMetric:
    """How old what is served may be: since the last good snapshot was written, until Consul was read."""

    def __init__(self, metrics: Metrics) -> None:
        self.written: dict[str, float] = {}
        gauge = metrics.gauge("stale_seconds", "Age of the oldest last good snapshot being served")
        gauge.set_function(lambda: time.time() - min(self.written.values()) if self.written else 0.0)

    def since(self, role: str, written: float) -> None:
        self.written[role] = written

    def over(self, role: str) -> None:
        self.written.pop(role, None)


class XdsMetrics:
    """The xDS server's numbers, by resource type."""

    def __init__(self, metrics: Metrics) -> None:
        self._clients = metrics.gauge("xds_clients", "Streams that Envoys hold open")
        self._sent = metrics.counter("xds_sent_bytes", "Bytes of responses", ["type"])
        self._pushes = metrics.counter(
            "xds_responses", "Responses, by what became of them", ["type", "event"]
        )
        self._seconds = metrics.histogram("xds_ack_seconds", "From sending to the answer", ["type"])
        self._coalesced = metrics.counter(
            "xds_coalesced", "Snapshots an Envoy was never sent, because a newer one came before"
        )
        self._handshakes = metrics.counter(
            "xds_handshakes_failed", "Connections that failed at TLS, as for want of a certificate"
        )
        self._turned_away = metrics.counter(
            "xds_turned_away", "Streams refused or ended, for their role or for what they ask of the server"
        )

    def count_clients(self, count: Callable[[], int]) -> None:
        self._clients.set_function(count)

    def measure(self, event: str, type_url: TypeUrl, amount: float) -> None:
        if event == "coalesced":
            self._coalesced.inc(amount)
            return
        if event == "handshake failed":
            self._handshakes.inc(amount)
            return
        if event == "turned away":
            self._turned_away.inc(amount)
            return
        name = short(type_url)
        self._pushes.labels(name, event).inc()
        if event == "sent":
            self._sent.labels(name).inc(amount)
        else:
            self._seconds.labels(name).observe(amount)


def show_snapshots(metrics: Metrics, cache: Cache) -> None:
    """Have the size of each role's snapshot shown, by type."""
    metrics.collect("snapshots", lambda: sizes(cache))


def sizes(cache: Cache) -> Iterator[Metric]:
    count = GaugeMetricFamily("snapshot_resources", "Resources served to a role", labels=["role", "type"])
    size = GaugeMetricFamily("snapshot_bytes", "Bytes of these resources", labels=["role", "type"])
    summed: dict[int, int] = {}  # roles share their clusters and endpoints

    def bytes_of(resources: Resources) -> int:
        if id(resources) not in summed:
            summed[id(resources)] = sum(len(each.body) for each in resources.by_name.values())
        return summed[id(resources)]

    for role in sorted(cache.roles()):
        snapshot = cache.get(role)
        for type_url, resources in snapshot.by_type.items() if snapshot else ():
            count.add_metric([role, short(type_url)], len(resources.by_name))
            size.add_metric([role, short(type_url)], bytes_of(resources))
    yield count
    yield size


def short(type_url: str) -> str:
    """``Cluster`` of ``type.googleapis.com/envoy.config.cluster.v3.Cluster``."""
    return type_url.rpartition(".")[2]
