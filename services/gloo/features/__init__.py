"""The features gloo has: one file each, and this hand-written list of them."""

from services.gloo.features import (
    circuit_breakers,
    connection,
    dns,
    faults,
    headers,
    health_checks,
    load_balancing,
    outlier_detection,
    preconnect,
    retries,
    rewrite,
    timeout,
    upstream_http,
)
from services.gloo.plugin import Feature

FEATURES: tuple[Feature, ...] = (
    *circuit_breakers.FEATURES,
    *connection.FEATURES,
    *dns.FEATURES,
    *faults.FEATURES,
    *headers.FEATURES,
    *health_checks.FEATURES,
    *load_balancing.FEATURES,
    *outlier_detection.FEATURES,
    *preconnect.FEATURES,
    *retries.FEATURES,
    *rewrite.FEATURES,
    *timeout.FEATURES,
    *upstream_http.FEATURES,
)
