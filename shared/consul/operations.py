"""Rows of Consul's KV and the operations of its transactions, as values; imports no client."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass
from typing import TypedDict

MOST_OPERATIONS = 64
"""That one transaction may hold."""


class RawRow(TypedDict, total=False):
    """A row as Consul writes it."""

    Key: str
    Value: str | None
    Flags: int
    CreateIndex: int
    ModifyIndex: int
    LockIndex: int
    Session: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A key and its decoded value; *session* holds its lock, if any does."""

    key: str
    value: bytes
    index: int
    flags: int = 0
    session: str = ""

    @classmethod
    def of(cls, raw: RawRow) -> Row:
        return cls(
            key=raw["Key"],
            value=b64decode(raw["Value"] or b""),
            index=raw["ModifyIndex"],
            flags=raw["Flags"],
            session=raw.get("Session", ""),
        )


@dataclass(frozen=True, slots=True)
class Put:
    """Write, whatever is there."""

    key: str
    value: bytes
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Cas:
    """Write if the key is still at *index*; 0 means: if it does not exist."""

    key: str
    value: bytes
    index: int
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    key: str


@dataclass(frozen=True, slots=True)
class DeleteCas:
    """Delete if the key is still at *index*."""

    key: str
    index: int


@dataclass(frozen=True, slots=True)
class CheckSession:
    """Go on only while *session* holds the lock on *key*: the fence before a leader's writes."""

    key: str
    session: str


@dataclass(frozen=True, slots=True)
class CheckIndex:
    """Go on only while *key* is at *index*."""

    key: str
    index: int


@dataclass(frozen=True, slots=True)
class Get:
    """Read; a missing key fails the transaction."""

    key: str


Op = Put | Cas | Delete | DeleteCas | CheckSession | CheckIndex | Get
