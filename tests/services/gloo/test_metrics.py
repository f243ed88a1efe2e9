"""What gloo counts."""

from __future__ import annotations

from services.gloo.metrics import StaleMetric, XdsMetrics, show_snapshots
from services.gloo.resources import CLUSTER, LISTENER, Resources, Snapshot, TypeUrl, resource
from services.gloo.xds.cache import Cache
from shared.telemetry.metrics import Metrics


def test_a_snapshots_size_is_shown_by_role_and_type() -> None:
    metrics, cache = Metrics(), Cache()
    clusters = Resources.of([resource("a", b"12345"), resource("b", b"678")])
    show_snapshots(metrics, cache)

    for role in ("one", "two"):
        cache.set(role, Snapshot({CLUSTER: clusters}))
    cache.remove("two")

    page = metrics.render().decode()
    assert 'snapshot_resources{role="one",type="Cluster"} 2.0' in page
    assert 'snapshot_bytes{role="one",type="Cluster"} 8.0' in page
    assert 'role="two"' not in page


def test_answers_are_counted_by_type_and_coalesced_snapshots_without() -> None:
    metrics = Metrics()
    xds = XdsMetrics(metrics)

    xds.measure("sent", LISTENER, 100.0)
    xds.measure("refused", LISTENER, 0.02)
    xds.measure("coalesced", TypeUrl(""), 3)
    xds.measure("handshake failed", TypeUrl(""), 1)

    page = metrics.render().decode()
    assert 'xds_sent_bytes_total{type="Listener"} 100.0' in page
    assert 'xds_responses_total{event="refused",type="Listener"} 1.0' in page
    assert 'xds_ack_seconds_count{type="Listener"} 1.0' in page
    assert "xds_coalesced_total 3.0" in page
    assert "xds_handshakes_failed_total 1.0" in page


def test_stale_is_the_age_of_the_oldest() -> None:
    metrics = Metrics()
    stale = StaleMetric(metrics)
    assert "stale_seconds 0.0" in metrics.render().decode()

    stale.since("a", 1.0)
    stale.since("b", 2.0)

    assert "stale_seconds 0.0" not in metrics.render().decode()
    stale.over("a")
    stale.over("b")
    assert "stale_seconds 0.0" in metrics.render().decode()
