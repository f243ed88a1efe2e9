"""Records: refused versions, and words about what is not held, as they stand in Consul for all replicas."""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import orjson

from services.gloo.quarantine.held import Place, Version
from services.gloo.refusals import Told
from services.gloo.resources import TypeUrl

MOST_RECORDS = 200  # of all replicas
MOST_STAND_IN = 16 * 1024  # bytes, compressed; of a larger one each replica takes its own
MOST_INFLATED = 4 * 2**20
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, zlib.error)  # what is not ours may raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A refused version as all replicas read it; *since* is Unix time, *good* as ``Held`` has it."""

    version: Version
    good: bytes | None
    node: str
    text: str
    since: float
    owner: str
    accepted: bool = False


@lru_cache(MOST_RECORDS)
def carried(good: bytes | None) -> bytes | None:
    """A stand-in, unless it is too large for a record."""
    return good if good is None or len(zlib.compress(good)) <= MOST_STAND_IN else None


def pack(record: Record) -> bytes:
    place, part, digest = record.version
    good = record.good
    return orjson.dumps(
        {
            **_place(place),
            "part": part,
            "refused": f"{digest:016x}",
            "standsIn": None if good is None else b64encode(zlib.compress(good)).decode() if good else "",
            "envoy": record.node,
            "text": record.text,
            "since": record.since,
            "owner": record.owner,
            "accepted": record.accepted,
        }
    )


def unpack(value: bytes) -> Record:
    """The record; one of ``UNREADABLE`` when it is none."""
    told = orjson.loads(value)
    stands_in = told["standsIn"]
    return Record(
        version=Version(_place_of(told), str(told["part"]), int(told["refused"], 16)),
        good=None if stands_in is None else _inflated(b64decode(stands_in)) if stands_in else b"",
        node=str(told["envoy"]),
        text=str(told["text"]),
        since=float(told["since"]),
        owner=str(told["owner"]),
        accepted=told["accepted"] is True,
    )


def pack_told(told: Iterable[Told]) -> bytes:
    return orjson.dumps([{**_place(each.place), "envoy": each.node, "text": each.text} for each in told])


def unpack_told(value: bytes) -> tuple[Told, ...]:
    listed = orjson.loads(value)
    return tuple(Told(_place_of(each), str(each["envoy"]), str(each["text"])) for each in listed)


def _place(place: Place) -> dict[str, str]:
    return {"role": place.role, "type": place.type_url, "name": place.name}


def _place_of(told: Mapping[str, str]) -> Place:
    return Place(str(told["role"]), TypeUrl(str(told["type"])), str(told["name"]))


def _inflated(packed: bytes) -> bytes:
    """No more than a virtual host can be, whatever was packed."""
    opened = zlib.decompressobj()
    body = opened.decompress(packed, MOST_INFLATED)
    if not opened.eof:
        raise ValueError("what stands in is too large")
    return body
