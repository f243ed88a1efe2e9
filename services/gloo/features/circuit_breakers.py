"""Circuit breakers: how much of an upstream's connections, requests and retries may be under way."""

from __future__ import annotations

from protos import gloo
from protos.envoy import cluster
from services.gloo.plugin import ALL, Feature, Patch, Scope


def break_circuits(limits: gloo.CircuitBreakerConfig, scope: Scope) -> Patch:
    threshold = cluster.CircuitBreakersThresholds(
        max_connections=limits.max_connections,
        max_pending_requests=limits.max_pending_requests,
        max_requests=limits.max_requests,
        max_retries=limits.max_retries,
        track_remaining=limits.track_remaining,
    )
    return Patch(fields={"circuit_breakers": cluster.CircuitBreakers(thresholds=[threshold])})


FEATURES = (Feature(name="circuitBreakers", reads={"CircuitBreakerConfig": ALL}, on_upstream=break_circuits),)
