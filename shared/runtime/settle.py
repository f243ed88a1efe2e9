"""When to act on changes: the first after quiet at once, a burst in batches that grow.

::

    settle = Settle()
    while True:
        await changed.wait()
        async with settle:      # waits as long as the burst asks for
            changed.clear()
            handle_all_that_came()
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class Settle:
    """Spaces out the handling of changes.

    A change that comes *gap* seconds or more after the last handling ended is handled at once, and the
    gap falls back to *first*. One that comes sooner waits for the gap to pass. If most of the gap was left
    the gap doubles, up to *ceiling*: nothing ever waits longer than that, however long the burst. If most
    of it had passed the burst is over, and the gap halves, so that single changes soon wait no more.
    """

    __slots__ = ("_ceiling", "_ended", "_first", "_gap")

    def __init__(self, first: float = 0.01, ceiling: float = 0.5) -> None:
        self._first = first
        self._ceiling = ceiling
        self._gap = first
        self._ended = float("-inf")

    def delay(self, now: float) -> float:
        """Seconds to wait before handling a change seen at *now*; moves the gap."""
        left = self._ended + self._gap - now
        if left <= 0:
            self._gap = self._first
            return 0.0
        dense = left > self._gap / 2
        self._gap = min(self._gap * 2, self._ceiling) if dense else max(self._gap / 2, self._first)
        return left

    def ended(self, now: float) -> None:
        """The handling ended at *now*; the gap counts from here, so slow work does not crowd out the rest."""
        self._ended = now

    async def __aenter__(self) -> None:
        if wait := self.delay(asyncio.get_running_loop().time()):
            await asyncio.sleep(wait)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended(asyncio.get_running_loop().time())
