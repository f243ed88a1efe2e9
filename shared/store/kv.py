"""What the store asks of a key-value store, and how its writes are packed into transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias, TypeVar

from shared.consul.operations import MOST_OPERATIONS, Op, Row

Fence: TypeAlias = Callable[[], Op | None]
"""Gives the operation that proves we lead, to go first in a transaction; None while we do not lead."""

MOST_BYTES = 450_000
"""Of a transaction's body, in which values are base64: Consul takes 512 KiB."""

MOST_VALUE_BYTES = 512 * 1024

T = TypeVar("T")


class Transactions(Protocol):
    """As much as it takes to read several keys at once."""

    async def txn(self, ops: Sequence[Op]) -> Mapping[str, Row]: ...


class KeyValues(Transactions, Protocol):
    """Consul's KV, or its twin in memory."""

    async def get(self, key: str, consistent: bool = False) -> Row | None: ...
    async def keys(self, prefix: str) -> Sequence[str]: ...
    async def put(self, key: str, value: bytes) -> None: ...
    async def cas(self, key: str, value: bytes, index: int) -> bool: ...
    async def delete(self, key: str, index: int | None = None) -> bool: ...


def batches(ops: Iterable[tuple[T, Op]], *, most: int = MOST_OPERATIONS - 1) -> Iterator[list[tuple[T, Op]]]:
    """*ops*, each with whatever the caller knows it by, in groups that one transaction can carry.

    One operation of the sixty-four is left for the fence. An operation too big for any transaction comes
    alone.
    """
    group: list[tuple[T, Op]] = []
    size = 0
    for item in ops:
        cost = body_bytes(item[1])
        if group and (len(group) == most or size + cost > MOST_BYTES):
            yield group
            group, size = [], 0
        group.append(item)
        size += cost
    if group:
        yield group


def body_bytes(op: Op) -> int:
    """About what *op* takes in a transaction's body."""
    return len(getattr(op, "value", b"")) * 4 // 3 + len(op.key) + 100
