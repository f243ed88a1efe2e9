"""Chunks: the parts of a document too large for one value, named by their content.

Consul takes values up to 512 KB. The key of a larger Proxy holds a manifest: the Proxy without its virtual
hosts, still a valid Proxy, with an annotation that lists them by content hash. Their bodies lie, zipped,
under ``<root>/_chunks/Proxy/<hash>``, where no watch sees them. A body that stays long is cut in pieces,
``<hash>.0``, ``<hash>.1``, and listed as ``<hash>:2``. What a manifest is the first to list it brings along
too, if that is short, so that whoever knows the one before need not ask again.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from hashlib import blake2b
from itertools import chain
from typing import Any, Final

import orjson

from shared.consul.operations import Get
from shared.errors import ConsulConflict, ControlPlaneError, InvalidResource
from shared.ref import Ref
from shared.runtime.breath import Breath
from shared.store.keys import PROXY, chunk_prefix
from shared.store.kv import Transactions, batches

ANNOTATION: Final = "gloo.consul/chunks"
ENCODING: Final = "zlib"
PARTS: Final = ("lists", "groups", "fresh")
PIECE_BYTES: Final = 300 * 1024
MOST_BYTES: Final = 32 * 1024 * 1024
PAUSES: Final = (0.1, 0.3, 1.0)
_AT: Final = f"metadata.annotations[{ANNOTATION}]"
_STEP = re.compile(r"([A-Za-z_]+)(?:\[(\d+)\])?")
_ENDS: Final = tuple(f"A{second}" for second in "ABCDEFGHIJKLMNOP")
_ENTRY = re.compile(r"([A-Za-z0-9_-]{22})(?::(\d{1,4}))?")


class MissingChunk(ControlPlaneError):
    """A chunk that a manifest lists is not there, or is not what its name says."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"chunk {name}: {problem}")
        self.name = name
        self.problem = problem


# Cutting and joining: no I/O


def is_manifest(document: Mapping[str, Any]) -> bool:
    """Whether *document* stands for a larger one."""
    metadata = document.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, Mapping) else None
    return isinstance(annotations, Mapping) and ANNOTATION in annotations


def join(skeleton: Mapping[str, Any], lists: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """*skeleton*, copied, with each list put at its path."""
    document = deepcopy(dict(skeleton))
    for path, members in lists.items():
        *steps, last = path.split(".")
        place: Any = document
        for step in steps:
            place = _step(place, step, path)
        if not isinstance(place, dict):
            raise InvalidResource(path, "the manifest has no such place")
        place[last] = list(members)
    return document


def _step(place: Any, step: str, path: str) -> Any:
    match = _STEP.fullmatch(step)
    try:
        if match is None:
            raise LookupError
        name, index = match.groups()
        return place[name] if index is None else place[name][int(index)]
    except (LookupError, TypeError):
        raise InvalidResource(path, "the manifest has no such place") from None


def cut(body: bytes) -> tuple[str, dict[str, bytes]]:
    """How a manifest lists *body*, and the values that hold it: several when it stays long compressed."""
    packed, name = zlib.compress(body), digest(body)
    starts = range(0, len(packed), PIECE_BYTES)
    entry = name if len(starts) == 1 else f"{name}:{len(starts)}"
    pieces = (packed[start : start + PIECE_BYTES] for start in starts)
    return entry, dict(zip(names(entry), pieces, strict=True))


def names(entry: str) -> tuple[str, ...]:
    """The keys, below the chunks' prefix, that hold what a manifest lists as *entry*."""
    name, _, count = entry.partition(":")
    return tuple(f"{name}.{i}" for i in range(int(count))) if count else (name,)


def grouped(entries: Iterable[str]) -> Iterator[list[str]]:
    """*entries* in groups of about 256, which a longer list is written in.

    The entries themselves say where a group ends, so one more or less changes its own group alone.
    """
    group: list[str] = []
    for entry in entries:
        group.append(entry)
        if entry.startswith(_ENDS):
            yield group
            group = []
    if group:
        yield group


def digest(body: bytes) -> str:
    """Twenty-two characters that name *body*."""
    return urlsafe_b64encode(blake2b(body, digest_size=16).digest()).decode().rstrip("=")


def digest_of(entry: str) -> str:
    return entry.partition(":")[0]


def _unpack(entry: str, packed: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        body = unpacker.decompress(packed, MOST_BYTES)
    except zlib.error as error:
        raise MissingChunk(entry, f"cannot be unpacked: {error}") from None
    if unpacker.unconsumed_tail:
        raise MissingChunk(entry, f"unpacks to more than {MOST_BYTES >> 20} MB")
    if digest(body) != digest_of(entry):
        raise MissingChunk(entry, "is not what its name says")
    return body


def _brought(entry: str, text: object) -> bytes:
    """The body that a manifest brings along."""
    try:
        packed = b64decode(str(text), validate=True)
    except ValueError:
        raise MissingChunk(entry, "cannot be unpacked: it is not base64") from None
    return _unpack(entry, packed)


# Reading


class ChunkReader:
    """Makes whole Proxies of manifests; what an earlier manifest of the Proxy listed is not read again.

    The members it hands out are shared between readings: an unchanged virtual host is the very same object.
    """

    def __init__(self, kv: Transactions, root: str) -> None:
        self._kv = kv
        self._prefix = chunk_prefix(root, PROXY)
        self._held: dict[Ref, dict[str, Any]] = {}
        self.read_bytes = 0
        """How much was new in the last reading."""

    async def read(self, ref: Ref, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """The Proxy that *manifest* stands for; raises ``MissingChunk`` or ``InvalidResource``.

        A missing chunk is looked for again for a while: the manifest may have come from another server.
        """
        held, self.read_bytes = self._held.get(ref, {}), 0
        listing = _listing(manifest)
        lists, groups = await self._lists(listing, held)
        members = await self._values(chain.from_iterable(lists.values()), held, listing)
        self._held[ref] = groups | members
        metadata = manifest["metadata"]
        annotations = {name: text for name, text in metadata["annotations"].items() if name != ANNOTATION}
        metadata = {name: value for name, value in metadata.items() if name != "annotations"}
        if annotations:
            metadata["annotations"] = annotations
        skeleton = {**manifest, "metadata": metadata}
        return join(skeleton, {path: [members[entry] for entry in lists[path]] for path in lists})

    def forget(self, ref: Ref) -> None:
        self._held.pop(ref, None)

    async def names(self, manifest: Mapping[str, Any]) -> set[str]:
        """All keys below the chunks' prefix that *manifest* needs."""
        lists, groups = await self._lists(_listing(manifest), {})
        return {name for entry in chain(groups, *lists.values()) for name in names(entry)}

    async def _lists(
        self, listing: Mapping[str, Any], held: Mapping[str, Any]
    ) -> tuple[dict[str, list[str]], dict[str, Any]]:
        """The entries of each list, by its path, and the groups that they were found in."""
        lists = {path: _entries(text) for path, text in (listing.get("lists") or {}).items()}
        heads = {path: _entries(text) for path, text in (listing.get("groups") or {}).items()}
        groups = await self._values(chain.from_iterable(heads.values()), held, listing, _entries)
        for path, entries in heads.items():
            lists[path] = [*chain.from_iterable(groups[group] for group in entries)]
        return lists, groups

    async def _values(
        self,
        entries: Iterable[str],
        held: Mapping[str, Any],
        listing: Mapping[str, Any],
        made: Callable[[Any], Any] = lambda value: value,
    ) -> dict[str, Any]:
        """What the chunks say, each *made* into what it is kept as; from *held* where that has it."""
        wanted, brought = dict.fromkeys(entries), listing.get("fresh") or {}
        new = [entry for entry in wanted if entry not in held]
        fresh = {entry: _brought(entry, brought[entry]) for entry in new if entry in brought}
        fresh |= await self._bodies([entry for entry in new if entry not in fresh])
        self.read_bytes += sum(map(len, fresh.values()))
        breath, values = Breath(), dict[str, Any]()
        for entry, body in fresh.items():
            values[entry] = made(_loaded(entry, body))
            await breath.take()
        return {entry: held[entry] if entry in held else values[entry] for entry in wanted}

    async def _bodies(self, entries: Sequence[str]) -> dict[str, bytes]:
        for pause in PAUSES:
            try:
                return await self._read(entries)
            except MissingChunk:
                await asyncio.sleep(pause)
        return await self._read(entries)

    async def _read(self, entries: Sequence[str]) -> dict[str, bytes]:
        wanted = [(entry, Get(self._prefix + name)) for entry in entries for name in names(entry)]
        packed = dict.fromkeys(entries, b"")
        for group in batches(wanted):
            try:
                rows = await self._kv.txn([get for _, get in group])
            except ConsulConflict as conflict:
                missing = [group[i][0] for i in conflict.failed] or [group[0][0]]
                raise MissingChunk(missing[0], "is not there") from conflict
            for entry, get in group:
                packed[entry] += rows[get.key].value
        breath, bodies = Breath(), dict[str, bytes]()
        for entry, body in packed.items():
            bodies[entry] = _unpack(entry, body)
            await breath.take()
        return bodies


def _listing(manifest: Mapping[str, Any]) -> dict[str, Any]:
    try:
        listing = orjson.loads(manifest["metadata"]["annotations"][ANNOTATION])
    except orjson.JSONDecodeError:
        listing = None
    parts = [listing.get(part, {}) for part in PARTS] if isinstance(listing, dict) else []
    if not parts or listing.get("encoding") != ENCODING or not all(isinstance(part, dict) for part in parts):
        raise InvalidResource(_AT, "is no list of chunks that this release can read")
    return dict(listing)


def _entries(text: object) -> list[str]:
    """The entries in *text*, none of which leads anywhere but to a chunk."""
    entries = str(text).split()
    for entry in entries:
        if not _ENTRY.fullmatch(entry):
            raise MissingChunk(entry, "is no name of a chunk")
    return entries


def _loaded(entry: str, body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise MissingChunk(entry, "is not JSON") from None
