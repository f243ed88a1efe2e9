"""Rewrites: the path's prefix and the host that the upstream gets to see."""

from __future__ import annotations

from services.gloo import checks
from services.gloo.plugin import Feature, Patch, Scope


def rewrite_prefix(prefix: str, scope: Scope) -> Patch:
    if problem := checks.text_value(prefix, checks.MAX_PATH):
        scope.error("", problem)
    if not prefix:
        scope.warn("", "empty, so the path stays as it is; write / to strip the prefix")
        return Patch()
    if any(matcher.regex is not None for matcher in scope.matchers):
        scope.warn("", "replaces the whole path, because the matcher is a regex")
    return Patch(action={"prefix_rewrite": prefix})


def rewrite_host(host: str, scope: Scope) -> Patch:
    if not host:
        scope.warn("", "empty, so the host stays as it is")
        return Patch()
    if problem := checks.authority(host):
        scope.error("", problem)
    return Patch(action={"host_rewrite_literal": host})


def rewrite_host_to_upstreams(wanted: bool, scope: Scope) -> Patch:
    return Patch(action={"auto_host_rewrite": wanted})


FEATURES = (
    Feature(name="prefixRewrite", on_route=rewrite_prefix),
    Feature(name="hostRewrite", on_route=rewrite_host),
    Feature(name="autoHostRewrite", on_route=rewrite_host_to_upstreams),
)
