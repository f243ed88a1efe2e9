"""Clusters and their endpoints, which every Envoy gets: one for each Upstream, one for each `consul` choice.

Endpoints have a way of their own: a change of instances makes new assignments for the clusters that follow
the service and touches nothing else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from typing import Any, Protocol

from protos import gloo
from services.gloo.memory import Following, Memory
from services.gloo.plugin import Policy
from services.gloo.resources import EMPTY, Resource
from services.gloo.sanitize import fallback_resources
from services.gloo.translator.cluster import translate_selection, translate_upstream
from services.gloo.translator.consul import (
    ConsulSelection,
    destination_cluster_name,
    subset_keys,
    upstream_selection,
)
from services.gloo.translator.endpoints import Endpoint, translate_endpoints, with_those_before
from services.gloo.translator.names import cluster_name, proxy_cluster_name, tunnel_name
from services.gloo.translator.secret import names_asked_for
from shared.incremental.units import Key, Steps
from shared.ref import Ref, Source
from shared.report import Report


class Instances(Protocol):
    """Who serves a service; ``EndpointTable`` knows, but for datacenters that are *unread* yet."""

    unread: frozenset[str]

    def endpoints(
        self,
        service: str,
        *,
        datacenters: Collection[str] = (),
        instance_tags: Collection[str] = (),
        blacklist_tags: Collection[str] = (),
    ) -> tuple[Endpoint, ...]: ...


def _nothing(key: Key) -> None:
    """What there is to look at for Upstreams that stand alone."""


class Clusters:
    """``clusters``, ``endpoints``, ``tunnels`` (listeners that lead to Upstreams through a proxy) and
    ``reports`` are for reading; a broken Upstream keeps its last good cluster."""

    def __init__(self, instances: Instances, policy: Policy, memory: Memory) -> None:
        self.clusters = EMPTY
        self.endpoints = EMPTY
        self.tunnels = EMPTY
        self.reports: dict[Ref, Report] = {}
        self._instances = instances
        self._policy = policy
        self._memory = memory
        self._before, self._unread = memory.endpoints(), frozenset[str]()
        self._following: dict[str, Following] = {}
        self._followers: defaultdict[str, set[str]] = defaultdict(set)
        self._selections: frozenset[ConsulSelection] = frozenset()
        self._tunnels_served = EMPTY
        self._looked: dict[Ref, set[Key]] = {}
        self._secrets: dict[str, frozenset[str]] = {}  # by cluster
        self._for_whom: dict[str, frozenset[Source]] | None = None
        self._looks: frozenset[Key] | None = None
        if policy.replace_invalid_routes:
            self.clusters = self.clusters.patched(put=[fallback_resources(policy)[0]])

    def put_upstream(
        self, ref: Ref, upstream: gloo.Upstream, get: Callable[[Key], Any] = _nothing
    ) -> tuple[list[Resource], list[str]]:
        """What a new or changed Upstream puts and drops, to hand to ``patch``; its report is kept."""
        name = cluster_name(ref)
        looked = set[Key]()

        def read(kind: str, of: Ref) -> Any:
            looked.add((kind, of))
            return get((kind, of))

        made, report = translate_upstream(upstream, self._policy, read)
        self._look(ref, looked)
        self.reports[ref] = report
        if made is not None and upstream.consul is not None:
            selection = upstream_selection(upstream.consul)
            self._follow(name, Following(selection, subset_keys(upstream), (Source("Upstream", ref),)))
        elif made is not None:
            self._unfollow(name)
        if made is None:
            return ([] if name in self.clusters.by_name else self.remembered(ref)), []
        if made.proxy is not None and made.listener is not None:
            self.tunnels = self.tunnels.patched(put=[made.listener])
            return [made.cluster, made.proxy], []
        return [made.cluster], self._close_tunnel(name)

    def _close_tunnel(self, name: str) -> list[str]:
        """The name of the proxy's cluster, when this one led into a tunnel."""
        if (tunnel := tunnel_name(name)) not in self.tunnels.by_name:
            return []
        self.tunnels = self.tunnels.patched(drop=[tunnel])
        return [proxy_cluster_name(name)]

    def looked_at(self, keys: Set[Key]) -> set[Ref]:
        """The Upstreams to translate again because they looked at one of *keys*."""
        return {ref for ref, looked in self._looked.items() if not looked.isdisjoint(keys)} if keys else set()

    @property
    def looks(self) -> frozenset[Key]:
        """All that Upstreams look at; the very same value until that differs."""
        if self._looks is None:
            self._looks = frozenset[Key]().union(*self._looked.values())
        return self._looks

    @property
    def secrets(self) -> Mapping[str, frozenset[Source]]:
        """The secrets that clusters name, and for which objects; the very same until that differs."""
        if self._for_whom is None:
            self._for_whom = found = dict[str, frozenset[Source]]()
            for cluster, names in self._secrets.items():
                for name in names:
                    found[name] = found.get(name, frozenset()) | self.clusters.by_name[cluster].sources
        return self._for_whom

    def remembered(self, ref: Ref) -> list[Resource]:
        """The clusters that a broken Upstream had before the start, to hand to ``patch``."""
        name = cluster_name(ref)
        known, following = self._memory.cluster(name), self._memory.following(name)
        if known is not None and following is not None:
            self._follow(name, following)
        proxy, tunnel = self._memory.cluster(proxy_cluster_name(name)), self._memory.tunnel(tunnel_name(name))
        if tunnel is not None:
            self.tunnels = self.tunnels.patched(put=[tunnel])
        return [each for each in (known, proxy) if each is not None]

    @property
    def following(self) -> Mapping[str, Following]:
        """What the endpoints of clusters are made of, by cluster."""
        return self._following

    def drop_upstream(self, ref: Ref) -> list[str]:
        """Forget an Upstream; the names of its clusters, to hand to ``patch``."""
        name = cluster_name(ref)
        self.reports.pop(ref, None)
        self._look(ref, set())
        self._unfollow(name)
        return [name, *self._close_tunnel(name)]

    def select(self, selections: frozenset[ConsulSelection]) -> tuple[list[Resource], list[str]]:
        """What following these `consul` choices, and no other, puts and drops."""
        new, old = selections - self._selections, self._selections - selections
        self._selections = selections
        for selection in new:
            self._follow(destination_cluster_name(selection), Following(selection))
        names = [destination_cluster_name(selection) for selection in old]
        for name in names:
            self._unfollow(name)
        return [translate_selection(selection, self._policy) for selection in sorted(new)], names

    def patch(self, put: Iterable[Resource], drop: Collection[str], services: Set[str]) -> Steps[bool]:
        """Take over clusters, and the endpoints of those and of all that follow *services*, a step each."""
        put = list(put)
        before = self.clusters, self.endpoints, self._tunnels_served
        touched = {resource.name for resource in put if resource.name in self._following}
        touched.update(*(self._followers[service] for service in services if service in self._followers))
        touched |= self._look_at_unread()
        assignments = []
        for name in sorted(touched):
            assignments.append(self._assignment(name))
            yield
        gone = [name for name in self.endpoints.by_name if name not in self._following] if put or drop else ()
        self.clusters = self.clusters.patched(put=put, drop=drop)
        self._note_secrets(put, drop)
        self.endpoints = self.endpoints.patched(put=assignments, drop=gone)
        self._tunnels_served = self.tunnels
        now = self.clusters, self.endpoints, self.tunnels
        return any(new is not old for new, old in zip(now, before, strict=True))

    def _look_at_unread(self) -> set[str]:
        """The clusters whose endpoints may differ because other datacenters are unread than the last time."""
        unread = self._instances.unread
        differ = self._before.keys() & self._following.keys() if unread != self._unread else set[str]()
        self._unread = unread
        if not unread:
            self._before = {}
        return differ

    def _assignment(self, cluster: str) -> Resource:
        following = self._following[cluster]
        wanted = following.selection
        found = self._instances.endpoints(
            wanted.service,
            datacenters=wanted.data_centers,
            instance_tags=wanted.instance_tags,
            blacklist_tags=wanted.blacklist_tags,
        )
        chosen = [endpoint for endpoint in found if wanted.admits(endpoint)]
        made = translate_endpoints(cluster, chosen, following.subsets, following.sources)
        before = self._before.get(cluster)
        unread = self._unread.intersection(wanted.data_centers or self._unread)
        return with_those_before(made, before, unread) if unread and before is not None else made

    def _look(self, ref: Ref, looked: set[Key]) -> None:
        if looked == self._looked.get(ref, set()):
            return
        self._looks = None
        if looked:
            self._looked[ref] = looked
        else:
            del self._looked[ref]

    def _note_secrets(self, put: Iterable[Resource], drop: Iterable[str]) -> None:
        for name in drop:
            if self._secrets.pop(name, None):
                self._for_whom = None
        for made in put:
            names = names_asked_for(made.body)
            if self._secrets.pop(made.name, None) or names:
                self._for_whom = None
            if names:
                self._secrets[made.name] = names

    def _follow(self, name: str, following: Following) -> None:
        self._unfollow(name)
        self._following[name] = following
        self._followers[following.selection.service].add(name)

    def _unfollow(self, name: str) -> None:
        if (old := self._following.pop(name, None)) is not None:
            followers = self._followers[old.selection.service]
            followers.discard(name)
            if not followers:
                del self._followers[old.selection.service]
