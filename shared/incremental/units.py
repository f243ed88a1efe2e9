"""Units: values computed from keyed inputs, recomputed when what they looked at has changed.

A unit is the smallest thing worth recomputing: a virtual host, a route table, a cluster. Its computation
is a pure function of the unit and of ``read``; each read is recorded, a miss too, so there is no cache key
to keep in step with the inputs and nothing can be looked at without being followed.

Units read inputs, never units of their own layer, so there are no cycles. A second layer reads the values
of the first: give its ``update`` a *get* over ``first.values`` and the keys ``first.update`` returned.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Generator, Hashable, Iterable
from typing import Any, Generic, TypeAlias, TypeVar

Key: TypeAlias = tuple[str, Hashable]
Read: TypeAlias = Callable[[str, Hashable], Any]

U = TypeVar("U", bound=Hashable)
V = TypeVar("V")

_NOTHING: Any = object()

T = TypeVar("T")

Steps: TypeAlias = Generator[None, None, T]
"""Work that pauses after each step; it returns its result at the end."""


def at_once(steps: Steps[T]) -> T:
    """The result of *steps*, taken without a pause."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


class Units(Generic[U, V]):
    """The values of many units; ``values`` and ``failures`` are for reading only.

    A unit that raises keeps its last value and stands in ``failures`` until a computation succeeds; it is
    tried again when something it had read so far changes.
    """

    def __init__(self, compute: Callable[[U, Read], V]) -> None:
        self.values: dict[U, V] = {}
        self.failures: dict[U, Exception] = {}
        self.computed = 0
        self._compute = compute
        self._reads: dict[U, set[Key]] = {}
        self._readers: defaultdict[Key, set[U]] = defaultdict(set)

    def update(
        self,
        changed: Collection[Key],
        get: Callable[[Any], object],
        *,
        put: Iterable[U] = (),
        drop: Iterable[U] = (),
    ) -> set[U]:
        """Follow a change of the inputs; return the units whose value is new or gone.

        *changed* are the input keys that differ and *get* gives the value of an input key now, None when
        there is none. *put* are units to compute whatever they read: new ones, or ones that changed
        themselves; *drop* are units that are no more.
        """
        return at_once(self._steps(changed, get, put, drop))

    def readers(self, changed: Collection[Key]) -> set[U]:
        """The units that looked at one of *changed*."""
        return set[U]().union(*(self._readers.get(key, ()) for key in changed))

    def follow(self, kind: str, changed: Collection[Any], get: Callable[[Any], object]) -> set[U]:
        """``update`` for units that are the input keys of *kind*: a unit lives while its key has a value."""
        return at_once(self.follow_in_steps(kind, changed, get))

    def follow_in_steps(
        self, kind: str, changed: Collection[Any], get: Callable[[Any], object]
    ) -> Steps[set[U]]:
        """``follow``, a unit a step; the inputs stay as they are until the last one."""
        mine: list[Any] = [key for key in changed if key[0] == kind]
        there = {key for key in mine if get(key) is not None}
        return self._steps(changed, get, there, [key for key in mine if key not in there])

    def _steps(
        self, changed: Collection[Key], get: Callable[[Any], object], put: Iterable[U], drop: Iterable[U]
    ) -> Steps[set[U]]:
        differing = {unit for unit in drop if self._drop(unit)}
        for unit in set(put) | self.readers(changed):
            if self._refresh(unit, get):
                differing.add(unit)
            yield
        return differing

    def _drop(self, unit: U) -> bool:
        self._forget_reads(unit)
        self.failures.pop(unit, None)
        return self.values.pop(unit, _NOTHING) is not _NOTHING

    def _refresh(self, unit: U, get: Callable[[Any], object]) -> bool:
        reads: set[Key] = set()

        def read(kind: str, name: Hashable) -> object:
            reads.add((kind, name))  # a miss is a read too: the object may appear later
            return get((kind, name))

        self.computed += 1
        try:
            value = self._compute(unit, read)
        except Exception as error:  # noqa: BLE001  a bug met by one unit must not stop the others
            self.failures[unit] = error
            return False
        else:
            self.failures.pop(unit, None)
        finally:
            self._forget_reads(unit)
            self._reads[unit] = reads
            for key in reads:
                self._readers[key].add(unit)
        differs = bool(self.values.get(unit, _NOTHING) != value)
        if differs:
            self.values[unit] = value
        return differs

    def _forget_reads(self, unit: U) -> None:
        for key in self._reads.pop(unit, ()):
            readers = self._readers[key]
            readers.discard(unit)
            if not readers:
                del self._readers[key]
