"""Limits of connections, counted by each Envoy: how many at once, and how many new ones in a time."""

from __future__ import annotations

from protos import gloo
from protos.envoy import connection_limit, network_local_limit
from services.gloo import checks
from services.gloo.features.local_limits import token_bucket
from services.gloo.plugin import ALL, Feature, Patch, Scope

AT_ONCE, IN_A_TIME = "envoy.filters.network.connection_limit", "envoy.filters.network.local_ratelimit"
NAMES = (AT_ONCE, IN_A_TIME)
AT_ONCE_PREFIX, IN_A_TIME_PREFIX = "connection_limit", "network_local_rate_limiter"


def limit_connections(limit: gloo.ConnectionLimit, scope: Scope) -> Patch:
    if not limit.max_active_connections:
        scope.error(
            "maxActiveConnections",
            "required" if limit.max_active_connections is None else "must be 1 or more",
        )
    if limit.delay_before_close is not None and (problem := checks.duration(limit.delay_before_close)):
        scope.error("delayBeforeClose", problem)
    config = connection_limit.ConnectionLimit(
        stat_prefix=AT_ONCE_PREFIX,
        max_connections=limit.max_active_connections,
        delay=limit.delay_before_close,
    )
    return Patch(network={AT_ONCE: config})


def limit_new_connections(bucket: gloo.TokenBucket, scope: Scope) -> Patch:
    config = network_local_limit.LocalRateLimit(
        stat_prefix=IN_A_TIME_PREFIX, token_bucket=token_bucket(bucket, "", scope)
    )
    return Patch(network={IN_A_TIME: config})


FEATURES = (
    Feature(name="connectionLimit", reads={"ConnectionLimit": ALL}, on_listener=limit_connections),
    Feature(name="networkLocalRatelimit", on_listener=limit_new_connections),
)
