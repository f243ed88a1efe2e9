"""Circuit breakers: how much of an upstream's connections, requests and retries may be under way."""

from __future__ import annotations

from protos import gloo
from protos.envoy import cluster, envoy_type
from services.gloo.plugin import ALL, Feature, Patch, Scope, within


def break_circuits(limits: gloo.CircuitBreakerConfig, scope: Scope) -> Patch:
    if limits.retry_budget is not None and limits.max_retries is not None:
        scope.warn("maxRetries", "has no effect beside retryBudget")
    threshold = cluster.CircuitBreakersThresholds(
        max_connections=limits.max_connections,
        max_pending_requests=limits.max_pending_requests,
        max_requests=limits.max_requests,
        max_retries=limits.max_retries,
        track_remaining=limits.track_remaining,
        retry_budget=budget(limits.retry_budget, within(scope, "retryBudget")),
    )
    return Patch(fields={"circuit_breakers": cluster.CircuitBreakers(thresholds=[threshold])})


def budget(
    wanted: gloo.RetryBudget | None, scope: Scope
) -> cluster.CircuitBreakersThresholdsRetryBudget | None:
    if wanted is None:
        return None
    share = wanted.budget_percent
    if share is not None and not 0 <= share <= 100:
        scope.error("budgetPercent", f"{share:g} is out of range; 0 to 100")
    return cluster.CircuitBreakersThresholdsRetryBudget(
        budget_percent=envoy_type.Percent(value=share) if share is not None else None,
        min_retry_concurrency=wanted.min_retry_concurrency,
    )


FEATURES = (
    Feature(
        name="circuitBreakers",
        reads={"CircuitBreakerConfig": ALL, "RetryBudget": ALL},
        on_upstream=break_circuits,
    ),
)
