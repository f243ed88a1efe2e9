"""Long work in the event loop, with a breath now and then in which everybody else has a turn."""

from __future__ import annotations

import asyncio
import time

TURN_SECONDS = 0.005


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
