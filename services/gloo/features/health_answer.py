"""A health check's answer: a path on which Envoy tells load balancers how it is itself."""

from __future__ import annotations

from protos import gloo
from protos.envoy import health_check, matcher, route
from services.gloo import checks
from services.gloo.plugin import ALL, Feature, HttpFilter, Patch, Scope, Stage

FILTER = "envoy.filters.http.health_check"


def answer(wanted: gloo.ListenerHealthCheck, scope: Scope) -> Patch:
    if not wanted.path.startswith("/"):
        scope.error("path", f"{checks.shown(wanted.path)} must begin with /")
    elif problem := checks.text_value(wanted.path, checks.MAX_PATH):
        scope.error("path", problem)
    path = route.HeaderMatcher(name=":path", string_match=matcher.StringMatcher(exact=wanted.path))
    return Patch(filters={FILTER: health_check.HealthCheck(pass_through_mode=False, headers=[path])})


FEATURES = (
    Feature(
        name="healthCheck",
        reads={"ListenerHealthCheck": ALL},
        on_listener=answer,
        filter=HttpFilter(
            name=FILTER,
            stage=Stage.AUTHZ,
            weight=1,
            config=health_check.HealthCheck(pass_through_mode=False),
        ),
    ),
)
