"""Consul's KV in memory: the same reads, check-and-set writes, transactions and watches, for one process.

For wiring tests, and for working on objects where there is no Consul: a directory of documents can be put
in and go the whole way. ``Store``, ``StatusWriter`` and the rest take it in Consul's place.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import replace

from shared.consul.blocking import PrefixChange
from shared.consul.operations import Cas, CheckIndex, CheckSession, Delete, DeleteCas, Get, Op, Put, Row
from shared.errors import ConsulConflict
from shared.store.keys import Kind, prefix
from shared.store.watch import ObjectsChange, decode_changes


class MemoryKV:
    """Rows by key, and an index that every change moves."""

    def __init__(self, rows: Mapping[str, bytes] | None = None) -> None:
        self.rows: dict[str, Row] = {}
        self.index = 1
        self.locks: dict[str, str] = {}
        """Which session holds which key, for ``CheckSession``."""
        self._moved = asyncio.Event()
        for key, value in (rows or {}).items():
            self._apply([Put(key, value)])

    async def get(self, key: str, consistent: bool = False) -> Row | None:
        return self.rows.get(key)

    async def keys(self, prefix: str) -> Sequence[str]:
        return sorted(key for key in self.rows if key.startswith(prefix))

    async def put(self, key: str, value: bytes) -> None:
        self._apply([Put(key, value)])

    async def cas(self, key: str, value: bytes, index: int) -> bool:
        return self._try([Cas(key, value, index)])

    async def delete(self, key: str, index: int | None = None) -> bool:
        return self._try([Delete(key) if index is None else DeleteCas(key, index)])

    async def txn(self, ops: Sequence[Op]) -> Mapping[str, Row]:
        written = {op.key for op in ops if isinstance(op, Put | Cas)}
        if failed := [
            i
            for i, op in enumerate(ops)
            if not (self._holds(op) or (isinstance(op, Get) and op.key in written))
        ]:
            raise ConsulConflict(f"txn of {len(ops)}", "refused", failed=failed)
        self._apply(ops)
        swapped = {op.key: replace(self.rows[op.key], value=b"") for op in ops if isinstance(op, Cas)}
        return swapped | {op.key: self.rows[op.key] for op in ops if isinstance(op, Get)}

    async def watch(self, prefix: str) -> AsyncIterator[PrefixChange]:
        """Yield what is under *prefix*, then every change, as ``watch_prefix`` does of Consul."""
        known: dict[str, int] = {}
        initial = True
        while True:
            moved, index = self._moved, self.index
            rows = {key: row for key, row in self.rows.items() if key.startswith(prefix)}
            changed = tuple(row for key, row in sorted(rows.items()) if known.get(key) != row.index)
            gone = frozenset(known.keys() - rows.keys())
            known = {key: row.index for key, row in rows.items()}
            if changed or gone or initial:
                yield PrefixChange(changed=changed, gone=gone, index=index, initial=initial)
            initial = False
            await moved.wait()

    def _try(self, ops: Sequence[Op]) -> bool:
        holds = all(self._holds(op) for op in ops)
        if holds:
            self._apply(ops)
        return holds

    def _holds(self, op: Op, written: Collection[str] = ()) -> bool:
        at = row.index if (row := self.rows.get(op.key)) else 0
        match op:
            case Cas(index=index) | CheckIndex(index=index):
                return at == index
            case DeleteCas(index=index):
                return at in (0, index)
            case CheckSession(key, session):
                return self.locks.get(key) == session
            case Get(key):
                return at > 0 or key in written
            case _:
                return True

    def _apply(self, ops: Sequence[Op]) -> None:
        index = self.index + 1
        for op in ops:
            match op:
                case Put(key, value, flags) | Cas(key, value, _, flags):
                    before = self.rows.get(key)
                    if before is None or before.value != value:
                        self.rows[key] = Row(key=key, value=value, index=index, flags=flags)
                        self.index = index
                case Delete(key) | DeleteCas(key, _):
                    if self.rows.pop(key, None) is not None:
                        self.index = index
        if self.index == index:
            moved, self._moved = self._moved, asyncio.Event()
            moved.set()


def watch_memory(
    kv: MemoryKV, root: str, kind: Kind, *, namespaces: Collection[str] | None = None
) -> AsyncIterator[ObjectsChange]:
    """``watch_objects`` for what is in memory."""
    return decode_changes(kv.watch(prefix(root, kind)), kv, root, kind, namespaces)
