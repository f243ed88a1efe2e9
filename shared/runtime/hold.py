"""When too much vanishes at once to be believed: keep it for a while."""

from __future__ import annotations

from collections.abc import Container, Hashable, Set
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Hold(Generic[K]):
    """Decides which of the things that vanished are kept for now.

    A Consul server that restarts, loses its data or loses its peers answers as if services had gone.
    When more than *share* of all and more than *least* vanish in one look, they are kept for *seconds*;
    what comes back meanwhile was never gone. As long as something is kept, whatever else vanishes is
    kept too, since it may well be a part of the same accident.
    """

    __slots__ = ("_least", "_missed", "_seconds", "_share")

    def __init__(self, *, share: float = 0.5, least: int = 10, seconds: float = 30.0) -> None:
        self._share = share
        self._least = least
        self._seconds = seconds
        self._missed: dict[K, float] = {}

    def keep(
        self,
        gone: Set[K],
        of: int,
        now: float,
        *,
        present: Container[K] | None = None,
        suspect: bool = False,
    ) -> set[K]:
        """Which of *gone* to keep, when there were *of* things before.

        A look at a part only names what it found *present*; of the rest it knows nothing. *suspect* says
        that the look itself is in doubt: then nothing is too little to be kept.
        """
        for key in [
            key for key in self._missed if (key in present if present is not None else key not in gone)
        ]:
            del self._missed[key]
        fresh = gone - self._missed.keys()
        if suspect or self.since(now) is not None or self._implausible(len(fresh), of):
            self._missed.update(dict.fromkeys(fresh, now))
        kept = {key for key in gone if key in self._missed and now < self._missed[key] + self._seconds}
        for key in gone - kept:
            self._missed.pop(key, None)
        return kept

    def since(self, now: float) -> float | None:
        """Since when something is kept; None when nothing is."""
        return min((at for at in self._missed.values() if now < at + self._seconds), default=None)

    def until(self) -> float | None:
        """When to look again: the first of what is kept has then been kept long enough."""
        return min(self._missed.values()) + self._seconds if self._missed else None

    def __len__(self) -> int:
        return len(self._missed)

    def _implausible(self, gone: int, of: int) -> bool:
        return gone > self._least and gone > self._share * of
