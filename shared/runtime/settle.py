"""When to act on changes: the first after quiet at once, those of a burst together.

::

    settle = Settle()
    while True:
        await changed.wait()
        async with settle:      # waits as long as the last handling asks for
            changed.clear()
            handle_all_that_came()
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType


class Settle:
    """Spaces out the handling of changes: after one there is a pause of the processor time it took.

    So cheap handling follows every change closely, dear handling takes up to half of a processor however
    dense the burst, and the changes that come meanwhile are handled as one. The pause is *least* seconds at
    least, *most* at most; a change that comes after it is handled at once.
    """

    __slots__ = ("_least", "_most", "_next", "_used")

    def __init__(self, least: float = 0.01, most: float = 0.5) -> None:
        self._least = least
        self._most = most
        self._used = 0.0
        self._next = float("-inf")

    def delay(self, now: float) -> float:
        """Seconds to wait before handling a change seen at *now*."""
        return max(self._next - now, 0.0)

    def handled(self, now: float, used: float) -> None:
        """A handling that *used* so many seconds of processor time has ended."""
        self._next = now + min(max(used, self._least), self._most)

    async def __aenter__(self) -> None:
        if wait := self.delay(asyncio.get_running_loop().time()):
            await asyncio.sleep(wait)
        self._used = time.thread_time()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.handled(asyncio.get_running_loop().time(), time.thread_time() - self._used)
