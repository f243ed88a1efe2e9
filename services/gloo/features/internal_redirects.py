"""Internal redirects: Envoy follows where an upstream sends the client, and routes the request anew."""

from __future__ import annotations

from protos import gloo
from protos.envoy import route
from services.gloo import checks
from services.gloo.plugin import ALL, Feature, Patch, Scope

CODES = (301, 302, 303, 307, 308)


def follow(wanted: gloo.InternalRedirects, scope: Scope) -> Patch:
    if wanted.max_redirects == 0:
        scope.error("maxRedirects", "must be 1 or more")
    for i, code in enumerate(wanted.codes):
        if code not in CODES:
            scope.error(f"codes[{i}]", f"{code} is none of {', '.join(map(str, CODES))}")
    if len(set(wanted.codes)) < len(wanted.codes):
        scope.error("codes", "names one of them twice")
    names = [name.lower() for name in wanted.headers_to_copy]
    for i, name in enumerate(names):
        if problem := checks.header_name(name):
            scope.error(f"headersToCopy[{i}]", problem)
        elif name == "host" or name.startswith(":"):
            scope.error(f"headersToCopy[{i}]", "where a request goes is said by location alone")
    if len(set(names)) < len(names):
        scope.error("headersToCopy", "names one of them twice")
    policy = route.InternalRedirectPolicy(
        max_internal_redirects=wanted.max_redirects,
        redirect_response_codes=sorted(wanted.codes),
        allow_cross_scheme_redirect=wanted.allow_cross_scheme,
        response_headers_to_copy=names,
    )
    return Patch(action={"internal_redirect_policy": policy})


FEATURES = (Feature(name="internalRedirects", reads={"InternalRedirects": ALL}, on_route=follow),)
