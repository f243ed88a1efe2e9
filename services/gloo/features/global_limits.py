"""Global rate limits: a service is told of each request and says whether it is one too many.

Two filters stand in the listeners that have such a service, one before authorization and one after it, and
each minds the limits of its own stage. So where a limit is counted is a matter of routes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from protos import gloo
from protos.envoy import core, envoy_metadata, envoy_type, http_limit, limit_service, matcher, route
from services.gloo import checks
from services.gloo.features.asked_services import asked_over_grpc, patience
from services.gloo.plugin import ALL, Feature, HttpFilter, Patch, Scope, Stage, within
from services.gloo.values import regex_matcher
from shared.codec.wellknown import dict_of

EARLY, LATE = "gloo.ratelimit.early", "envoy.filters.http.ratelimit"
PLACES = {EARLY: (Stage.AUTHN, -1), LATE: (Stage.RATE_LIMIT, 0)}
STAGES = {EARLY: 3, LATE: 1}  # of Envoy's limits, as Gloo numbers them
DOMAIN = "custom"
TIMEOUT = timedelta(milliseconds=100)
HEADERS = http_limit.RateLimitXRateLimitHeadersRfcVersion
OF_HOST = http_limit.RateLimitPerRouteVhRateLimitsOptions
SOURCES = {source.name: source for source in route.RateLimitActionMetaDataSource}
LIMITS = "rateLimits"

Given = gloo.RateLimitVhostExtension | gloo.RateLimitRouteExtension


def stand_ready(given: gloo.RateLimitServerSettings, scope: Scope) -> Patch:
    if scope.options.ratelimit_server is None:
        scope = replace(scope, path="settings.ratelimitServer")
    authority = given.grpc_service.authority if given.grpc_service is not None else ""
    timeout = patience(given.request_timeout, TIMEOUT, scope)
    headers = HEADERS.DRAFT_VERSION_03 if given.enable_x_ratelimit_headers else HEADERS.OFF
    service = asked_over_grpc(given.ratelimit_server_ref, "ratelimitServerRef", authority, timeout, scope)
    limit = http_limit.RateLimit(
        domain=DOMAIN,
        timeout=timeout,
        failure_mode_deny=given.deny_on_fail,
        enable_x_ratelimit_headers=headers,
        rate_limit_service=limit_service.RateLimitServiceConfig(
            grpc_service=service, transport_api_version=core.ApiVersion.V3
        ),
    )
    return Patch(
        waiting=tuple(
            HttpFilter(name=name, stage=stage, weight=weight, config=replace(limit, stage=STAGES[name]))
            for name, (stage, weight) in PLACES.items()
        )
    )


def limit(when: Callable[[Scope], str], given: Given, scope: Scope) -> Patch:
    """The limits of a virtual host or route, for the filter that *when* tells."""
    if not given.rate_limits:
        return Patch()
    if server(scope) is None:
        scope.warn(LIMITS, "no service to ask (settings.ratelimitServer), so requests are not limited")
    name = when(scope)
    found = [
        translate_limit(each, STAGES[name], within(scope, f"{LIMITS}[{i}]"))
        for i, each in enumerate(given.rate_limits)
    ]
    if isinstance(given, gloo.RateLimitVhostExtension):
        # Else a route with limits of the other filter only would have none of the host's.
        included = http_limit.RateLimitPerRoute(vh_rate_limits=OF_HOST.INCLUDE)
        return Patch(fields={"rate_limits": found}, filters={name: included})
    if not scope.forwards:
        scope.warn(LIMITS, "has no effect on a route that answers by itself")
        return Patch()
    of_host = OF_HOST.INCLUDE if given.include_vh_rate_limits else OF_HOST.OVERRIDE
    own = http_limit.RateLimitPerRoute(vh_rate_limits=of_host)
    return Patch(action={"rate_limits": found}, filters={name: own})


def server(scope: Scope) -> gloo.RateLimitServerSettings | None:
    """The service of the listener around."""
    return scope.listener.ratelimit_server or scope.policy.ratelimit_server


def as_the_server_says(scope: Scope) -> str:
    asked = server(scope)
    return EARLY if asked is not None and asked.rate_limit_before_auth else LATE


def translate_limit(given: gloo.RateLimitActions, stage: int, scope: Scope) -> route.RateLimit:
    if not given.actions and not given.set_actions:
        scope.error("actions", "needs at least one")
    actions = [translate_action(each, within(scope, f"actions[{i}]")) for i, each in enumerate(given.actions)]
    return route.RateLimit(stage=stage, actions=actions)


def translate_action(given: gloo.RateLimitAction, scope: Scope) -> route.RateLimitAction:
    out = route.RateLimitAction()
    if given.source_cluster is not None:
        out.source_cluster = route.RateLimitActionSourceCluster()
    elif given.destination_cluster is not None:
        out.destination_cluster = route.RateLimitActionDestinationCluster()
    elif given.remote_address is not None:
        out.remote_address = route.RateLimitActionRemoteAddress()
    elif given.request_headers is not None:
        out.request_headers = header_value(given.request_headers, within(scope, "requestHeaders"))
    elif given.generic_key is not None:
        required("genericKey.descriptorValue", given.generic_key.descriptor_value, scope)
        out.generic_key = route.RateLimitActionGenericKey(descriptor_value=given.generic_key.descriptor_value)
    elif given.header_value_match is not None:
        out.header_value_match = header_match(given.header_value_match, within(scope, "headerValueMatch"))
    elif given.metadata is not None:
        out.metadata = metadata(given.metadata, within(scope, "metadata"))
    else:
        text = (
            "sourceCluster, destinationCluster, requestHeaders, remoteAddress, genericKey, headerValueMatch"
        )
        scope.error("", f"no action; one of {text}, metadata")
    return out


def required(where: str, value: str, scope: Scope) -> None:
    if not value:
        scope.error(where, "required")


def header_value(
    given: gloo.RateLimitActionRequestHeaders, scope: Scope
) -> route.RateLimitActionRequestHeaders:
    if problem := checks.header_name(given.header_name, pseudo=True):
        scope.error("headerName", problem)
    required("descriptorKey", given.descriptor_key, scope)
    return route.RateLimitActionRequestHeaders(
        header_name=given.header_name, descriptor_key=given.descriptor_key
    )


def header_match(
    given: gloo.RateLimitActionHeaderValueMatch, scope: Scope
) -> route.RateLimitActionHeaderValueMatch:
    required("descriptorValue", given.descriptor_value, scope)
    if not given.headers:
        scope.error("headers", "needs at least one")
    return route.RateLimitActionHeaderValueMatch(
        descriptor_value=given.descriptor_value,
        expect_match=given.expect_match,
        headers=[
            header_matcher(each, within(scope, f"headers[{i}]")) for i, each in enumerate(given.headers)
        ],
    )


def header_matcher(given: gloo.RateLimitHeaderMatcher, scope: Scope) -> route.HeaderMatcher:
    if problem := checks.header_name(given.name, pseudo=True):
        scope.error("name", problem)
    out = route.HeaderMatcher(name=given.name, invert_match=given.invert_match)
    texts = {kind: getattr(given, f"{kind}_match") for kind in ("exact", "prefix", "suffix")}
    if set_one := [(kind, text) for kind, text in texts.items() if text is not None]:
        [(kind, text)] = set_one
        if problem := checks.text_value(text):
            scope.error(f"{kind}Match", problem)
        elif not text and kind != "exact":
            scope.error(f"{kind}Match", "empty, so it would match everything")
        out.string_match = matcher.StringMatcher(**{kind: text})
    elif given.regex_match is not None:
        regex = regex_matcher(given.regex_match, "regexMatch", scope)
        out.string_match = matcher.StringMatcher(safe_regex=regex)
    elif given.range_match is not None:
        start, end = given.range_match.start, given.range_match.end
        if start >= end:
            scope.error("rangeMatch", f"{start} to {end} is no range; end is the number after the last")
        out.range_match = envoy_type.Int64Range(start=start, end=end)
    elif given.present_match is not None:
        out.present_match = given.present_match
    else:
        kinds = "exactMatch, regexMatch, rangeMatch, presentMatch, prefixMatch"
        scope.error("", f"nothing to match; one of {kinds}, suffixMatch")
    return out


def metadata(given: gloo.RateLimitActionMetaData, scope: Scope) -> route.RateLimitActionMetaData:
    required("descriptorKey", given.descriptor_key, scope)
    if given.source and given.source not in SOURCES:
        scope.error("source", f"{checks.shown(given.source)} is none of {', '.join(SOURCES)}")
    return route.RateLimitActionMetaData(
        descriptor_key=given.descriptor_key,
        metadata_key=metadata_key(dict_of(given.metadata_key) if given.metadata_key else {}, scope),
        default_value=given.default_value,
        source=SOURCES.get(given.source, route.RateLimitActionMetaDataSource.DYNAMIC),
    )


def metadata_key(given: dict[str, Any], scope: Scope) -> envoy_metadata.MetadataKey | None:
    match given:
        case {"key": str(key), "path": [_, *_] as steps, **others} if key and not others:
            names = [step["key"] for step in steps if is_step(step)]
            if len(names) == len(steps):
                path = [envoy_metadata.MetadataKeyPathSegment(key=name) for name in names]
                return envoy_metadata.MetadataKey(key=key, path=path)
    scope.error("metadataKey", "must be {key: …, path: [{key: …}]}")
    return None


def is_step(step: object) -> bool:
    match step:
        case {"key": str(key), **others}:
            return bool(key) and not others
    return False


def limits(name: str, when: Callable[[Scope], str]) -> Feature:
    hook = partial(limit, when)
    looks_at = {"HttpListenerOptions": ("ratelimitServer",)}
    return Feature(name=name, looks_at=looks_at, on_virtual_host=hook, on_route=hook)


KINDS = ("RequestHeaders", "GenericKey", "HeaderValueMatch", "MetaData")
READS = {
    "RateLimitServerSettings": ALL,
    "RateLimitServerSettings.GrpcService": ALL,
    "RateLimitVhostExtension": (LIMITS,),
    "RateLimitRouteExtension": (LIMITS, "includeVhRateLimits"),
    "RateLimitActions": ("actions",),
    "RateLimitAction": ALL,
    **{f"RateLimitAction.{kind}": ALL for kind in KINDS},
    "RateLimitHeaderMatcher": ALL,
    "RateLimitHeaderMatcher.Int64Range": ALL,
}
FEATURES = (
    Feature(
        name="ratelimitServer",
        reads=READS,
        default=lambda policy: policy.ratelimit_server,
        on_listener=stand_ready,
    ),
    limits("ratelimit", as_the_server_says),
    limits("ratelimitEarly", lambda _: EARLY),
    limits("ratelimitRegular", lambda _: LATE),
)
