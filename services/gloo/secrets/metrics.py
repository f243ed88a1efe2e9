"""What operators are told of the places for secrets."""

from __future__ import annotations

from services.gloo.secrets.feed import SecretFeed
from shared.telemetry.admin import Admin
from shared.telemetry.metrics import Metrics


def show_secrets(metrics: Metrics, admin: Admin, feed: SecretFeed) -> None:
    """Gauges, and a line of ``/readyz`` for each place that does not answer."""
    followed = metrics.gauge("secrets_followed", "Secrets that something refers to")
    followed.set_function(lambda: feed.followed)
    unread = metrics.gauge("secrets_unread", "Secrets that something refers to and that were never read")
    unread.set_function(lambda: len(feed.unread))
    silent = metrics.gauge("secret_places_silent", "Places for secrets that do not answer")
    silent.set_function(lambda: len(feed.troubles))
    others = admin.held
    admin.held = lambda: [
        *others(),
        *(f"secrets of {place}, which does not answer: {why}" for place, why in feed.troubles.items()),
    ]
