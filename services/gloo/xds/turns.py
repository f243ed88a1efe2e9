"""Turns: so many at a time, and nobody keeps one for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Places:
    """So many at a time. Each may take *longest*, but only a *moment* while others wait; then it is a
    ``TimeoutError``. Times are seconds."""

    def __init__(self, count: int, *, moment: float, longest: float) -> None:
        self._free = asyncio.Semaphore(count)
        self._moment = moment
        self._longest = longest
        self._taken: dict[asyncio.Timeout, float] = {}  # with the time since when
        self._waiting = 0

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        clock = asyncio.get_running_loop().time
        if self._free.locked():
            for each, since in self._taken.items():
                if not each.expired():
                    each.reschedule(since + self._moment)
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            async with asyncio.timeout(self._moment if self._waiting else self._longest) as limit:
                self._taken[limit] = clock()
                try:
                    yield
                finally:
                    del self._taken[limit]
        finally:
            self._free.release()


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
