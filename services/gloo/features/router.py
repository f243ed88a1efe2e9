"""The router: the last filter, which forwards requests, and whether it tells and counts what it does."""

from __future__ import annotations

from protos import gloo
from protos.envoy import router
from services.gloo.plugin import ALL, Feature, HttpFilter, Patch, Policy, Scope, Stage

ROUTER = "envoy.filters.http.router"


def forward(options: gloo.Router, scope: Scope) -> Patch:
    found = router.Router(
        suppress_envoy_headers=bool(options.suppress_envoy_headers), dynamic_stats=options.dynamic_stats
    )
    return Patch(filters={ROUTER: found})


def default(policy: Policy) -> gloo.Router:
    """No listener is without it."""
    return gloo.Router()


FEATURES = (
    Feature(
        name="router",
        reads={"Router": ALL},
        default=default,
        on_listener=forward,
        filter=HttpFilter(name=ROUTER, stage=Stage.ROUTER, config=router.Router()),
    ),
)
