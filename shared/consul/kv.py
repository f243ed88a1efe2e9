"""Consul KV: reads, check-and-set writes and transactions.

A listing is handed on as Consul's raw rows: a value is base64 text until ``Row.of`` decodes it, since of
ten thousand rows in an answer one has changed.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import orjson

from shared.consul.http import Consistency, parse
from shared.consul.operations import (
    MOST_OPERATIONS,
    Cas,
    CheckIndex,
    CheckSession,
    Delete,
    DeleteCas,
    Get,
    Op,
    Put,
    RawRow,
    Row,
)
from shared.errors import ConsulConflict, ConsulDenied, ConsulRefused

if TYPE_CHECKING:
    from shared.consul.client import Consul


@dataclass(frozen=True, slots=True)
class Listing:
    """One answer to a recursive read; *size* is its bytes."""

    index: int
    rows: list[RawRow]
    size: int


class KV:
    """The KV store of one Consul."""

    def __init__(self, consul: Consul) -> None:
        self.consul = consul

    async def get(self, key: str, consistent: bool = False) -> Row | None:
        operation = f"kv get {key}"
        answer = await self.consul.read(
            f"/v1/kv/{key}", consistency="consistent" if consistent else "default", operation=operation
        )
        rows = cast("list[RawRow] | None", parse(answer, operation))
        return Row.of(rows[0]) if rows else None

    async def list(
        self,
        prefix: str,
        *,
        index: int = 0,
        wait: float | None = None,
        consistency: Consistency = "consistent",
    ) -> tuple[int, list[RawRow]]:
        """The index and the raw rows under *prefix*; with an *index* it parks like ``Consul.read``."""
        listing = await self.read(prefix, index=index, wait=wait, consistency=consistency)
        return listing.index, listing.rows

    async def read(
        self,
        prefix: str,
        *,
        index: int = 0,
        wait: float | None = None,
        consistency: Consistency = "consistent",
        exact: bool = False,
        watching: bool = False,
    ) -> Listing:
        """``list`` with what it cost; *exact* lists the one key *prefix* alone."""
        operation = f"kv list {prefix}"
        answer = await self.consul.read(
            f"/v1/kv/{prefix}",
            () if exact else (("recurse", ""),),
            index=index,
            wait=wait,
            consistency=consistency,
            watching=watching,
            operation=operation,
        )
        rows = cast("list[RawRow] | None", parse(answer, operation))
        return Listing(answer.index, rows or [], len(answer.body))

    async def keys(self, prefix: str) -> Sequence[str]:
        """The keys under *prefix*, without their values."""
        operation = f"kv keys {prefix}"
        answer = await self.consul.read(
            f"/v1/kv/{prefix}", (("keys", ""),), consistency="consistent", operation=operation
        )
        return cast("list[str] | None", parse(answer, operation)) or []

    async def put(self, key: str, value: bytes) -> None:
        await self._write("put", key, value)

    async def cas(self, key: str, value: bytes, index: int) -> bool:
        """Write if *key* is still at *index* (0: does not exist); False when it is not."""
        return await self._write("cas", key, value, cas=index)

    async def delete(self, key: str, index: int | None = None) -> bool:
        """Delete *key*, if given an *index* only while the key is still at it."""
        return await self._send(
            "DELETE", f"kv delete {key}", key, None, {} if index is None else {"cas": index}
        )

    async def delete_prefix(self, prefix: str) -> None:
        """Delete all keys under *prefix*."""
        await self._send("DELETE", f"kv delete {prefix}*", prefix, None, {"recurse": ""})

    async def acquire(self, key: str, value: bytes, session: str) -> bool:
        """Lock *key* with *session*; False when another session holds it, or a lock delay runs."""
        return await self._write("acquire", key, value, acquire=session)

    async def release(self, key: str, session: str) -> bool:
        """Give the lock up; the next holder need not wait for a lock delay."""
        return await self._write("release", key, b"", release=session)

    async def txn(self, ops: Sequence[Op]) -> Mapping[str, Row]:
        """All *ops* or none; a refusal is a ``ConsulConflict``.

        The rows, by key, that were read by ``Get``, and those written by ``Cas``, without their value.
        """
        operation = f"txn of {len(ops)}"
        if len(ops) > MOST_OPERATIONS:
            raise ConsulRefused(operation, f"a transaction takes at most {MOST_OPERATIONS} operations")
        answer = await self.consul.http.request(
            "PUT", "/v1/txn", body=orjson.dumps([{"KV": _operation(op)} for op in ops]), operation=operation
        )
        result = parse(answer, operation)
        if answer.status == 409:
            errors = result["Errors"] or []
            problem = "; ".join(f"operation {error['OpIndex']}: {error['What']}" for error in errors)
            if any("Permission denied" in error["What"] for error in errors):
                raise ConsulDenied(operation, problem, status=403)
            raise ConsulConflict(operation, problem, failed=[error["OpIndex"] for error in errors])
        wanted = {op.key for op in ops if isinstance(op, Get | Cas)}
        rows = (entry["KV"] for entry in result["Results"] or [])
        return {row["Key"]: Row.of(row) for row in rows if row["Key"] in wanted}

    async def _write(self, verb: str, key: str, value: bytes, **params: str | int) -> bool:
        return await self._send("PUT", f"kv {verb} {key}", key, value, params)

    async def _send(
        self, method: str, operation: str, key: str, value: bytes | None, params: Mapping[str, str | int]
    ) -> bool:
        answer = await self.consul.http.request(
            method, f"/v1/kv/{key}", params=params.items(), body=value, operation=operation
        )
        return parse(answer, operation) is True


def _operation(op: Op) -> dict[str, str | int]:
    match op:
        case Put(key, value, flags):
            return {"Verb": "set", "Key": key, "Value": b64encode(value).decode(), "Flags": flags}
        case Cas(key, value, index, flags):
            text = b64encode(value).decode()
            return {"Verb": "cas", "Key": key, "Value": text, "Index": index, "Flags": flags}
        case Delete(key):
            return {"Verb": "delete", "Key": key}
        case DeleteCas(key, index):
            return {"Verb": "delete-cas", "Key": key, "Index": index}
        case CheckSession(key, session):
            return {"Verb": "check-session", "Key": key, "Session": session}
        case CheckIndex(key, index):
            return {"Verb": "check-index", "Key": key, "Index": index}
        case Get(key):
            return {"Verb": "get", "Key": key}
