"""Watches: what changed in Consul, told once, and never a loss that did not happen.

``polling`` decides when to ask, ``ledger`` what an answer changes and which losses to doubt, ``parts`` how to
cut a large prefix. Here they come together.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from shared.consul.http import Consistency, Params, parse
from shared.consul.kv import KV, Listing
from shared.consul.ledger import Ledger, PrefixChange, merged
from shared.consul.parts import Part, part_beside, partition
from shared.consul.polling import DEFAULTS, Pace, WatchOptions, WatchState, reads

if TYPE_CHECKING:
    from shared.consul.client import Consul

__all__ = ["DEFAULTS", "PrefixChange", "WatchOptions", "WatchState", "watch_prefix", "watch_query"]

log = logging.getLogger(__name__)

KEYS_GAP = 1.0
SPARE_PARTS = 4
ROW_OVERHEAD = 150


@dataclass(frozen=True, slots=True)
class _PartRead:
    part: Part
    listing: Listing
    change: PrefixChange | None


_Keys: TypeAlias = frozenset[str]


@dataclass(frozen=True, slots=True)
class QueryRead:
    index: int
    body: Any
    size: int


async def watch_prefix(
    kv: KV, prefix: str, *, options: WatchOptions = DEFAULTS, state: WatchState | None = None
) -> AsyncIterator[PrefixChange]:
    """Yield what is under *prefix* (it ends with ``/``), then every change; end only by cancellation.

    What one transaction writes comes as one change, unless the prefix is so large that it is cut into parts.
    """
    if not prefix.endswith("/"):
        raise ValueError(f"the prefix {prefix!r} must end with /, or it takes in its neighbours")
    watch = _PrefixWatch(kv, prefix, options, state if state is not None else WatchState(prefix))
    while True:
        async with aclosing(watch.whole()) as changes:
            async for change in changes:
                yield change
        log.info("watching a large prefix in parts", extra={"prefix": prefix, "parts": len(watch.ledgers)})
        async with aclosing(watch.in_parts()) as changes:
            async for change in changes:
                yield change
        log.info("watching the prefix as a whole again", extra={"prefix": prefix})


class _PrefixWatch:
    """A watch of one prefix, as a whole or in parts; ``ledgers`` holds what it has told, part by part."""

    def __init__(self, kv: KV, prefix: str, options: WatchOptions, state: WatchState) -> None:
        holds = options.holds
        limit = holds.limit if holds is not None else options.hold
        whole = Ledger(hold=min(options.hold, limit), limit=limit, name=prefix)
        self.ledgers: dict[Part, Ledger] = {Part(prefix): whole}
        self._kv = kv
        self._prefix = prefix
        self._options = options
        self._state = state
        self._wait = options.wait or kv.consul.configuration.wait
        self._cut_from = 0.0
        self._holds = holds if whole.hold > 0 else None
        self._owed: Collection[str] = ()
        self._parked: set[asyncio.Timeout] = set()

    async def whole(self) -> AsyncGenerator[PrefixChange, None]:
        """The changes, until the prefix has grown so large that ``ledgers`` are cut into parts."""
        whole = Part(self._prefix)
        (ledger,) = self.ledgers.values()
        async with aclosing(self._follow(whole, ledger)) as readings:
            async for reading in readings:
                if reading.change is not None:
                    yield reading.change
                if reading.listing.size > self._options.split_above and self._cut(reading.listing, ledger):
                    return

    async def in_parts(self) -> AsyncGenerator[PrefixChange, None]:
        """The changes of all parts, until the parts fit no longer and ``ledgers`` are joined again."""
        sizes: dict[Part, tuple[int, int]] = {}
        pending: dict[asyncio.Task[_PartRead | _Keys], AsyncGenerator[_PartRead | _Keys, None]] = {}

        def follow(readings: AsyncGenerator[_PartRead | _Keys, None]) -> None:
            pending[asyncio.ensure_future(anext(readings))] = readings

        def take(done: Collection[asyncio.Task[_PartRead | _Keys]]) -> list[PrefixChange]:
            changes = []
            for task in done:
                readings, reading = pending.pop(task), task.result()
                if isinstance(reading, _PartRead):
                    size = reading.listing.size
                    sizes[reading.part] = (sizes.get(reading.part, (size,))[0], size)
                    if reading.change is not None:
                        changes.append(reading.change)
                else:
                    for part in self._parts_beside(reading):
                        follow(self._follow(part, self.ledgers[part]))
                follow(readings)
            return changes

        try:
            follow(self._keys())
            for part, ledger in self.ledgers.items():
                follow(self._follow(part, ledger))
            while self._fit(sizes):
                done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                if changes := take(done):
                    yield merged(changes)
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            for readings in pending.values():
                await readings.aclose()
        # What a part has read meanwhile stands in its ledger and has to be told.
        last = [task.result() for task in pending if not task.cancelled()]
        changes = [reading.change for reading in last if isinstance(reading, _PartRead) and reading.change]
        self._join()
        if changes:
            yield merged(changes)

    async def _follow(self, part: Part, ledger: Ledger) -> AsyncGenerator[_PartRead, None]:
        """Each reading of one part."""

        async def list_part(index: int, consistency: Consistency) -> Listing:
            return await self._kv.read(
                part.text,
                index=index,
                wait=self._options.wait,
                consistency=consistency,
                exact=part.exact,
                watching=True,
            )

        async def read(index: int, consistency: Consistency) -> Listing:
            try:
                async with self._as_long_as_held(ledger if index else None):
                    listing = await list_part(index, consistency)
            except TimeoutError:
                listing = await list_part(0, "consistent")
            if not index and not listing.rows:
                # ACLs do not refuse a listing, they empty it; a key tells "denied" from "nothing there".
                await self._kv.get(self._prefix)
            if self._holds is not None:
                if not ledger.synced:
                    self._owed = [self._prefix + name for name in await self._holds.owed(self._prefix)]
                elif ledger.loses(listing.rows):
                    await self._holds.look()
            return listing

        pace = Pace()
        async with aclosing(
            reads(read, pace, options=self._options, state=self._state, wait=self._wait)
        ) as listings:
            async for listing in listings:
                began, used = time.monotonic(), time.thread_time()
                history = self._holds.history if self._holds is not None else 0
                change = ledger.take(listing.index, listing.rows, began, history=history, owed=self._owed)
                pace.doubtful, pace.fruitless = ledger.doubts(began), change is None
                self._tell_held()
                self._state.held_reads += bool(ledger.held)
                self._state.objects = sum(len(each.known) for each in self.ledgers.values())
                pace.worked = time.thread_time() - used
                pace.parts = len(self.ledgers)
                yield _PartRead(part, listing, change)

    @asynccontextmanager
    async def _as_long_as_held(self, ledger: Ledger | None) -> AsyncIterator[None]:
        """Raise ``TimeoutError`` when what *ledger* holds is released, or some of it was held long enough."""
        left = ledger.until - time.monotonic() if ledger is not None else math.inf
        async with asyncio.timeout(None if left == math.inf else max(0.0, left)) as timeout:
            self._parked.add(timeout)
            try:
                yield
            finally:
                self._parked.discard(timeout)

    def _release(self) -> None:
        for ledger in self.ledgers.values():
            ledger.release()
        for timeout in self._parked:
            timeout.reschedule(asyncio.get_running_loop().time())

    def _tell_held(self) -> None:
        held = [key for ledger in self.ledgers.values() for key in ledger.held]
        if held or self._state.held:
            self._state.held = len(held)
            if self._holds is not None:
                names = [key.removeprefix(self._prefix) for key in held]
                self._holds.tell(self._prefix, names, self._release)

    async def _keys(self) -> AsyncGenerator[_Keys, None]:
        """The keys under the whole prefix, whenever they change: some may lie outside the parts."""
        options = replace(self._options, min_gap=KEYS_GAP, max_gap=KEYS_GAP)
        answers = watch_query(
            self._kv.consul, f"/v1/kv/{self._prefix}", (("keys", ""),), options=options, state=self._state
        )
        async for _, body in answers:
            yield frozenset(body or ())

    def _cut(self, listing: Listing, ledger: Ledger) -> bool:
        """Cut into parts; False when that cannot be done, or not yet."""
        # The polls of parts given up hold their connections until they run out: do not add more too soon.
        now = time.monotonic()
        if ledger.doubts(now) or now < self._cut_from:
            return False
        self._cut_from = now + self._wait
        sizes = {row["Key"]: len(row["Value"] or "") + ROW_OVERHEAD for row in listing.rows}
        sizes |= dict.fromkeys(ledger.held, ROW_OVERHEAD)
        plan = partition(
            self._prefix, sizes, target=self._options.split_above // 2, most=self._options.most_parts
        )
        if len(plan) < 2:
            return False
        self.ledgers = {part: ledger.part(part.text, keys) for part, keys in plan.items()}
        return True

    def _join(self) -> None:
        ledgers = self.ledgers.values()
        self.ledgers = {Part(self._prefix): Ledger.joined(ledgers, name=self._prefix)}
        self._cut_from = time.monotonic() + self._wait

    def _parts_beside(self, keys: _Keys) -> Collection[Part]:
        """New parts for those of *keys* that lie outside of all."""
        fresh = []
        for key in sorted(keys.difference(*(ledger.known for ledger in self.ledgers.values()))):
            if not any(part.covers(key) for part in self.ledgers):
                part = part_beside(self._prefix, key, self.ledgers)
                self.ledgers[part] = next(iter(self.ledgers.values())).part(part.text)
                fresh.append(part)
        return fresh

    def _fit(self, sizes: Mapping[Part, tuple[int, int]]) -> bool:
        """Whether the parts, by first and last size, are neither too many, nor outgrown, nor too small."""
        if len(self.ledgers) > self._options.most_parts + SPARE_PARTS:
            return False
        small = sum(size for _, size in sizes.values()) < self._options.join_below
        if small and len(sizes) == len(self.ledgers):
            return False
        return not any(size > max(self._options.split_above, 2 * first) for first, size in sizes.values())


async def watch_query(
    consul: Consul,
    path: str,
    params: Params = (),
    *,
    options: WatchOptions = DEFAULTS,
    state: WatchState | None = None,
) -> AsyncIterator[tuple[int, Any]]:
    """Yield index and parsed body (None for a 404) of a blocking query now and whenever its index moves.

    An equal body is news too: a catalog listing wakes for changes that it does not show.
    """
    state = state if state is not None else WatchState(path)
    params = tuple(params)

    async def read(index: int, consistency: Consistency) -> QueryRead:
        answer = await consul.read(
            path, params, index=index, wait=options.wait, consistency=consistency, watching=True
        )
        return QueryRead(answer.index, parse(answer, f"GET {path}"), len(answer.body))

    pace, empty = Pace(), False
    wait = options.wait or consul.configuration.wait
    async with aclosing(reads(read, pace, options=options, state=state, wait=wait)) as answers:
        async for answer in answers:
            pace.fruitless = empty and not answer.body
            empty = not answer.body
            if not pace.fruitless:
                yield answer.index, answer.body
