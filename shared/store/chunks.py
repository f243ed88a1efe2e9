"""Chunks: the parts of a document too large for one value, named by their content.

Consul takes values up to 512 KB. The key of a larger Proxy holds a manifest: the Proxy without its virtual
hosts, still a valid Proxy, with an annotation that lists them by content hash. Their bodies lie, zipped,
under ``<root>/_chunks/Proxy/<hash>``, where no watch sees them. A body that stays long is cut in pieces,
``<hash>.0``, ``<hash>.1``, and listed as ``<hash>:2``.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from copy import deepcopy
from hashlib import blake2b
from typing import Any, Final

import orjson

from shared.consul.kv import Get
from shared.errors import ConsulConflict, ControlPlaneError, InvalidResource
from shared.ref import Ref
from shared.store.keys import PROXY, chunk_prefix
from shared.store.kv import KeyValues, batches

ANNOTATION: Final = "gloo.consul/chunks"
ENCODING: Final = "zlib"
PIECE_BYTES: Final = 300 * 1024
MOST_BYTES: Final = 32 * 1024 * 1024
PAUSES: Final = (0.1, 0.3, 1.0)
_AT: Final = f"metadata.annotations[{ANNOTATION}]"
_STEP = re.compile(r"([A-Za-z_]+)(?:\[(\d+)\])?")
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


def names(entry: str) -> list[str]:
    """The keys, below the chunks' prefix, that hold what a manifest lists as *entry*."""
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise MissingChunk(entry, "is no name of a chunk")
    name, count = match.groups()
    return [name] if count is None else [f"{name}.{i}" for i in range(int(count))]


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


# Reading


class ChunkReader:
    """Makes whole Proxies of manifests; what an earlier manifest of the Proxy listed is not read again.

    The members it hands out are shared between readings: an unchanged virtual host is the very same object.
    """

    def __init__(self, kv: KeyValues, root: str) -> None:
        self._kv = kv
        self._prefix = chunk_prefix(root, PROXY)
        self._held: dict[Ref, dict[str, Any]] = {}

    async def read(self, ref: Ref, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """The Proxy that *manifest* stands for; raises ``MissingChunk`` or ``InvalidResource``.

        A missing chunk is looked for again for a while: the manifest may have come from another server.
        """
        lists = await self.lists(manifest)
        held = self._held.get(ref, {})
        wanted = dict.fromkeys(entry for entries in lists.values() for entry in entries)
        fresh = await self._bodies([entry for entry in wanted if entry not in held])
        members = {entry: held[entry] if entry in held else _loaded(entry, fresh[entry]) for entry in wanted}
        self._held[ref] = members
        metadata = manifest["metadata"]
        annotations = {name: text for name, text in metadata["annotations"].items() if name != ANNOTATION}
        skeleton = {**manifest, "metadata": {**metadata, "annotations": annotations}}
        return join(skeleton, {path: [members[entry] for entry in lists[path]] for path in lists})

    def forget(self, ref: Ref) -> None:
        self._held.pop(ref, None)

    async def lists(self, manifest: Mapping[str, Any]) -> dict[str, list[str]]:
        """The entries that *manifest* lists, by the path of the list they belong in."""
        listed = _listed(manifest["metadata"]["annotations"][ANNOTATION])
        if "index" in listed:
            (body,) = (await self._bodies([str(listed["index"])])).values()
            listed = _listed(body)
        lists = listed.get("lists")
        if listed.get("encoding") != ENCODING or not isinstance(lists, dict):
            raise InvalidResource(_AT, "is no list of chunks that this release can read")
        return {path: str(entries).split() for path, entries in lists.items()}

    async def names(self, manifest: Mapping[str, Any]) -> set[str]:
        """All keys below the chunks' prefix that *manifest* needs."""
        index = _listed(manifest["metadata"]["annotations"][ANNOTATION]).get("index")
        entries = [entry for listed in (await self.lists(manifest)).values() for entry in listed]
        return {name for entry in [*entries, *([str(index)] if index else [])] for name in names(entry)}

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
        return {entry: _unpack(entry, body) for entry, body in packed.items()}


def _listed(text: str | bytes) -> dict[str, Any]:
    try:
        listed = orjson.loads(text)
    except orjson.JSONDecodeError:
        listed = None
    if not isinstance(listed, dict):
        raise InvalidResource(_AT, "is not JSON")
    return listed


def _loaded(entry: str, body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise MissingChunk(entry, "is not JSON") from None
