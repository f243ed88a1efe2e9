"""Endpoints from Consul's health: every datacenter's feed, host names resolved, and who is told."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field, replace
from typing import Any

from protos import gloo
from services.gloo.endpoints.feed import Feed, FeedOptions
from services.gloo.endpoints.resolve import Resolver
from services.gloo.endpoints.table import EndpointTable
from shared.consul.blocking import WatchState
from shared.consul.client import Consul
from shared.consul.datacenters import CatalogOptions, follow_datacenters
from shared.consul.polling import Holding

log = logging.getLogger(__name__)

PATIENCE = 10.0
"""How long a datacenter other than the nearest may keep the rest from being ready."""

Callback = Callable[[Set[str]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointOptions:
    """What is followed and what serves."""

    catalog: CatalogOptions = field(default_factory=CatalogOptions)
    serve_warning: bool = False
    serve_failing: bool = False
    dns_interval: float = 5.0
    feed: FeedOptions = field(default_factory=FeedOptions)

    @classmethod
    def of(cls, settings: gloo.Settings) -> EndpointOptions:
        """The options that the settings speak of; the others keep their defaults."""
        interval = settings.consul.dns_polling_interval if settings.consul else None
        return cls(
            catalog=CatalogOptions.of(settings), dns_interval=interval.total_seconds() if interval else 5.0
        )


class ConsulEndpoints:
    """The endpoints of all services in Consul, kept true by ``run``.

    Callbacks get the names of services whose endpoints differ, after the table has them; the first time
    after all datacenters were read, that is all of them. There may be none, as when a datacenter that was out
    of reach turns out to be empty.
    """

    def __init__(
        self, consul: Consul, options: EndpointOptions | None = None, holds: Holding | None = None
    ) -> None:
        self.options = options or EndpointOptions()
        self._holds = holds
        self.table = EndpointTable(
            serve_warning=self.options.serve_warning, serve_failing=self.options.serve_failing
        )
        self.synced = False
        self._consul = consul
        self._callbacks: list[Callback] = []
        self._feeds: dict[str, Feed] = {}
        self._resolver = Resolver(self._resolved, interval=self.options.dns_interval)

    def subscribe(self, callback: Callback) -> Callable[[], None]:
        """Call *callback* on every change; call what is given back to end that."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    @property
    def held_since(self) -> float | None:
        """Since when (Unix time) instances are held that Consul no longer lists; None when none are."""
        held = [since for feed in self._feeds.values() if (since := feed.held_since) is not None]
        return time.time() - (time.monotonic() - min(held)) if held else None

    def watches(self) -> Iterator[WatchState]:
        for _, feed in sorted(self._feeds.items()):
            yield from feed.state.watches.values()

    def state(self) -> dict[str, Any]:
        """For ``/debug``."""
        return {
            "synced": self.synced,
            "services": len(self.table.services()),
            "held_since": self.held_since,
            "unread": sorted(self.table.unread),
            "datacenters": {
                name: {"instances": self.table.size(name), "synced": feed.synced, **_shown(feed)}
                for name, feed in sorted(self._feeds.items())
            },
            "hosts": {host: list(found) for host, found in sorted(self._resolver.answers.items())},
            "unresolved": dict(self._resolver.failures),
        }

    async def run(self) -> None:
        """Follow all datacenters for ever. What is known survives when this is run again."""
        self._feeds = {}
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._resolver.run(), name="endpoints resolver")
            tasks.create_task(
                follow_datacenters(
                    self._consul, self.options.catalog.datacenters, self._follow, self._forget
                ),
                name="endpoints datacenters",
            )
            while not self.synced:  # one that is out of reach is given up on after a while
                await asyncio.sleep(0.5)
                self._look_whether_synced()

    async def _follow(self, datacenter: str) -> None:
        feed = Feed(
            self._consul,
            datacenter,
            self.table,
            self._tell,
            replace(self.options.feed, holds=self._holds),
            self.options.catalog.consistency,
        )
        self._feeds[datacenter] = feed
        await feed.run()

    def _forget(self, datacenter: str) -> None:
        del self._feeds[datacenter]
        self._tell(self.table.drop_datacenter(datacenter))

    def _look_whether_synced(self) -> None:
        feeds = list(self._feeds.values())
        if self.synced or not feeds or not feeds[0].synced:
            return
        late = time.monotonic() - PATIENCE
        if all(feed.started < late or (feed.synced and self._resolver.settled) for feed in feeds):
            self.synced = True
            if self._note_unread():
                log.warning(
                    "datacenters are out of reach; of what was served before, their instances stay",
                    extra={"datacenters": sorted(self.table.unread)},
                )
            self._notify(self.table.services())

    def _tell(self, changed: Set[str]) -> None:
        self._resolver.want(self.table.hostnames())
        if not self.synced:
            self._look_whether_synced()
        elif self._note_unread() or changed:
            self._notify(changed)

    def _note_unread(self) -> bool:
        """Whether other datacenters than before are not read yet."""
        unread = frozenset(name for name, feed in self._feeds.items() if not feed.synced)
        before, self.table.unread = self.table.unread, unread
        return unread != before

    def _resolved(self, host: str, addresses: tuple[str, ...]) -> None:
        self._tell(self.table.resolved(host, addresses))

    def _notify(self, changed: Set[str]) -> None:
        for callback in list(self._callbacks):
            callback(changed)


def _shown(feed: Feed) -> dict[str, Any]:
    return {
        "held_since": feed.held_since,
        "reads": feed.state.reads,
        "listings": feed.state.listings,
        "sweeps": feed.state.sweeps,
        "problem": feed.state.problem,
        "watches": feed.state.watches,
    }
