"""When too much vanishes at once to be believed: keep it."""

from __future__ import annotations

import math
from collections.abc import Container, Hashable, Set
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)


class Missed(NamedTuple):
    """Since when something is kept, and until when."""

    since: float
    until: float
    suspect: bool


class Hold(Generic[K]):
    """Decides which of the things that vanished are kept for now; what comes back was never gone.

    A Consul server that restarts or loses its peers answers as if services had gone. When more than *share*
    of all and more than *least* vanish in one look, they are kept for *seconds*, with whatever else vanishes
    in that time, since it may well be a part of the same accident.
    """

    __slots__ = ("_least", "_missed", "_seconds", "_share")

    def __init__(self, *, share: float = 0.5, least: int = 10, seconds: float = 30.0) -> None:
        self._share = share
        self._least = least
        self._seconds = seconds
        self._missed: dict[K, Missed] = {}

    def keep(
        self,
        gone: Set[K],
        of: int,
        now: float,
        *,
        present: Container[K] | None = None,
        suspect: float = 0.0,
    ) -> set[K]:
        """Which of *gone* to keep, when there were *of* things before.

        A look at a part only names what it found *present*; of the rest it knows nothing. *suspect* says
        that the look itself is in doubt: whatever is missing in it is kept for so many seconds.
        """
        for key in [
            key for key in self._missed if (key in present if present is not None else key not in gone)
        ]:
            del self._missed[key]
        fresh = gone - self._missed.keys()
        if suspect > 0:
            self._missed.update(dict.fromkeys(fresh, Missed(now, now + suspect, suspect=True)))
        elif self._doubts(now) or self._implausible(len(fresh), of):
            self._missed.update(dict.fromkeys(fresh, Missed(now, now + self._seconds, suspect=False)))
        kept = {key for key in gone if key in self._missed and now < self._missed[key].until}
        for key in gone - kept:
            self._missed.pop(key, None)
        return kept

    def release(self) -> None:
        """Keep nothing any longer; the next look finds out."""
        self._missed = {key: missed._replace(until=-math.inf) for key, missed in self._missed.items()}

    def kept(self) -> Set[K]:
        """All that is kept, as of the last look."""
        return self._missed.keys()

    def since(self, now: float) -> float | None:
        """Since when something is kept; None when nothing is."""
        return min((missed.since for missed in self._missed.values() if now < missed.until), default=None)

    def until(self) -> float | None:
        """When to look again: the first of what is kept has then been kept long enough; None for never."""
        first = min((missed.until for missed in self._missed.values()), default=math.inf)
        return None if first == math.inf else first

    def __len__(self) -> int:
        return len(self._missed)

    def _doubts(self, now: float) -> bool:
        return any(now < missed.until for missed in self._missed.values() if not missed.suspect)

    def _implausible(self, gone: int, of: int) -> bool:
        return gone > self._least and gone > self._share * of
