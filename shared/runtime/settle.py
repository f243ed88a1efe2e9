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
from types import TracebackType


class Settle:
    """Spaces out the handling of changes: after one there is a pause of the time it took.

    So cheap handling follows every change closely, dear handling takes up to half of the time however dense
    the burst, and the changes that come meanwhile are handled as one. The pause is *least* seconds at least,
    *most* at most; a change that comes after it is handled at once.
    """

    __slots__ = ("_began", "_least", "_most", "_next")

    def __init__(self, least: float = 0.01, most: float = 0.5) -> None:
        self._least = least
        self._most = most
        self._began = 0.0
        self._next = float("-inf")

    def delay(self, now: float) -> float:
        """Seconds to wait before handling a change seen at *now*."""
        return max(self._next - now, 0.0)

    def handled(self, began: float, ended: float) -> None:
        self._next = ended + min(max(ended - began, self._least), self._most)

    async def __aenter__(self) -> None:
        clock = asyncio.get_running_loop().time
        if wait := self.delay(clock()):
            await asyncio.sleep(wait)
        self._began = clock()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.handled(self._began, asyncio.get_running_loop().time())
