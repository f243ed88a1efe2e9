"""Shadowing: copies of a share of the requests go to another upstream, whose answers are dropped."""

from __future__ import annotations

from protos import gloo
from protos.envoy import core, route
from services.gloo.plugin import ALL, Feature, Patch, Scope
from services.gloo.translator.names import cluster_name, ref_of
from services.gloo.values import percentage


def copy_requests(wanted: gloo.RouteShadowing, scope: Scope) -> Patch:
    """A copy to an upstream that is not there would be lost in Envoy, too; here it is told of."""
    fraction = percentage(wanted.percentage, "percentage", scope)
    if wanted.upstream is None:
        scope.error("upstream", "required")
        return Patch()
    ref = ref_of(wanted.upstream)
    if scope.read("Upstream", ref) is None:
        scope.warn("upstream", f"*v1.Upstream {{ {ref} }} not found, so nothing is copied")
        return Patch()
    cluster = cluster_name(ref)
    mirror = route.RouteActionRequestMirrorPolicy(
        cluster=cluster,
        runtime_fraction=core.RuntimeFractionalPercent(default_value=fraction),
        disable_shadow_host_suffix_append=wanted.disable_shadow_host_suffix_append,
    )
    return Patch(action={"request_mirror_policies": [mirror]}, clusters=(cluster,))


FEATURES = (Feature(name="shadowing", reads={"RouteShadowing": ALL}, on_route=copy_requests),)
