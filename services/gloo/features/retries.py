"""Retries: which failures of an upstream are tried again, how often and how soon."""

from __future__ import annotations

from protos import gloo
from protos.envoy import previous_priorities, route
from services.gloo import checks
from services.gloo.plugin import ALL, Feature, Patch, Scope
from shared.codec.encode import pack

PREVIOUS_PRIORITIES = "envoy.retry_priorities.previous_priorities"
UPDATE_FREQUENCY = 2  # after how many tries the choice is made anew, unless the user says so
MAX_UPDATE_FREQUENCY = 1000  # Envoy makes room for as many in every request

CONDITIONS = frozenset(
    """5xx gateway-error reset reset-before-request connect-failure envoy-ratelimited retriable-4xx
    refused-stream retriable-status-codes retriable-headers http3-post-connect-failure cancelled
    deadline-exceeded internal resource-exhausted unavailable""".split()  # noqa: SIM905
)


def retry_route(policy: gloo.RetryPolicy, scope: Scope) -> Patch:
    return Patch(action={"retry_policy": retry_policy(policy, scope)})


def retry_virtual_host(policy: gloo.RetryPolicy, scope: Scope) -> Patch:
    return Patch(fields={"retry_policy": retry_policy(policy, scope)})


def retry_policy(policy: gloo.RetryPolicy, scope: Scope) -> route.RetryPolicy:
    for condition in policy.retry_on.split(","):
        if condition.strip() and condition.strip() not in CONDITIONS:
            scope.warn("retryOn", f"{checks.shown(condition.strip())} is no condition Envoy knows")
    if problem := checks.text_value(policy.retry_on):
        scope.error("retryOn", problem)
    if policy.per_try_timeout is not None and (problem := checks.duration(policy.per_try_timeout)):
        scope.error("perTryTimeout", problem)
    return route.RetryPolicy(
        retry_on=policy.retry_on,
        num_retries=policy.num_retries or 1,
        per_try_timeout=policy.per_try_timeout,
        retriable_status_codes=list(policy.retriable_status_codes),
        retry_back_off=back_off(policy.retry_back_off, scope),
        rate_limited_retry_back_off=rate_limited_back_off(policy.rate_limited_retry_back_off, scope),
        retry_priority=other_priorities(policy.previous_priorities, scope),
    )


def other_priorities(
    wanted: gloo.RetryPolicyPreviousPriorities | None, scope: Scope
) -> route.RetryPolicyRetryPriority | None:
    if wanted is None:
        return None
    every = UPDATE_FREQUENCY if wanted.update_frequency is None else wanted.update_frequency
    if not 1 <= every <= MAX_UPDATE_FREQUENCY:
        problem = f"{every} is out of range; 1 to {MAX_UPDATE_FREQUENCY}"
        scope.error("previousPriorities.updateFrequency", problem)
        return None
    config = previous_priorities.PreviousPrioritiesConfig(update_frequency=every)
    return route.RetryPolicyRetryPriority(name=PREVIOUS_PRIORITIES, typed_config=pack(config))


def back_off(interval: gloo.RetryBackOff | None, scope: Scope) -> route.RetryPolicyRetryBackOff | None:
    if interval is None:
        return None
    if interval.base_interval is None:
        scope.error("retryBackOff.baseInterval", "required")
        return None
    if problem := checks.duration(interval.base_interval, positive=True):
        scope.error("retryBackOff.baseInterval", problem)
    if interval.max_interval is not None:
        if problem := checks.duration(interval.max_interval, positive=True):
            scope.error("retryBackOff.maxInterval", problem)
        elif interval.max_interval < interval.base_interval:
            scope.error("retryBackOff.maxInterval", "less than baseInterval")
    return route.RetryPolicyRetryBackOff(
        base_interval=interval.base_interval, max_interval=interval.max_interval
    )


def rate_limited_back_off(
    policy: gloo.RateLimitedRetryBackOff | None, scope: Scope
) -> route.RetryPolicyRateLimitedRetryBackOff | None:
    if policy is None:
        return None
    if not policy.reset_headers:
        scope.error("rateLimitedRetryBackOff.resetHeaders", "needs at least one header")
    for i, header in enumerate(policy.reset_headers):
        if problem := checks.header_name(header.name):
            scope.error(f"rateLimitedRetryBackOff.resetHeaders[{i}].name", problem)
    if policy.max_interval is not None and (problem := checks.duration(policy.max_interval, positive=True)):
        scope.error("rateLimitedRetryBackOff.maxInterval", problem)
    return route.RetryPolicyRateLimitedRetryBackOff(
        reset_headers=[
            route.RetryPolicyResetHeader(
                name=header.name, format=route.RetryPolicyResetHeaderFormat(header.format)
            )
            for header in policy.reset_headers
        ],
        max_interval=policy.max_interval,
    )


FEATURES = (
    Feature(
        name="retries",
        reads={
            "RetryPolicy": (
                "retryOn",
                "numRetries",
                "perTryTimeout",
                "retryBackOff",
                "retriableStatusCodes",
                "rateLimitedRetryBackOff",
                "previousPriorities",
            ),
            "RetryPolicy.PreviousPriorities": ALL,
            "RetryBackOff": ALL,
            "RateLimitedRetryBackOff": ALL,
            "ResetHeader": ALL,
        },
        on_route=retry_route,
        on_virtual_host=retry_virtual_host,
    ),
)
