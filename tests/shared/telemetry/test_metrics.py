from __future__ import annotations

from prometheus_client.core import GaugeMetricFamily

from shared.telemetry.metrics import Metrics


def test_a_metric_asked_for_twice_is_the_same() -> None:
    metrics = Metrics()

    metrics.counter("nacks", "Refused answers", ["type"]).labels("cds").inc()
    metrics.counter("nacks", "Refused answers", ["type"]).labels("cds").inc()

    assert b'nacks_total{type="cds"} 2.0' in metrics.render()


def test_two_processes_parts_share_nothing() -> None:
    one, other = Metrics(), Metrics()

    one.gauge("clients", "Connected").set(3)

    assert b"clients" not in other.render()


def test_histograms_have_buckets_for_milliseconds() -> None:
    metrics = Metrics()

    metrics.histogram("translation_seconds", "Time").observe(0.003)

    assert b'translation_seconds_bucket{le="0.005"} 1.0' in metrics.render()


def test_what_is_asked_for_at_each_scrape_is_replaced_by_name() -> None:
    metrics = Metrics()

    metrics.collect("size", lambda: [GaugeMetricFamily("size", "Size", value=1)])
    metrics.collect("size", lambda: [GaugeMetricFamily("size", "Size", value=2)])

    assert b"size 2.0" in metrics.render()
    assert b"size 1.0" not in metrics.render()
