"""One datacenter's catalog and health, followed with three long polls whatever the number of services.

``health/state/any`` says which check changed and to what: that goes into the table without another read.
``catalog/services`` says *that* an instance changed, by its names and tags often which; a sweep over the
nodes, by ModifyIndex, finds the rest. ``catalog/nodes`` brings addresses and new nodes. Services in doubt
are read with ``health/service/<name>``, node, instance and checks in one answer; when that would cost more
than reading everything, everything is read.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from services.gloo.endpoints.notes import Note
from services.gloo.endpoints.rows import InstanceKey, Listing, list_datacenter, list_services
from services.gloo.endpoints.table import EndpointTable, Observed
from shared.consul.blocking import WatchOptions, WatchState, watch_query
from shared.consul.catalog import HEALTH_SERVICE, HEALTH_STATE_ANY, NODE, NODES, OWN_SERVICE, SERVICES
from shared.consul.client import Consul
from shared.consul.http import Consistency
from shared.consul.polling import Holding
from shared.errors import ConsulError
from shared.runtime.backoff import Backoff
from shared.runtime.breath import Breath
from shared.runtime.hold import Hold
from shared.runtime.supervise import heed_cancellation

log = logging.getLogger(__name__)

READS_AT_ONCE = 8
FEW = 16
"""So many services in doubt are read one by one, however small the datacenter."""
INSTANCES_PER_READ = 10
"""Reading one service costs about as much as ten instances, or one node, of a sweep."""
LONGEST_PAUSE = 1.0
ACCIDENT_SECONDS = 30.0
"""How long after Consul lost its history what vanishes may be a part of that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedOptions:
    """How a datacenter is followed; times in seconds.

    *hold_seconds* is for losses that are merely implausible. What was lost with Consul's history is held as
    long as *holds* says.
    """

    verify_every: float = 300.0
    hold_share: float = 0.5
    hold_least: int = 10
    hold_seconds: float = 30.0
    holds: Holding | None = None


@dataclass(slots=True)
class FeedState:
    """What the feed did, for ``/debug``; the reads are those beside the three long polls."""

    reads: int = 0
    listings: int = 0
    sweeps: int = 0
    problem: str = ""
    watches: dict[str, WatchState] = field(default_factory=dict)


class Feed:
    """Keeps the table's part of *datacenter* true, and tells *publish* the services that changed.

    It is told of an empty set too: a host name that nobody has resolved yet changes no endpoint.
    """

    def __init__(
        self,
        consul: Consul,
        datacenter: str,
        table: EndpointTable,
        publish: Callable[[Set[str]], None],
        options: FeedOptions,
        consistency: Consistency = "default",
    ) -> None:
        self.datacenter = datacenter
        self.synced = False
        self.started = time.monotonic()
        self.state = FeedState()
        self._consul = consul
        self._table = table
        self._publish = publish
        self._options = options
        self._consistency = consistency
        self._holds = options.holds
        self._limit = self._holds.limit if self._holds is not None else options.hold_seconds
        self._hold: Hold[InstanceKey] = Hold(
            share=options.hold_share,
            least=options.hold_least,
            seconds=min(options.hold_seconds, self._limit),
        )
        self._history = self._holds.history if self._holds is not None else 0
        self._lost_past_at = -math.inf
        self._told = False
        self._heard: set[str] = set()
        self._tags: Mapping[str, list[str]] = {}
        self._doubtful: set[str] = set()
        self._all_doubtful = False
        self._doubt = asyncio.Event()
        self._unswept: set[str] = set()
        self._unswept_any = asyncio.Event()

    @property
    def held_since(self) -> float | None:
        """Since when, on the monotonic clock, instances are kept that Consul no longer lists."""
        return self._hold.since(time.monotonic())

    async def run(self) -> None:
        """Follow for ever."""
        async with asyncio.TaskGroup() as tasks:
            for path, take in (
                (HEALTH_STATE_ANY, self._take_checks),
                (SERVICES, self._take_services),
                (NODES, self._take_nodes),
            ):
                tasks.create_task(self._watch(path, take), name=f"endpoints {self.datacenter} {path}")
            for work in (self._keep_reading, self._keep_sweeping, self._keep_verifying):
                tasks.create_task(work(), name=f"endpoints {self.datacenter} {work.__name__}")

    # -- what the long polls bring

    async def _watch(self, path: str, take: Callable[[Any], None]) -> None:
        state = self.state.watches[path] = WatchState(f"{path} {self.datacenter}")
        options = WatchOptions(consistency=self._consistency)
        resets = 0
        async for _, body in watch_query(self._consul, path, self._params, options=options, state=state):
            if state.resets > resets:
                resets, self._lost_past_at = state.resets, time.monotonic()
            take(body or ())
            if not self.synced:
                self._await_others(path)

    def _await_others(self, path: str) -> None:
        """What a poll says before the first listing is not looked at: the listing is read after it."""
        self._heard.add(path)
        if len(self._heard) == 3:
            self._all_doubtful = True
            self._doubt.set()

    def _take_checks(self, body: Any) -> None:
        if self.synced:
            self._observed(self._table.observe_checks(self.datacenter, body, self._hold.kept()))

    def _take_nodes(self, body: Any) -> None:
        if self.synced:
            observed = self._table.observe_nodes(self.datacenter, body, self._hold.kept())
            self._observed(observed)
            self._sweep(observed.new_nodes)

    def _take_services(self, body: Any) -> None:
        before, self._tags = self._tags, body or {}
        if self.synced:
            names = before.keys() | self._tags.keys()
            self._doubt_services({name for name in names if before.get(name) != self._tags.get(name)})
            self._sweep(self._table.nodes(self.datacenter))

    def _observed(self, observed: Observed) -> None:
        self._publish(observed.changed)
        self._doubt_services(observed.doubtful)

    def _doubt_services(self, names: Set[str]) -> None:
        if names:
            self._doubtful |= names
            self._doubt.set()

    def _sweep(self, nodes: Iterable[str]) -> None:
        self._unswept.update(nodes)
        if self._unswept:
            self._unswept_any.set()

    # -- what is read besides

    async def _keep_reading(self) -> None:
        backoff = Backoff(ceiling=10.0)
        while True:
            await self._until_doubt()
            began = time.monotonic()
            everything = self._costs_more_than_all(self._doubtful)
            if not await self._attempt(self._read_doubtful(everything), backoff):
                self._doubt.set()
            elif everything:
                await _pause(began)

    async def _until_doubt(self) -> None:
        """Wait for a doubt, or for the time to look whether what is held has come back."""
        until = self._hold.until()
        try:
            async with asyncio.timeout(None if until is None else max(0.0, until - time.monotonic())):
                await self._doubt.wait()
        except TimeoutError:
            self._all_doubtful = True
        self._doubt.clear()

    def _costs_more_than_all(self, names: Set[str]) -> bool:
        there = self.datacenter
        few = FEW + len(self._table.nodes(there)) + self._table.size(there) // INSTANCES_PER_READ
        return self._all_doubtful or len(names) > few or not all(map(askable, names))

    async def _read_doubtful(self, everything: bool) -> None:
        names, self._doubtful, self._all_doubtful = self._doubtful, set(), False
        self._table.begin(self.datacenter)
        try:
            listing = await (self._list_all() if everything else self._list(names))
        except BaseException:
            self._doubtful |= names
            self._all_doubtful |= everything
            raise
        if not self.synced:
            await self._restore()
        if self._table.gone(self.datacenter, listing):
            await self._look_at_history()
        await self._apply(listing)

    async def _restore(self) -> None:
        """Begin with what those before us still held; the first listing tells what of it is back."""
        if self._holds is None or self._limit <= 0:
            return
        if owed := [Note.read(text) for text in await self._holds.owed(self._what)]:
            self._table.restore(self.datacenter, owed)
            self._lost_past_at = time.monotonic()

    async def _look_at_history(self) -> None:
        if self._holds is not None and (history := await self._holds.look()) != self._history:
            self._history, self._lost_past_at = history, time.monotonic()

    def _release(self) -> None:
        self._hold.release()
        self._all_doubtful = True
        self._doubt.set()

    @property
    def _what(self) -> str:
        return f"instances in {self.datacenter}"

    async def _apply(self, listing: Listing) -> None:
        table, there = self._table, self.datacenter
        gone, now = table.gone(there, listing) - table.instances_of(there, OWN_SERVICE), time.monotonic()
        seen = None if listing.services is None else listing.instances.keys()
        suspect = self._limit if now - self._lost_past_at < ACCIDENT_SECONDS else 0.0
        keep = self._hold.keep(gone, table.size(there), now, present=seen, suspect=suspect)
        if self._holds is not None and (keep or self._told):
            self._told = bool(kept := self._hold.kept())
            self._holds.tell(self._what, [table.note(there, key).text for key in kept], self._release)
        changed = await Breath().between(table.apply_in_steps(there, listing, keep))
        self.state.listings += 1
        self.synced = True
        self._publish(changed)

    async def _list(self, names: Set[str]) -> Listing:
        return list_services(await self._read_each(HEALTH_SERVICE, names))

    async def _list_all(self) -> Listing:
        nodes = await self._read(NODES) or ()
        names = [node["Node"] for node in nodes if askable(node["Node"])]
        services = await self._read_each(NODE, names)
        return list_datacenter(nodes, services, await self._read(HEALTH_STATE_ANY) or ())

    async def _keep_sweeping(self) -> None:
        backoff = Backoff(ceiling=10.0)
        while True:
            await self._unswept_any.wait()
            self._unswept_any.clear()
            began = time.monotonic()
            if not await self._attempt(self._sweep_nodes(), backoff):
                self._unswept_any.set()
            await _pause(began)

    async def _sweep_nodes(self) -> None:
        nodes, self._unswept = self._unswept, set()
        self.state.sweeps += 1

        def compare(node: str, answer: Any) -> None:
            self._doubt_services(self._table.differing(self.datacenter, node, answer, self._hold.kept()))

        try:
            await self._read_each(NODE, filter(askable, nodes), compare)
        except BaseException:
            self._unswept |= nodes
            raise

    async def _keep_verifying(self) -> None:
        """A full look now and then, should ever an event have been missed."""
        while True:
            await asyncio.sleep(self._options.verify_every)
            await self._attempt(self._verify(), Backoff())

    async def _verify(self) -> None:
        self._take_nodes(await self._read(NODES) or ())
        self._take_checks(await self._read(HEALTH_STATE_ANY) or ())
        self._sweep(self._table.nodes(self.datacenter))

    async def _attempt(self, work: Awaitable[None], backoff: Backoff) -> bool:
        """Whether *work* got through to Consul; a failure is noted and waited out."""
        try:
            await work
        except ConsulError as error:
            if not self.state.problem:
                log.warning(
                    "endpoints not read, keeping the last ones",
                    extra={"datacenter": self.datacenter, "error": str(error)},
                )
            self.state.problem = str(error)
            await asyncio.sleep(backoff.next())
            return False
        self.state.problem = ""
        backoff.reset()
        return True

    async def _read_each(
        self, path: str, names: Iterable[str], take: Callable[[str, Any], None] | None = None
    ) -> dict[str, Any]:
        answers: dict[str, Any] = {}
        waiting = iter(sorted(names))

        async def work() -> None:
            for name in waiting:
                answers[name] = await self._read(path + name)
                if take:
                    take(name, answers[name])

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(READS_AT_ONCE):
                    tasks.create_task(work())
        except* ConsulError as group:
            heed_cancellation()
            raise _first(group) from None
        return answers

    async def _read(self, path: str) -> Any:
        """A read that never believes a server that has just restarted, unless stale reads were asked for."""
        self.state.reads += 1
        stale = self._consistency == "stale"
        return await self._consul.get_json(
            path, self._params, consistency="default" if stale else "consistent"
        )

    @property
    def _params(self) -> list[tuple[str, str]]:
        return [("dc", self.datacenter)]


def askable(name: str) -> bool:
    """Whether a URL can end with *name*: Consul's server rewrites a path with dots or slashes in it."""
    return "/" not in name and name not in ("", ".", "..")


async def _pause(began: float) -> None:
    """Leave Consul, and us, four times as much rest as the work took, a second at most."""
    spent = time.monotonic() - began
    await asyncio.sleep(min(4 * spent, LONGEST_PAUSE))


def _first(group: BaseExceptionGroup[ConsulError]) -> ConsulError:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, ConsulError)
    return found
