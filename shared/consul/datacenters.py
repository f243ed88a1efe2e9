"""Which datacenters are followed and how they are read; something done for each as they come and go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

from protos import gloo
from shared.consul.client import Consul
from shared.consul.http import Consistency
from shared.errors import ConsulError
from shared.runtime.backoff import Backoff

log = logging.getLogger(__name__)

LOOK_EVERY = 60.0

_CONSISTENCY: dict[gloo.ConsulConsistencyModes, Consistency] = {
    gloo.ConsulConsistencyModes.DefaultMode: "default",
    gloo.ConsulConsistencyModes.StaleMode: "stale",
    gloo.ConsulConsistencyModes.ConsistentMode: "consistent",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogOptions:
    """What the settings say of the catalog. No *datacenters* means all that Consul knows."""

    datacenters: tuple[str, ...] = ()
    consistency: Consistency = "default"

    @classmethod
    def of(cls, settings: gloo.Settings) -> CatalogOptions:
        discovery = settings.consul.service_discovery if settings.consul else None
        reading = settings.consul_discovery
        return cls(
            datacenters=tuple(discovery.data_centers) if discovery else (),
            consistency=_CONSISTENCY[reading.consistency_mode] if reading else "default",
        )


async def follow_datacenters(
    consul: Consul,
    wanted: Collection[str],
    follow: Callable[[str], Awaitable[None]],
    forget: Callable[[str], None],
    *,
    every: float = LOOK_EVERY,
) -> None:
    """Run *follow* for each datacenter, the nearest first, for ever.

    Only *wanted* ones count, all when that is empty. One that is not listed twice in a row is left, and
    *forget* is called: a single short list does not end it.
    """
    running: dict[str, asyncio.Task[None]] = {}
    missing: set[str] = set()
    backoff = Backoff(ceiling=10.0)
    async with asyncio.TaskGroup() as tasks:
        while True:
            try:
                listed = await _list(consul, wanted)
            except ConsulError as error:
                log.warning("datacenters not listed, trying again", extra={"error": str(error)})
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            for name in listed:
                if name not in running:
                    running[name] = tasks.create_task(_run(follow, name), name=f"datacenter {name}")
            gone = running.keys() - set(listed)
            for name in gone & missing:
                running.pop(name).cancel()
                forget(name)
            missing = gone - missing
            await asyncio.sleep(every)


async def _run(follow: Callable[[str], Awaitable[None]], name: str) -> None:
    await follow(name)


async def _list(consul: Consul, wanted: Collection[str]) -> Sequence[str]:
    known = await consul.datacenters()
    if unknown := set(wanted) - set(known):
        log.warning("Consul does not know these datacenters", extra={"datacenters": sorted(unknown)})
    return [name for name in known if not wanted or name in wanted]
