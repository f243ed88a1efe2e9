"""What discovery looks at: the services of every datacenter, and the Upstreams in the store."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence, Set

from shared.consul.blocking import WatchOptions, WatchState, watch_query
from shared.consul.catalog import SERVICES, services_of
from shared.consul.client import Consul
from shared.consul.datacenters import CatalogOptions, follow_datacenters
from shared.consul.polling import Holding
from shared.ref import Ref
from shared.store.keys import UPSTREAM
from shared.store.objects import Stored
from shared.store.watch import ObjectsChange, watch_objects

log = logging.getLogger(__name__)


class Inputs:
    """The newest view of both; ``changed`` is set when it may ask for other writes than before."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.catalog: dict[str, Mapping[str, Sequence[str]]] = {}
        self.stored: dict[Ref, Stored] = {}
        self.stored_known = False
        self.awaited: dict[Ref, float] = {}
        """What is being written, and is not tried again before the store shows it or that time has come."""
        self.troubled_at = float("-inf")
        """When a datacenter's catalog was last read anew after it could not be read."""
        self.lost_past_at = float("-inf")
        """When a datacenter's catalog was last seen to have lost its past."""
        self.lost: Set[Ref] = frozenset()
        """Those of ``stored`` that Consul has lost."""
        self.watches: dict[str, WatchState] = {}
        self._followed: list[str] = []

    @property
    def unheard(self) -> set[str]:
        """The datacenters that did not answer yet."""
        return set(self._followed) - self.catalog.keys()

    @property
    def waiting_for(self) -> str:
        """What is still to be read before anything can be written; empty when all is there."""
        if not self._followed or self._followed[0] in self.unheard:
            return "waiting for the services in Consul's catalog"
        return "" if self.stored_known else "waiting for the Upstreams in Consul's KV store"

    async def follow_catalog(self, consul: Consul, options: CatalogOptions) -> None:
        """One long poll a datacenter, for ever."""

        async def follow(datacenter: str) -> None:
            if datacenter not in self._followed:
                self._followed.append(datacenter)
            state = self.watches[datacenter] = WatchState(f"{SERVICES} {datacenter}")
            watch = WatchOptions(consistency=options.consistency)
            errors, resets = 0, 0
            async for _, body in watch_query(
                consul, SERVICES, [("dc", datacenter)], options=watch, state=state
            ):
                again, reset = state.errors > errors, state.resets > resets
                errors, resets = state.errors, state.resets
                self.take_services(datacenter, services_of(body), again=again, reset=reset)

        await follow_datacenters(consul, options.datacenters, follow, self.forget)

    async def follow_upstreams(self, consul: Consul, root: str, namespace: str, holds: Holding) -> None:
        """One long poll for the Upstreams of *namespace*, for ever."""
        state = self.watches["upstreams"] = WatchState("upstreams")
        options = WatchOptions(holds=holds)
        async for change in watch_objects(
            consul.kv, root, UPSTREAM, namespaces=(namespace,), options=options, state=state
        ):
            self.take_upstreams(change)

    def take_services(
        self,
        datacenter: str,
        services: Mapping[str, Sequence[str]],
        *,
        again: bool = False,
        reset: bool = False,
    ) -> None:
        if datacenter not in self._followed:
            self._followed.append(datacenter)
        if again and datacenter in self.catalog:
            self.troubled_at = time.monotonic()
        if reset and datacenter in self.catalog:
            self.lost_past_at = time.monotonic()
        if self.catalog.get(datacenter) != services:
            self.catalog[datacenter] = services
            self.changed.set()

    def take_upstreams(self, change: ObjectsChange) -> None:
        if change.initial:
            self.stored_known = True
            self.changed.set()
        for ref, stored in change.put.items():
            before = self.stored.get(ref)
            self.stored[ref] = stored
            if self.awaited.pop(ref, None) is not None or before is None or not stored.same_spec(before):
                self.changed.set()
        for ref in change.gone:
            self.stored.pop(ref, None)
            self.awaited.pop(ref, None)
            self.changed.set()

    def take_lost(self, names: Iterable[str]) -> None:
        """All that Consul has lost of the stored Upstreams, by namespace and name."""
        lost = frozenset(Ref(*name.split("/", 1)) for name in names if "/" in name)
        if lost != self.lost:
            self.lost = lost
            self.changed.set()

    def stop_awaiting(self, now: float) -> None:
        """What has not shown by *now* is looked at as if it had not been written."""
        self.awaited = {ref: until for ref, until in self.awaited.items() if until > now}

    def forget(self, datacenter: str) -> None:
        """*datacenter* is no more."""
        self._followed.remove(datacenter)
        self.watches.pop(datacenter, None)
        self.catalog.pop(datacenter, None)
        self.changed.set()
