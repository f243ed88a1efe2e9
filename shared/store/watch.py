"""Watches: every change of a kind of object, decoded, each object on its own.

A value that cannot be used never holds up the others, and never goes unnoticed: it comes as an object
whose report says what is wrong, or, where not even an object can be made out, as one warning in the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Generator, Mapping
from dataclasses import dataclass, field, replace

from shared.consul.blocking import DEFAULTS, PrefixChange, WatchOptions, WatchState, watch_prefix
from shared.consul.kv import KV
from shared.consul.ledger import LOST
from shared.consul.operations import Row
from shared.errors import ConsulError
from shared.ref import Ref
from shared.runtime.backoff import Backoff
from shared.runtime.breath import Breath
from shared.store.chunks import ChunkReader
from shared.store.keys import Kind, key, prefix
from shared.store.kv import KeyValues
from shared.store.objects import Stored, aside, complete, read_value

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectsChange:
    """What is new of a kind. The first change is *initial* and has all there is, be it nothing."""

    kind: Kind
    put: Mapping[Ref, Stored] = field(default_factory=dict)
    gone: frozenset[Ref] = frozenset()
    index: int = 0
    initial: bool = False


def watch_objects(
    kv: KV,
    root: str,
    kind: Kind,
    *,
    namespaces: Collection[str] | None = None,
    options: WatchOptions = DEFAULTS,
    state: WatchState | None = None,
) -> AsyncIterator[ObjectsChange]:
    """Yield all objects of *kind* now, then every change, a status too; end only by cancellation.

    *namespaces* None or empty means all of them.
    """
    rows = watch_prefix(kv, prefix(root, kind), options=options, state=state)
    return decode_changes(rows, kv, root, kind, namespaces)


async def decode_changes(
    changes: AsyncIterator[PrefixChange],
    kv: KeyValues,
    root: str,
    kind: Kind,
    namespaces: Collection[str] | None = None,
) -> AsyncIterator[ObjectsChange]:
    """The objects in changed rows; a change that concerns no object of *namespaces* is left out."""
    table = ObjectTable(kv, root, kind, namespaces)
    async for change in changes:
        objects = await table.take(change)
        if objects.put or objects.gone or objects.initial:
            yield objects


class ObjectTable:
    """What a watch has decoded so far, by key and by reference."""

    def __init__(
        self, kv: KeyValues, root: str, kind: Kind, namespaces: Collection[str] | None = None
    ) -> None:
        self._root = root
        self._kind = kind
        self._namespaces = frozenset(namespaces or ())
        self._chunks = ChunkReader(kv, root)
        self._by_key: dict[str, Stored] = {}
        self._by_ref: dict[Ref, Stored] = {}

    async def take(self, change: PrefixChange) -> ObjectsChange:
        """The change of objects that a change of rows amounts to."""
        touched = {stored.ref for at in change.gone if (stored := self._by_key.pop(at, None))}
        breath = Breath()
        for row in change.changed:
            if (before := self._by_key.pop(row.key, None)) is not None:
                touched.add(before.ref)
            if (stored := await self._decode(row, before)) is not None:
                self._by_key[row.key] = stored
                touched.add(stored.ref)
            await breath.take()
        put, gone = await breath.between(self._settle(touched))
        return ObjectsChange(kind=self._kind, put=put, gone=gone, index=change.index, initial=change.initial)

    async def _decode(self, row: Row, before: Stored | None) -> Stored | None:
        if before is not None and before.raw == row.value and before.message is not None:
            return replace(before, index=row.index)
        stored = await aside(row.value, read_value, self._root, row.key, row.value, row.index)
        if stored is None or stored.kind is not self._kind:
            # Consul's own web page makes empty keys that end with a slash, and calls them folders.
            if row.value or not row.key.endswith("/"):
                log.warning("this key holds no object and is ignored", extra=_where(row))
            return None
        if self._namespaces and stored.ref.namespace not in self._namespaces:
            return None
        if stored.document is None and row.value != LOST:
            problem = str(stored.report.errors[0])
            log.warning("a value cannot be read", extra=_where(row) | {"problem": problem})
        return await self._complete(stored, before)

    async def _complete(self, stored: Stored, before: Stored | None) -> Stored:
        backoff = Backoff(0.1, 5.0)
        while True:
            try:
                return await complete(stored, self._chunks, before)
            except ConsulError as error:
                if not error.retryable:
                    raise
                log.warning(
                    "cannot read chunks, trying again", extra={"key": stored.key, "error": str(error)}
                )
                await asyncio.sleep(backoff.next())

    def _settle(self, touched: set[Ref]) -> Generator[None, None, tuple[dict[Ref, Stored], frozenset[Ref]]]:
        """What differs at the *touched* references, a step each: objects to put, objects gone."""
        put: dict[Ref, Stored] = {}
        gone: set[Ref] = set()
        for ref in sorted(touched):
            holder = self._holder(ref)
            if holder is None:
                gone.update(() if self._by_ref.pop(ref, None) is None else (ref,))
            elif self._by_ref.get(ref) is not holder:
                put[ref] = self._by_ref[ref] = holder
            yield
        for ref in gone:
            self._chunks.forget(ref)
        return put, frozenset(gone)

    def _holder(self, ref: Ref) -> Stored | None:
        """The object at the key that bears its name; only without one, the object at the nameless key."""
        named = self._by_key.get(key(self._root, self._kind, ref))
        nameless = self._by_key.get(prefix(self._root, self._kind) + ref.namespace)
        return named or (nameless if nameless is not None and nameless.ref == ref else None)


def _where(row: Row) -> dict[str, object]:
    return {"key": row.key, "index": row.index}
