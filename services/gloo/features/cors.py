"""CORS: which other sites' pages may use a route, and what of its answers they get to see.

Envoy itself takes from the virtual host's policy what the route's leaves out, field by field, which is how
Gloo puts them together. Only a union of both is made here. Its filter passes over routes that answer by
themselves, so those get the headers as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

from protos import gloo
from protos.envoy import core, cors, matcher
from services.gloo import checks
from services.gloo.plugin import ALL, Feature, HttpFilter, Patch, Scope, Stage
from services.gloo.values import NEVER, regex_matcher

FILTER = "envoy.filters.http.cors"
UNION = gloo.CorsPolicyMergeSettingsMergeStrategy.UNION


def allow_on_host(policy: gloo.CorsPolicy, scope: Scope) -> Patch:
    if policy.disable_for_route:
        scope.warn("disableForRoute", "has no effect here; it is for the routes of a virtual host with cors")
    return Patch(filters={FILTER: translate(policy, policy.expose_headers, scope)})


def allow_on_route(policy: gloo.CorsPolicy, scope: Scope) -> Patch:
    if policy.disable_for_route:
        return Patch(filters={FILTER: cors.CorsPolicy(filter_enabled=NEVER)})
    exposed = policy.expose_headers
    merge = scope.host.cors_policy_merge_settings
    if merge is not None and merge.expose_headers == UNION and scope.host.cors is not None:
        exposed = list(dict.fromkeys((*scope.host.cors.expose_headers, *exposed)))
    found = translate(policy, exposed, scope)
    if scope.forwards:
        return Patch(filters={FILTER: found})
    if len(policy.allow_origin) != 1 or policy.allow_origin_regex:
        scope.warn("", "has no effect on a route that answers by itself, unless it is for one origin, or *")
        return Patch()
    return Patch(fields={"response_headers_to_add": fixed_headers(policy.allow_origin[0], found)})


def translate(policy: gloo.CorsPolicy, exposed: Sequence[str], scope: Scope) -> cors.CorsPolicy:
    host = scope.host.cors or gloo.CorsPolicy()
    if not any((policy.allow_origin, policy.allow_origin_regex, host.allow_origin, host.allow_origin_regex)):
        scope.error("", "allows no origin; name one in allowOrigin or allowOriginRegex")
    for i, origin in enumerate(policy.allow_origin):
        check_origin(origin, f"allowOrigin[{i}]", scope)
    for i, method in enumerate(policy.allow_methods):
        if method != "*" and not checks.TOKEN.fullmatch(method):
            scope.error(f"allowMethods[{i}]", f"{checks.shown(method)} is no method")
    for name, headers in (("allowHeaders", policy.allow_headers), ("exposeHeaders", policy.expose_headers)):
        for i, header in enumerate(headers):
            if header != "*" and (problem := checks.header_name(header)):
                scope.error(f"{name}[{i}]", problem)
    if problem := checks.text_value(policy.max_age):
        scope.error("maxAge", problem)
    elif policy.max_age and not policy.max_age.removeprefix("-").isdecimal():
        scope.warn("maxAge", f"{checks.shown(policy.max_age)} is no number of seconds, so browsers ignore it")
    patterns = [
        regex_matcher(regex, f"allowOriginRegex[{i}]", scope)
        for i, regex in enumerate(policy.allow_origin_regex)
    ]
    return cors.CorsPolicy(
        allow_origin_string_match=[
            *(matcher.StringMatcher(exact=origin) for origin in policy.allow_origin),
            *(matcher.StringMatcher(safe_regex=pattern) for pattern in patterns),
        ],
        allow_methods=",".join(policy.allow_methods),
        allow_headers=",".join(policy.allow_headers),
        expose_headers=",".join(exposed),
        max_age=policy.max_age,
        allow_credentials=policy.allow_credentials or None,
    )


def fixed_headers(origin: str, policy: cors.CorsPolicy) -> list[core.HeaderValueOption]:
    values = {
        "origin": origin,
        "methods": policy.allow_methods,
        "headers": policy.allow_headers,
        "credentials": "true" if policy.allow_credentials else "",
    }
    headers = {f"access-control-allow-{name}": value for name, value in values.items()}
    headers |= {
        "access-control-expose-headers": policy.expose_headers,
        "access-control-max-age": policy.max_age,
    }
    return [
        core.HeaderValueOption(
            header=core.HeaderValue(key=name, value=value.replace("%", "%%")),
            append_action=core.HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
        )
        for name, value in headers.items()
        if value
    ]


def check_origin(origin: str, where: str, scope: Scope) -> None:
    if not origin:
        scope.error(where, "an empty origin")
    elif problem := checks.text_value(origin):
        scope.error(where, problem)
    elif origin not in ("*", "null") and (":" not in origin or "/" in origin.partition("://")[2]):
        scope.warn(where, f"{checks.shown(origin)} is no origin, such as https://example.com; never matches")


def merge(settings: gloo.CorsPolicyMergeSettings, scope: Scope) -> Patch:
    """Its work is done on the routes."""
    if scope.options.cors is None:
        scope.warn("", "has no effect without cors")
    return Patch()


FEATURES = (
    Feature(
        name="cors",
        reads={"CorsPolicy": ALL},
        looks_at={"VirtualHostOptions": ("cors", "corsPolicyMergeSettings")},
        on_route=allow_on_route,
        on_virtual_host=allow_on_host,
        filter=HttpFilter(name=FILTER, stage=Stage.CORS, config=cors.Cors()),
    ),
    Feature(name="corsPolicyMergeSettings", reads={"CorsPolicyMergeSettings": ALL}, on_virtual_host=merge),
)
