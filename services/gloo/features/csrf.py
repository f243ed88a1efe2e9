"""CSRF: refuses requests that change something and that another site made the browser send."""

from __future__ import annotations

from protos import gloo
from protos.envoy import csrf
from services.gloo.plugin import ALL, Feature, HttpFilter, Patch, Scope, Stage
from services.gloo.values import ALWAYS, NEVER, share, text_matcher

FILTER = "envoy.filters.http.csrf"


def refuse(policy: gloo.CsrfPolicy, scope: Scope) -> Patch:
    """The same policy on a listener, a virtual host, a route and a destination; the innermost counts."""
    enabled, shadow = policy.filter_enabled, policy.shadow_enabled
    found = csrf.CsrfPolicy(
        filter_enabled=ALWAYS if enabled is None else share(enabled, "filterEnabled", scope),
        shadow_enabled=None if shadow is None else share(shadow, "shadowEnabled", scope),
    )
    for i, origin in enumerate(policy.additional_origins):
        if (match := text_matcher(origin, f"additionalOrigins[{i}]", scope)) is not None:
            found.additional_origins.append(match)
    return Patch(filters={FILTER: found})


FEATURES = (
    Feature(
        name="csrf",
        reads={
            "CsrfPolicy": ALL,
            "RuntimeFractionalPercent": ALL,
            "FractionalPercent": ALL,
            "StringMatcher": ALL,
        },
        on_listener=refuse,
        on_virtual_host=refuse,
        on_route=refuse,
        on_destination=refuse,
        filter=HttpFilter(name=FILTER, stage=Stage.ROUTE, config=csrf.CsrfPolicy(filter_enabled=NEVER)),
    ),
)
