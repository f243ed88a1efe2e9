"""The router: the last filter, which forwards requests, and whether it tells and counts what it does."""

from __future__ import annotations

from protos import gloo
from protos.envoy import hcm, router, upstream_codec
from services.gloo.features.transformations import POST_ROUTING, SCRIPTS
from services.gloo.plugin import ALL, Feature, HttpFilter, Patch, Policy, Scope, Stage
from shared.codec.encode import pack

ROUTER = "envoy.filters.http.router"
CODEC = "envoy.filters.http.upstream_codec"  # ends the way of a request
BEHIND = [
    SCRIPTS[POST_ROUTING].filter,
    hcm.HttpFilter(name=CODEC, typed_config=pack(upstream_codec.UpstreamCodec())),
]


def forward(options: gloo.Router, scope: Scope) -> Patch:
    found = router.Router(
        suppress_envoy_headers=bool(options.suppress_envoy_headers),
        dynamic_stats=options.dynamic_stats,
        upstream_http_filters=BEHIND,
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
