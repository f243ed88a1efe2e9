"""Local rate limits: how many requests each Envoy lets through in a time, counted by itself.

A listener's limit is for all of its requests; that of a virtual host or a route takes its place there. How
requests are counted, the listener's settings say for all of them.
"""

from __future__ import annotations

from datetime import timedelta

from protos import gloo
from protos.envoy import envoy_type, http_local_limit, limits_common
from services.gloo import checks
from services.gloo.plugin import ALL, Feature, HttpFilter, Patch, Scope, Stage
from services.gloo.values import ALWAYS
from shared.report import join

FILTER = "envoy.filters.http.local_ratelimit"
STAT_PREFIX = "http_local_rate_limiter"
SHORTEST = timedelta(milliseconds=50)
HEADERS = limits_common.XRateLimitHeadersRfcVersion
BUCKET = "localRatelimit"


def limit_listener(settings: gloo.LocalRateLimitSettings, scope: Scope) -> Patch:
    if settings.default_limit is None:
        return Patch()
    return Patch(filters={FILTER: limited(settings.default_limit, settings, "defaultLimit", scope)})


def limit_here(limits: gloo.RateLimitVhostExtension | gloo.RateLimitRouteExtension, scope: Scope) -> Patch:
    if limits.local_ratelimit is None:
        return Patch()
    settings = scope.listener.http_local_ratelimit or gloo.LocalRateLimitSettings()
    return Patch(filters={FILTER: limited(limits.local_ratelimit, settings, BUCKET, scope)})


def refuse_late(limits: gloo.RateLimitVhostExtension | gloo.RateLimitRouteExtension, scope: Scope) -> Patch:
    if limits.local_ratelimit is not None:
        scope.error(BUCKET, "is counted before authorization; it goes under ratelimit")
    return Patch()


def limited(
    bucket: gloo.TokenBucket, settings: gloo.LocalRateLimitSettings, where: str, scope: Scope
) -> http_local_limit.LocalRateLimit:
    headers = HEADERS.DRAFT_VERSION_03 if settings.enable_xratelimit_headers else HEADERS.OFF
    return http_local_limit.LocalRateLimit(
        stat_prefix=STAT_PREFIX,
        token_bucket=token_bucket(bucket, where, scope),
        filter_enabled=ALWAYS,
        filter_enforced=ALWAYS,
        local_rate_limit_per_downstream_connection=bool(settings.local_rate_limit_per_downstream_connection),
        enable_x_ratelimit_headers=headers,
    )


def token_bucket(bucket: gloo.TokenBucket, where: str, scope: Scope) -> envoy_type.TokenBucket:
    if bucket.max_tokens < 1:
        scope.error(join(where, "maxTokens"), "must be more than 0")
    if bucket.tokens_per_fill == 0:
        scope.error(join(where, "tokensPerFill"), "must be more than 0")
    interval = timedelta(seconds=1) if bucket.fill_interval is None else bucket.fill_interval
    if interval < SHORTEST:
        scope.error(join(where, "fillInterval"), "must be 50ms or more")
    elif problem := checks.duration(interval):
        scope.error(join(where, "fillInterval"), problem)
    return envoy_type.TokenBucket(
        max_tokens=bucket.max_tokens, tokens_per_fill=bucket.tokens_per_fill, fill_interval=interval
    )


READS = {
    "RateLimitVhostExtension": (BUCKET,),
    "RateLimitRouteExtension": (BUCKET,),
    "TokenBucket": ALL,
}
LOOKS_AT = {"HttpListenerOptions": ("httpLocalRatelimit",)}
FEATURES = (
    Feature(
        name="httpLocalRatelimit",
        reads={"LocalRateLimitSettings": ALL},
        on_listener=limit_listener,
        filter=HttpFilter(
            name=FILTER,
            stage=Stage.AUTHN,
            weight=-1,
            config=http_local_limit.LocalRateLimit(stat_prefix=STAT_PREFIX),
        ),
    ),
    Feature(
        name="ratelimit", reads=READS, looks_at=LOOKS_AT, on_virtual_host=limit_here, on_route=limit_here
    ),
    Feature(name="ratelimitEarly", on_virtual_host=limit_here, on_route=limit_here),
    Feature(name="ratelimitRegular", on_virtual_host=refuse_late, on_route=refuse_late),
)
