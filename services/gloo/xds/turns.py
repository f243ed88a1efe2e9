"""Turns: so many at a time, and nobody keeps one for long."""

from __future__ import annotations

import asyncio


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
