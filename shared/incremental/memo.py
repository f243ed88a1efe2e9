"""What was made of values that stay for long, at hand when it is made over again and few of them differ.

Of an object that was edited all unchanged parts are the very same values as before, so a value is known by
its identity: to compare or hash it would cost about what is saved. It is held together with what was made of
it, so no other has its id meanwhile. What a round does not ask for is forgotten at its end, so a memo never
holds more than was in use just now.
"""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Memo(Generic[K, V]):
    """Remembers, from one round to the next, what was made of values by their identity."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[K, V]] = {}
        self._now: dict[int, tuple[K, V]] = {}

    def known(self, value: K) -> V | None:
        """What was made of *value* in the last round."""
        entry = self._last.get(id(value))
        return entry[1] if entry is not None else None

    def keep(self, value: K, made: V) -> V:
        """Have what was *made* of *value* known in the next round."""
        self._now[id(value)] = value, made
        return made

    def end_round(self) -> None:
        """Forget what was not kept."""
        self._last, self._now = self._now, {}
