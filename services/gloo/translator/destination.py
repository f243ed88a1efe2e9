"""Destinations: the clusters a route sends its requests to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from protos import gloo
from protos.envoy import core, route
from services.gloo import checks
from services.gloo.plugin import Policy, Reader, Scope
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
    action: gloo.RouteAction,
    path: str,
    read: Reader,
    policy: Policy,
    report: Report,
    found: Found,
    filters: Filters | None = None,
) -> dict[str, Any]:
    """The fields of Envoy's RouteAction that say where requests go.

    What HTTP filters are to do there goes to *filters*; without it connections are not of HTTP.
    """
    if filters is None and any(each.destination_spec is not None for each in destinations_of(action)):
        report.error(path, "destinationSpec calls a function, which is done over HTTP only")
    if action.single is not None:
        at = f"{path}.single"
        cluster, subset = translate_destination(action.single, at, read, policy, report, found)
        if filters is not None:
            filters |= filters_to(action.single, Scope(path=at, report=report, policy=policy, read=read))
        return {"cluster": cluster, "metadata_match": subset}
    if action.multi is not None:
        members = action.multi.destinations
        at = f"{path}.multi.destinations"
        return {"weighted_clusters": weighted(members, at, read, policy, report, found)}
    if action.upstream_group is not None:
        ref = ref_of(action.upstream_group)
        return expand_group(ref, f"{path}.upstreamGroup", read, policy, report, found)
    if action.cluster_header is not None:
        if problem := checks.header_name(action.cluster_header, pseudo=True):
            report.error(f"{path}.clusterHeader", problem)
        return {"cluster_header": action.cluster_header}
    known = "single, multi, upstreamGroup, clusterHeader, dynamicForwardProxy"
    report.error(path, f"no destination; one of {known}")
    return {}


def destinations_of(action: gloo.RouteAction) -> list[gloo.Destination]:
    """Those that stand in *action* itself."""
    members = action.multi.destinations if action.multi is not None else []
    return [each for each in (action.single, *(one.destination for one in members)) if each is not None]


def expand_group(
    ref: Ref, path: str, read: Reader, policy: Policy, report: Report, found: Found
) -> dict[str, Any]:
    """A group's members as if they stood in the route; the group's own mistakes are reported on the group."""
    group = read("UpstreamGroup", ref)
    if group is None:
        report.warn(path, f"*v1.UpstreamGroup {{ {ref} }} not found")
        return {"cluster": missing_cluster(f"upstream-group:{cluster_name(ref)}", policy, found)}
    inner = Report()
    refuse_unread(group, inner)
    clusters = weighted(members_of(group), "destinations", read, policy, inner, found)
    for problem in (*inner.errors, *inner.warnings):
        report.warn(path, f"UpstreamGroup {ref}: {problem}")
    if inner.errors:
        return {"cluster": missing_cluster(f"upstream-group:{cluster_name(ref)}", policy, found)}
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
    members: Sequence[gloo.WeightedDestination],
    path: str,
    read: Reader,
    policy: Policy,
    report: Report,
    found: Found,
) -> route.WeightedCluster:
    total = sum(member.weight or 0 for member in members)
    if not members:
        report.error(path, "needs at least one destination")
    elif total == 0:
        report.error(path, "all weights are 0, so no destination would get a request")
    elif total > MAX_WEIGHT:
        report.error(path, f"the weights sum up to more than {MAX_WEIGHT}")
    clusters = []
    for i, member in enumerate(members):
        at = f"{path}[{i}]"
        if member.destination is None:
            report.error(f"{at}.destination", "required")
            continue
        cluster, subset = translate_destination(
            member.destination, f"{at}.destination", read, policy, report, found
        )
        out = route.WeightedClusterClusterWeight(
            name=cluster, weight=member.weight or 0, metadata_match=subset
        )
        scope = Scope(path=f"{at}.options", report=report, policy=policy, read=read)
        patch = join_patches("on_destination", member.options, scope)
        patch.filters |= filters_to(member.destination, replace(scope, path=f"{at}.destination"))
        patch.write(out)
        found.clusters |= patch.clusters
        clusters.append(out)
    return route.WeightedCluster(clusters=clusters)


def translate_destination(
    destination: gloo.Destination, path: str, read: Reader, policy: Policy, report: Report, found: Found
) -> tuple[str, core.Metadata | None]:
    """The cluster's name, and the subset of it that is wanted."""
    if destination.upstream is not None:
        ref = ref_of(destination.upstream)
        upstream = read("Upstream", ref)
        subset = translate_subset(destination.subset, upstream, f"{path}.subset", report)
        if upstream is not None:
            name = cluster_name(ref)
            found.clusters.add(name)
            return name, subset
        report.warn(f"{path}.upstream", f"*v1.Upstream {{ {ref} }} not found")
        return missing_cluster(cluster_name(ref), policy, found), subset
    if destination.consul is not None:
        if not destination.consul.service_name:
            report.error(f"{path}.consul.serviceName", "required")
        if destination.subset is not None:
            report.error(f"{path}.subset", "goes with an upstream; a consul destination has tags")
        selection = destination_selection(destination.consul)
        name = destination_cluster_name(selection)
        found.selections.add(selection)
        found.clusters.add(name)
        return name, None
    if destination.kube is None:
        report.error(path, "no destination; one of upstream, consul")
    return "", None


def missing_cluster(name: str, policy: Policy, found: Found) -> str:
    """What takes the place of a cluster that does not exist: Envoy answers 503, or the fallback answers."""
    chosen = FALLBACK_CLUSTER if policy.replace_invalid_routes else name
    found.clusters.add(chosen)
    return chosen


def translate_subset(
    subset: gloo.Subset | None, upstream: gloo.Upstream | None, path: str, report: Report
) -> core.Metadata | None:
    if subset is None or not subset.values:
        return None
    if upstream is not None and frozenset(subset.values) not in set(subset_keys(upstream).choices()):
        known = " or ".join(", ".join(sorted(keys)) for keys in subset_keys(upstream).choices())
        report.warn(path, f"the upstream has no such subset; its keys are {known or 'none'}")
    wanted = struct_of({SUBSET_KEY: subset_value(subset.values)})
    return core.Metadata(filter_metadata={LOAD_BALANCER: wanted})


def translate_group(group: gloo.UpstreamGroup, read: Reader, policy: Policy) -> Report:
    """What is wrong with a group by itself; a missing member is an error of the group."""
    report = Report()
    refuse_unread(group, report)
    weighted(members_of(group), "destinations", read, policy, report, Found())
    missing = [problem for problem in report.warnings if problem.text.endswith("not found")]
    for problem in missing:
        report.warnings.remove(problem)
        report.error(join(problem.path, ""), problem.text)
    return report
