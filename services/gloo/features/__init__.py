"""The features gloo has: one file each, and this hand-written list of them."""

from services.gloo.features import (
    circuit_breakers,
    connection,
    faults,
    headers,
    retries,
    rewrite,
    timeout,
)
from services.gloo.plugin import Feature

FEATURES: tuple[Feature, ...] = (
    *circuit_breakers.FEATURES,
    *connection.FEATURES,
    *faults.FEATURES,
    *headers.FEATURES,
    *retries.FEATURES,
    *rewrite.FEATURES,
    *timeout.FEATURES,
)
