"""Long work in the event loop, with a breath now and then in which everybody else has a turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import TypeVar

TURN_SECONDS = 0.005

T = TypeVar("T")


class Breath:
    """Awaited between the steps of a long work, lets others run when *seconds* have passed since they did."""

    __slots__ = ("_seconds", "_since")

    def __init__(self, seconds: float = TURN_SECONDS) -> None:
        self._seconds = seconds
        self._since = time.monotonic()

    async def take(self) -> None:
        if time.monotonic() - self._since > self._seconds:
            await asyncio.sleep(0)
            self._since = time.monotonic()

    async def between(self, steps: Generator[None, None, T]) -> T:
        """The result of *steps*, with a breath between any two of them."""
        while True:
            try:
                next(steps)
            except StopIteration as end:
                result: T = end.value
                return result
            await self.take()
