"""All objects of all kinds at one moment, as a value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias, TypeVar

from shared.ref import Ref

V = TypeVar("V")

ALL: Final = "*"
"""In place of a reference: every object of the kind; no object can have this name."""

Key: TypeAlias = tuple[str, Ref | str]

_EMPTY: Mapping[Ref, Any] = MappingProxyType({})


class View(Mapping[tuple[str, Ref], V]):
    """An immutable mapping of (kind's name, reference) to value; a patch copies only its own kind."""

    __slots__ = ("_kinds",)

    def __init__(self, kinds: Mapping[str, Mapping[Ref, V]] | None = None) -> None:
        self._kinds: Mapping[str, Mapping[Ref, V]] = kinds or {}

    def of(self, kind: str) -> Mapping[Ref, V]:
        """The objects of one kind; the mapping is never changed again, but is not to be written to."""
        return self._kinds.get(kind, _EMPTY)

    def look(self, key: Key) -> V | Mapping[Ref, V] | None:
        """What stands at *key*: one object or None, or for ``(kind, ALL)`` the whole kind."""
        kind, ref = key
        return self.of(kind).get(ref) if isinstance(ref, Ref) else self.of(kind)

    def patched(self, kind: str, *, put: Mapping[Ref, V] | None = None, drop: Iterable[Ref] = ()) -> View[V]:
        """The view after a change to one kind; ``self`` stays what it was."""
        members = dict(self.of(kind))
        for ref in drop:
            members.pop(ref, None)
        members.update(put or {})
        return View({**self._kinds, kind: members})

    def __getitem__(self, key: tuple[str, Ref]) -> V:
        kind, ref = key
        return self._kinds[kind][ref]

    def __iter__(self) -> Iterator[tuple[str, Ref]]:
        return ((kind, ref) for kind, members in self._kinds.items() for ref in members)

    def __len__(self) -> int:
        return sum(map(len, self._kinds.values()))


def changed_keys(kind: str, refs: Iterable[Ref]) -> set[Key]:
    """The keys whose readers a change of *refs* concerns: each of them, and the kind as a whole."""
    keys: set[Key] = {(kind, ref) for ref in refs}
    return keys | {(kind, ALL)} if keys else keys
