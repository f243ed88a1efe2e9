"""Shadowing: copies of a share of the requests go to other upstreams, whose answers are dropped."""

from __future__ import annotations

from collections.abc import Sequence

from protos import gloo
from protos.envoy import core, route
from services.gloo.plugin import ALL, Feature, Patch, Scope, within
from services.gloo.translator.names import cluster_name, ref_of
from services.gloo.values import percentage


def copy_requests(wanted: gloo.RouteShadowing, scope: Scope) -> Patch:
    return copy_to([(wanted, scope)])


def copy_to_all(wanted: Sequence[gloo.RouteShadowing], scope: Scope) -> Patch:
    return copy_to([(each, within(scope, f"[{i}]")) for i, each in enumerate(wanted)])


def copy_to(wanted: Sequence[tuple[gloo.RouteShadowing, Scope]]) -> Patch:
    """A copy to an upstream that is not there would be lost in Envoy, too; here it is told of."""
    mirrors: list[route.RouteActionRequestMirrorPolicy] = []
    for each, scope in wanted:
        fraction = percentage(each.percentage, "percentage", scope)
        if each.upstream is None:
            scope.error("upstream", "required")
            continue
        ref = ref_of(each.upstream)
        if scope.read("Upstream", ref) is None:
            scope.warn("upstream", f"*v1.Upstream {{ {ref} }} not found, so nothing is copied")
            continue
        mirrors.append(
            route.RouteActionRequestMirrorPolicy(
                cluster=cluster_name(ref),
                runtime_fraction=core.RuntimeFractionalPercent(default_value=fraction),
                disable_shadow_host_suffix_append=each.disable_shadow_host_suffix_append,
            )
        )
    if not mirrors:
        return Patch()
    clusters = tuple(each.cluster for each in mirrors)
    return Patch(action={"request_mirror_policies": mirrors}, clusters=clusters)


FEATURES = (
    Feature(name="shadowing", reads={"RouteShadowing": ALL}, on_route=copy_requests),
    Feature(name="mirrors", on_route=copy_to_all),
)
