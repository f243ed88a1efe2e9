"""Destinations: the clusters a route sends its requests to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from protos import gloo
from protos.envoy import core, route
from services.gloo import checks
from services.gloo.plugin import Policy, Reader, Scope, within
from services.gloo.translator.consul import (
    LOAD_BALANCER,
    SUBSET_KEY,
    ConsulSelection,
    destination_cluster_name,
    destination_selection,
    subset_keys,
    subset_value,
)
from services.gloo.translator.functions import Filters, filters_to
from services.gloo.translator.names import FALLBACK_CLUSTER, cluster_name, ref_of
from services.gloo.translator.patches import join_patches
from services.gloo.translator.supported import refuse_unread
from shared.codec.wellknown import struct_of
from shared.ref import Ref
from shared.report import Report, join

MAX_WEIGHT = 2**32 - 1


@dataclass(slots=True, kw_only=True)
class Found:
    """What routes refer to, gathered along the way."""

    clusters: set[str] = field(default_factory=set)
    selections: set[ConsulSelection] = field(default_factory=set)

    def add(self, other: Found) -> None:
        self.clusters |= other.clusters
        self.selections |= other.selections


def translate_action(
    action: gloo.RouteAction, scope: Scope, found: Found, filters: Filters | None = None
) -> dict[str, Any]:
    """The fields of Envoy's RouteAction that say where requests go.

    What HTTP filters are to do there goes to *filters*; without it connections are not of HTTP.
    """
    if filters is None and any(each.destination_spec is not None for each in destinations_of(action)):
        scope.error("", "destinationSpec calls a function, which is done over HTTP only")
    if action.single is not None:
        at = within(scope, "single")
        cluster, subset = translate_destination(action.single, at, found)
        if filters is not None:
            filters |= filters_to(action.single, at)
        return {"cluster": cluster, "metadata_match": subset}
    if action.multi is not None:
        members = action.multi.destinations
        return {"weighted_clusters": weighted(members, within(scope, "multi.destinations"), found)}
    if action.upstream_group is not None:
        return expand_group(ref_of(action.upstream_group), within(scope, "upstreamGroup"), found)
    if action.cluster_header is not None:
        if problem := checks.header_name(action.cluster_header, pseudo=True):
            scope.error("clusterHeader", problem)
        return {"cluster_header": action.cluster_header}
    known = "single, multi, upstreamGroup, clusterHeader, dynamicForwardProxy"
    scope.error("", f"no destination; one of {known}")
    return {}


def destinations_of(action: gloo.RouteAction) -> list[gloo.Destination]:
    """Those that stand in *action* itself."""
    members = action.multi.destinations if action.multi is not None else []
    return [each for each in (action.single, *(one.destination for one in members)) if each is not None]


def expand_group(ref: Ref, scope: Scope, found: Found) -> dict[str, Any]:
    """A group's members as if they stood in the route; the group's own mistakes are reported on the group."""
    group = scope.read("UpstreamGroup", ref)
    if group is None:
        scope.warn("", f"*v1.UpstreamGroup {{ {ref} }} not found")
        return {"cluster": missing_cluster(f"upstream-group:{cluster_name(ref)}", scope.policy, found)}
    inner = Report()
    refuse_unread(group, inner)
    clusters = weighted(members_of(group), replace(scope, path="destinations", report=inner), found)
    for problem in (*inner.errors, *inner.warnings):
        scope.warn("", f"UpstreamGroup {ref}: {problem}")
    if inner.errors:
        return {"cluster": missing_cluster(f"upstream-group:{cluster_name(ref)}", scope.policy, found)}
    return {"weighted_clusters": clusters}


def members_of(group: gloo.UpstreamGroup) -> list[gloo.WeightedDestination]:
    """A group's members; an upstream without a namespace is in the group's own."""
    namespace, members = group.metadata.namespace if group.metadata else "", []
    for member in group.destinations:
        to = member.destination
        if to is not None and to.upstream is not None and not to.upstream.namespace:
            filled = replace(to, upstream=replace(to.upstream, namespace=namespace))
            member = replace(member, destination=filled)
        members.append(member)
    return members


def weighted(
    members: Sequence[gloo.WeightedDestination], scope: Scope, found: Found
) -> route.WeightedCluster:
    total = sum(member.weight or 0 for member in members)
    if not members:
        scope.error("", "needs at least one destination")
    elif total == 0:
        scope.error("", "all weights are 0, so no destination would get a request")
    elif total > MAX_WEIGHT:
        scope.error("", f"the weights sum up to more than {MAX_WEIGHT}")
    clusters = []
    for i, member in enumerate(members):
        at = within(scope, f"[{i}].destination")
        if member.destination is None:
            at.error("", "required")
            continue
        cluster, subset = translate_destination(member.destination, at, found)
        out = route.WeightedClusterClusterWeight(
            name=cluster, weight=member.weight or 0, metadata_match=subset
        )
        patch = join_patches("on_destination", member.options, within(scope, f"[{i}].options"))
        patch.filters |= filters_to(member.destination, at)
        patch.write(out)
        found.clusters |= patch.clusters
        clusters.append(out)
    return route.WeightedCluster(clusters=clusters)


def translate_destination(
    destination: gloo.Destination, scope: Scope, found: Found
) -> tuple[str, core.Metadata | None]:
    """The cluster's name, and the subset of it that is wanted."""
    if destination.upstream is not None:
        ref = ref_of(destination.upstream)
        upstream = scope.read("Upstream", ref)
        subset = translate_subset(destination.subset, upstream, scope)
        if upstream is not None:
            name = cluster_name(ref)
            found.clusters.add(name)
            return name, subset
        scope.warn("upstream", f"*v1.Upstream {{ {ref} }} not found")
        return missing_cluster(cluster_name(ref), scope.policy, found), subset
    if destination.consul is not None:
        if not destination.consul.service_name:
            scope.error("consul.serviceName", "required")
        if destination.subset is not None:
            scope.error("subset", "goes with an upstream; a consul destination has tags")
        selection = destination_selection(destination.consul)
        name = destination_cluster_name(selection)
        found.selections.add(selection)
        found.clusters.add(name)
        return name, None
    if destination.kube is None:
        scope.error("", "no destination; one of upstream, consul")
    return "", None


def missing_cluster(name: str, policy: Policy, found: Found) -> str:
    """What takes the place of a cluster that does not exist: Envoy answers 503, or the fallback answers."""
    chosen = FALLBACK_CLUSTER if policy.replace_invalid_routes else name
    found.clusters.add(chosen)
    return chosen


def translate_subset(
    subset: gloo.Subset | None, upstream: gloo.Upstream | None, scope: Scope
) -> core.Metadata | None:
    if subset is None or not subset.values:
        return None
    if upstream is not None and frozenset(subset.values) not in set(subset_keys(upstream).choices()):
        known = " or ".join(", ".join(sorted(keys)) for keys in subset_keys(upstream).choices())
        scope.warn("subset", f"the upstream has no such subset; its keys are {known or 'none'}")
    wanted = struct_of({SUBSET_KEY: subset_value(subset.values)})
    return core.Metadata(filter_metadata={LOAD_BALANCER: wanted})


def translate_group(group: gloo.UpstreamGroup, read: Reader, policy: Policy) -> Report:
    """What is wrong with a group by itself; a missing member is an error of the group."""
    report = Report()
    refuse_unread(group, report)
    scope = Scope(path="destinations", report=report, policy=policy, read=read)
    weighted(members_of(group), scope, Found())
    missing = [problem for problem in report.warnings if problem.text.endswith("not found")]
    for problem in missing:
        report.warnings.remove(problem)
        report.error(join(problem.path, ""), problem.text)
    return report
