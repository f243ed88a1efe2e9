"""What was served before: by an earlier process, as the state directory has it, or under earlier settings.

Translation begins with nothing, so without it an object that is broken at the start would lose its last good
version. Asked only about objects that are translated for the first time; what was built once is forgotten.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from protos import gloo
from services.gloo.parts import parts_of
from services.gloo.resources import CLUSTER, ENDPOINTS, LISTENER, ROUTES, Resource, Snapshot, TypeUrl
from services.gloo.translator.consul import ConsulSelection, SubsetKeys
from services.gloo.translator.endpoints import NO_SUBSETS
from services.gloo.translator.names import FORWARD_PROXY, TUNNEL
from services.gloo.translator.sources import Origin
from services.gloo.xds.wire import mentions
from shared.ref import Ref, Source
from shared.store.keys import UPSTREAM

Tls = Mapping[str, Mapping[Origin, gloo.SslConfig]]


@dataclass(frozen=True, slots=True)
class Following:
    """Which instances a cluster takes, and how its subsets are cut."""

    selection: ConsulSelection
    subsets: SubsetKeys = NO_SUBSETS
    sources: tuple[Source, ...] = ()


class Memory:
    """*snapshots* by Proxy; *following* is what its clusters' endpoints were made of, by cluster; *partial*
    are the virtual hosts served without their broken routes, by Proxy and route configuration; *tls* the TLS
    configurations of listeners, by Proxy, listener and where they stand."""

    def __init__(
        self,
        snapshots: Mapping[Ref, Snapshot] | None = None,
        following: Mapping[str, Following] | None = None,
        partial: Collection[tuple[Ref, str, str]] = (),
        tls: Mapping[Ref, Tls] | None = None,
    ) -> None:
        self._tls = dict(tls or {})
        self._snapshots = dict(snapshots or {})
        self._following = dict(following or {})
        self._partial = frozenset(partial)
        self._clusters = {
            name: each
            for snapshot in self._snapshots.values()
            for name, each in snapshot.of(CLUSTER).by_name.items()
        }
        self._tunnels = {
            name: each
            for snapshot in self._snapshots.values()
            for name, each in snapshot.of(LISTENER).by_name.items()
            if name.startswith(TUNNEL)
        }
        self._parts: dict[tuple[Ref, str], Mapping[str, bytes]] = {}

    def cluster(self, name: str) -> Resource | None:
        return self._clusters.get(name)

    def tunnel(self, name: str) -> Resource | None:
        """A listener that leads to an Upstream through a proxy; it is the same for all Proxies."""
        return self._tunnels.get(name)

    def endpoints(self) -> dict[str, Resource]:
        """The endpoints of all clusters, by cluster."""
        return {
            name: each
            for snapshot in self._snapshots.values()
            for name, each in snapshot.of(ENDPOINTS).by_name.items()
        }

    def following(self, cluster: str) -> Following | None:
        return self._following.get(cluster)

    def listener(self, proxy: Ref, name: str) -> Resource | None:
        return self._of(proxy, LISTENER, name)

    def forward_proxies(self, proxy: Ref) -> dict[str, Resource]:
        """The clusters that forward to any host, by name."""
        snapshot = self._snapshots.get(proxy)
        clusters = snapshot.of(CLUSTER).by_name.items() if snapshot else ()
        return {name: each for name, each in clusters if name.startswith(FORWARD_PROXY)}

    def routes(self, proxy: Ref) -> Mapping[str, Resource]:
        """All route configurations of a Proxy."""
        snapshot = self._snapshots.get(proxy)
        return snapshot.of(ROUTES).by_name if snapshot else {}

    def tls(self, proxy: Ref, listener: str) -> Mapping[Origin, gloo.SslConfig]:
        return self._tls.get(proxy, {}).get(listener, {})

    def host(self, proxy: Ref, routes: str, name: str) -> bytes | None:
        """A virtual host of a route configuration, if all of it was good."""
        if (proxy, routes, name) in self._partial:
            return None
        if (proxy, routes) not in self._parts:
            configuration = self._of(proxy, ROUTES, routes)
            self._parts[proxy, routes] = parts_of(ROUTES, configuration.body) if configuration else {}
        return self._parts[proxy, routes].get(name)

    def selections(self, host: bytes) -> frozenset[ConsulSelection]:
        """What the `consul` destinations of a virtual host chose."""
        known = self.known().items()
        return frozenset(selection for name, selection in known if mentions(host, [name.encode()]))

    def known(self) -> dict[str, ConsulSelection]:
        """All that `consul` destinations chose, by cluster."""
        return {name: each.selection for name, each in self._following.items() if not each.sources}

    def upstreams(self) -> set[Ref]:
        """The Upstreams that clusters were made of."""
        sources = (source for cluster in self._clusters.values() for source in cluster.sources)
        return {source.ref for source in sources if source.kind == UPSTREAM.name}

    def forget(self, proxy: Ref) -> None:
        self._snapshots.pop(proxy, None)
        self._tls.pop(proxy, None)
        for key in [key for key in self._parts if key[0] == proxy]:
            del self._parts[key]

    def forget_clusters(self) -> None:
        self._clusters.clear()
        self._tunnels.clear()

    def _of(self, proxy: Ref, type_url: TypeUrl, name: str) -> Resource | None:
        snapshot = self._snapshots.get(proxy)
        return snapshot.of(type_url).by_name.get(name) if snapshot else None
