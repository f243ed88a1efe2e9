"""When to do what can wait: once nothing has happened for a while, or when it has waited long enough."""

from __future__ import annotations

import asyncio


class Lull:
    """Waits until *quiet* seconds have passed since the last ``note``, but *most* seconds at most."""

    __slots__ = ("_last", "_most", "_quiet")

    def __init__(self, quiet: float, most: float) -> None:
        self._quiet = quiet
        self._most = most
        self._last = float("-inf")

    def note(self) -> None:
        """Something has happened that goes first."""
        self._last = asyncio.get_running_loop().time()

    async def wait(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._most
        while True:
            rest = min(self._last + self._quiet, until) - loop.time()
            if rest <= 0:
                return
            await asyncio.sleep(rest)
