"""What connections make the server do beyond what well-behaved ones do in passing, done in one line.

A connection's next bit of work is done when nobody waits who has made less. The line works for a moment at a
time and rests in between, longer while configuration changes: so whoever is to hear of a change hardly waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from time import monotonic, thread_time
from typing import TypeVar

from shared.incremental.units import Steps

T = TypeVar("T")
Job = Callable[[], None]

SLICE = 0.0005  # seconds of work, then a rest
REST = 1.0  # times as long as the work
REST_AMID_CHANGES = 4.0  # while configuration changes
REST_AFTER_LITTLE = 2.0  # then, after work for those who made little lately
SHORTEST_REST = 0.001
CALM = 0.2  # seconds without a change
HOLD, LONGEST_HOLD = 0.002, 0.05  # no work so soon after a change, unless it has waited for so long
TURNS_OF_LOOP = 4  # in which tasks do what a job sets going

OWN_SHARE = 0.05  # of the server's time, that a connection may take for good
ALL_SHARE = 0.3  # and all of them in passing
OWN_START, ALL_START = 0.02, 0.2  # seconds in passing that nobody minds
OWN_LEAD = 0.5  # seconds of work after which a connection waits until its share has grown to them
LONGEST_DEBT = 30.0

_serial = count()


class Peer:
    """One connection, and the time when what was done for it is paid off by its share."""

    __slots__ = ("free_at", "jobs")

    def __init__(self) -> None:
        self.free_at = 0.0
        self.jobs: deque[Job] = deque()

    def charge(self, seconds: float, now: float) -> None:
        self.free_at = min(max(now, self.free_at) + seconds / OWN_SHARE, now + LONGEST_DEBT)


class Line:
    """What clients make the server do, a little at a time. A job is short; what it wakes counts as well."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Peer]] = []
        self._served: Peer | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rested_at = 0.0
        self._changed_at = 0.0
        self._free_at = 0.0

    def add(self, peer: Peer, job: Job) -> None:
        peer.jobs.append(job)
        if len(peer.jobs) == 1 and peer is not self._served:
            self._queue(peer)
        self._plan()

    async def turn(self, peer: Peer) -> None:
        """Wait for one's turn, which is over with the next wait for anything."""
        mine = asyncio.Event()
        self.add(peer, mine.set)
        await mine.wait()

    async def between(self, peer: Peer, steps: Steps[T]) -> T:
        """The result of *steps*, each done in a turn of its own."""
        while True:
            await self.turn(peer)
            try:
                next(steps)
            except StopIteration as end:
                result: T = end.value
                return result

    def changed(self) -> None:
        """Configuration has changed: those who are to hear of it come first."""
        self._changed_at = monotonic()

    def passing(self, peer: Peer) -> bool:
        """Whether something small need not wait, since neither *peer* nor all together did much lately."""
        now = monotonic()
        return _little(peer, now) and self._free_at <= now + ALL_START / ALL_SHARE

    def passed(self, peer: Peer, seconds: float) -> None:
        """So long something small took that did not wait."""
        now = monotonic()
        peer.charge(seconds, now)
        self._free_at = max(now, self._free_at) + seconds / ALL_SHARE

    def _queue(self, peer: Peer) -> None:
        heappush(self._waiting, (max(peer.free_at, monotonic()), next(_serial), peer))

    @property
    def _due(self) -> float:
        """When the first of those who wait may be served."""
        return self._waiting[0][0] - OWN_LEAD / OWN_SHARE

    def _plan(self) -> None:
        """Serve now or when it is time."""
        if self._served is not None or not self._waiting:
            return
        if self._timer is not None:
            self._timer.cancel()
        now = monotonic()
        held = min(self._changed_at + HOLD, self._rested_at + LONGEST_HOLD)
        at = max(self._rested_at, held, self._due)
        if at > now:
            self._timer = asyncio.get_running_loop().call_later(at - now, self._plan)
            return
        self._timer = None
        self._began = now
        self._spent = self._rest = 0.0
        self._next()

    def _next(self) -> None:
        _, _, self._served = heappop(self._waiting)
        peer = self._served
        self._after(peer, thread_time(), TURNS_OF_LOOP)
        peer.jobs.popleft()()

    def _after(self, peer: Peer, since: float, turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(self._after, peer, since, turns - 1)
            return
        now, cost = monotonic(), thread_time() - since
        self._rest += cost * self._pace(peer, now)
        peer.charge(cost, now)
        self._served = None
        if peer.jobs:
            self._queue(peer)
        self._spent += cost
        unchanged = self._changed_at < self._began
        if self._waiting and unchanged and self._spent < SLICE and self._due <= now:
            self._next()
            return
        self._rested_at = now + max(SHORTEST_REST, self._rest)
        self._plan()

    def _pace(self, peer: Peer, now: float) -> float:
        """How long to rest after work for *peer*."""
        if now > self._changed_at + CALM:
            return REST
        return REST_AFTER_LITTLE if _little(peer, now) else REST_AMID_CHANGES


def _little(peer: Peer, now: float) -> bool:
    return peer.free_at <= now + OWN_START / OWN_SHARE
