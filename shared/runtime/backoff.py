"""How long to wait before trying again: doubling, with full jitter."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Delays for one thing that fails.

    Each delay is drawn anew between *floor* and a bound that doubles up to *ceiling*, so that processes
    that lost the same server do not come back in step.
    """

    __slots__ = ("_bound", "_ceiling", "_floor", "_random")

    def __init__(
        self, floor: float = 0.1, ceiling: float = 15.0, *, random: Callable[[], float] = random.random
    ) -> None:
        self._floor = floor
        self._ceiling = ceiling
        self._random = random
        self._bound = floor

    def next(self) -> float:
        """Seconds to wait now; the bound doubles with each call."""
        self._bound = min(self._bound * 2, self._ceiling)
        return self._floor + self._random() * max(self._bound - self._floor, 0.0)

    def reset(self) -> None:
        """It worked: the next failure starts from *floor* again."""
        self._bound = self._floor
