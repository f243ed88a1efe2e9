"""Watches as metrics."""

from __future__ import annotations

import time

from shared.consul.metrics import show_watches
from shared.consul.polling import WatchState
from shared.telemetry.metrics import Metrics


def test_each_watch_shows_what_it_has_been_through() -> None:
    metrics = Metrics()
    proxies, silent = WatchState("Proxy", polls=3, errors=2, resets=1), WatchState("Upstream")
    proxies.last_success = time.time() - 10
    show_watches(metrics, lambda: [proxies, silent])

    proxies.polls += 1
    page = metrics.render().decode()

    assert 'watch_polls_total{watch="Proxy"} 4.0' in page
    assert 'watch_errors_total{watch="Proxy"} 2.0' in page
    assert 'watch_resets_total{watch="Proxy"} 1.0' in page
    assert 'watch_age_seconds{watch="Proxy"} 10.' in page
    assert 'watch_polls_total{watch="Upstream"} 0.0' in page
    assert 'watch_age_seconds{watch="Upstream"}' not in page
