"""Turns: so many at a time, and nobody keeps one for long; who is easily served goes first."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

WOKEN_AT_ONCE = 8
PAUSE = 0.001  # seconds


class Turns:
    """A turn is over when it is ended, or after *seconds*: a slow holder keeps nobody waiting for long."""

    def __init__(self, count: int, seconds: float) -> None:
        self._free = asyncio.Semaphore(count)
        self._seconds = seconds

    async def take(self) -> Turn:
        await self._free.acquire()
        return Turn(self._free, self._seconds)


class Turn:
    """One turn; it may be ended more than once."""

    def __init__(self, free: asyncio.Semaphore, seconds: float) -> None:
        self._free: asyncio.Semaphore | None = free
        self._timer = asyncio.get_running_loop().call_later(seconds, self.end)

    def end(self) -> None:
        self._timer.cancel()
        if self._free is not None:
            self._free.release()
            self._free = None

    def __enter__(self) -> Turn:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()


class Wakes:
    """Wakes those whom a change concerns, a few in each turn of the loop.

    So a change for one need not wait until all were served that the change before it was for; and those who
    have taken what they were sent do not wait for those who have not: these are woken one by one.
    """

    def __init__(self, at_once: int = WOKEN_AT_ONCE) -> None:
        self._at_once = at_once
        self._soon: deque[Callable[[], None]] = deque()
        self._late: deque[Callable[[], None]] = deque()
        self._left = at_once  # in this turn
        self._turning = False

    def add(self, wake: Callable[[], None], *, late: bool) -> None:
        (self._late if late else self._soon).append(wake)
        if not late:
            self._wake()
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _wake(self) -> None:
        while self._left and self._soon:
            self._left -= 1
            self._soon.popleft()()

    def _turn(self) -> None:
        self._left = self._at_once
        self._wake()
        if self._late and self._left == self._at_once:
            self._left -= 1
            self._late.popleft()()
        self._turning = self._left < self._at_once
        if self._turning:
            asyncio.get_running_loop().call_soon(self._turn)


class Line:
    """What can wait is done one after the other with a pause between, in which the loop serves everybody."""

    def __init__(self, pause: float = PAUSE) -> None:
        self._pause = pause
        self._waiting: deque[Callable[[], None]] = deque()
        self._pausing = False

    def add(self, job: Callable[[], None]) -> None:
        self._waiting.append(job)
        if not self._pausing:
            self._next()

    async def turn(self) -> None:
        """Wait for one's turn, which is over with the next wait for anything."""
        mine = asyncio.Event()
        self.add(mine.set)
        await mine.wait()

    def _next(self) -> None:
        self._pausing = bool(self._waiting)
        if self._waiting:
            asyncio.get_running_loop().call_later(self._pause, self._next)
            self._waiting.popleft()()
