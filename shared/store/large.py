"""Large Proxies: written as a manifest and chunks, and the chunks cleared away when nothing needs them.

A Proxy up to ``PLAIN_BYTES`` is one JSON document. Of a larger one no chunk is written after the manifest,
so that a reader finds either the old Proxy or the new one; changing one virtual host writes one chunk and the
manifest, in one transaction, and the manifest brings the chunk along.
"""

from __future__ import annotations

import asyncio
import logging
import time
from base64 import b64encode
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import orjson

from shared.codec.text import parse
from shared.consul.operations import Cas, Delete, Op, Put, Row
from shared.errors import ConsulConflict, InvalidDocument, InvalidResource
from shared.ref import Ref
from shared.runtime.breath import Breath
from shared.store.chunks import (
    ANNOTATION,
    ENCODING,
    ChunkReader,
    MissingChunk,
    cut,
    digest,
    digest_of,
    grouped,
    is_manifest,
    join,
    names,
)
from shared.store.keys import PROXY, chunk_prefix, key, prefix
from shared.store.kv import MOST_BYTES, Fence, KeyValues, batches, body_bytes

log = logging.getLogger(__name__)

PLAIN_BYTES: Final = 16 * 1024
LIST_BYTES: Final = 32 * 1024
FRESH_BYTES: Final = 12 * 1024
KEPT_MANIFESTS: Final = 3
KEPT_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Part:
    """The next member of the list at *path* (``listeners[0].httpListener.virtualHosts``), as JSON."""

    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Written:
    """What stands at a Proxy's key now, the manifest of a large one, and its index."""

    index: int
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Manifest:
    """The text for the Proxy's key, all it lists by body, and the values of it that are not there yet."""

    text: bytes
    listed: Mapping[bytes, str]
    values: Mapping[str, bytes]


def render(skeleton: Mapping[str, Any], parts: Sequence[Part]) -> bytes | None:
    """The Proxy as one document that people can read; None when it is large."""
    if sum(len(part.body) for part in parts) > PLAIN_BYTES:
        return None
    lists: defaultdict[str, list[Any]] = defaultdict(list)
    for part in parts:
        lists[part.path].append(orjson.Fragment(part.body))
    text = orjson.dumps(join(skeleton, lists))
    if len(text) > PLAIN_BYTES:
        return None
    return orjson.dumps(orjson.loads(text), option=orjson.OPT_INDENT_2)


class ProxyWriter:
    """Writes Proxies of any size and clears away the chunks that none of them needs any more.

    It remembers which chunks exist, so that only new ones are written; ``forget`` when another process may
    have written or cleared chunks meanwhile, that is, with each new term of leadership.
    """

    def __init__(
        self,
        kv: KeyValues,
        root: str,
        *,
        fence: Fence | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kv = kv
        self._root = root
        self._prefix = chunk_prefix(root, PROXY)
        self._fence = fence
        self._clock = clock
        self._lock = asyncio.Lock()
        self._used: dict[str, float] | None = None
        """Every chunk that exists, with when it last dropped out of use, or was first seen."""
        self._entries: dict[str, str] = {}
        """By digest, how the chunks that are there for certain are listed."""
        self._listed: dict[Ref, Mapping[bytes, str]] = {}
        """What the last manifest of a Proxy lists, by body: most of the next one's are the same."""
        self._kept: defaultdict[Ref, deque[frozenset[str]]] = defaultdict(
            lambda: deque(maxlen=KEPT_MANIFESTS)
        )

    def forget(self) -> None:
        self._used = None

    async def write(
        self, ref: Ref, skeleton: Mapping[str, Any], parts: Sequence[Part], index: int
    ) -> Written | None:
        """Write the Proxy over the one at *index* (0: there is none).

        None means that the Proxy is no longer at *index*, or that we do not lead: read it again.
        """
        async with self._lock:
            text, manifest = render(skeleton, parts), None
            try:
                if text is None:
                    manifest = await self._manifest(ref, skeleton, parts, fresh=index == 0)
                    text = manifest.text
                found = await self._put(
                    manifest.values if manifest else {}, Cas(key(self._root, PROXY, ref), text, index)
                )
            except ConsulConflict:
                return None
            if manifest is not None:
                self._note_written(ref, manifest)
            elif ref in self._kept:
                self._keep(ref, frozenset())
            return Written(found, orjson.loads(text))

    async def collect(self) -> int:
        """Delete the chunks that nothing has needed for a while; how many there were."""
        async with self._lock:
            now, used = self._clock(), await self._load()
            stored = await self._kv.keys(prefix(self._root, PROXY))
            for ref in [ref for ref in self._kept if key(self._root, PROXY, ref) not in stored]:
                used.update(dict.fromkeys(frozenset().union(*self._kept.pop(ref)), now))
                self._listed.pop(ref, None)
            live = await self._live(stored)
            if live is None:
                return 0
            for manifests in self._kept.values():
                live = live.union(*manifests)
            dead = [name for name, at in used.items() if name not in live and now - at > KEPT_SECONDS]
            for group in batches((name, Delete(self._prefix + name)) for name in dead):
                try:
                    await self._kv.txn([*self._proof(), *(op for _, op in group)])
                except ConsulConflict:
                    return 0
                for name, _ in group:
                    del used[name]
                    self._entries.pop(name.partition(".")[0], None)
            return len(dead)

    async def _manifest(
        self, ref: Ref, skeleton: Mapping[str, Any], parts: Sequence[Part], *, fresh: bool
    ) -> _Manifest:
        if fresh or self._used is None:
            self._listed.clear()
            await self._load()
        values: dict[str, bytes] = {}
        before, listed = self._listed.get(ref, {}), dict[bytes, str]()

        def entry_of(body: bytes) -> str:
            entry = before.get(body) or listed.get(body) or self._entry(body, values)
            listed[body] = entry
            return entry

        lists: defaultdict[str, list[str]] = defaultdict(list)
        breath = Breath()
        for part in parts:
            lists[part.path].append(entry_of(part.body))
            await breath.take()
        form = "lists"
        if sum(map(len, listed.values())) > LIST_BYTES:
            form = "groups"
            for path, entries in lists.items():
                lists[path] = [entry_of(orjson.dumps(" ".join(group))) for group in grouped(entries)]
        listing = {"encoding": ENCODING, form: {path: " ".join(found) for path, found in lists.items()}}
        if brought := _fresh(values):
            listing["fresh"] = brought
        document = _annotated(skeleton, orjson.dumps(listing).decode())
        return _Manifest(orjson.dumps(document, option=orjson.OPT_INDENT_2), listed, values)

    async def _put(self, values: Mapping[str, bytes], proxy: Cas) -> int:
        """Write *values* and then *proxy*, in one transaction if it can hold them; the new index."""
        wanted: list[Op] = [Put(self._prefix + name, value) for name, value in values.items()]
        rows: Mapping[str, Row] = {}
        for group in batches((op.key, op) for op in [*wanted, proxy]):
            ops = [op for _, op in group]
            if ops == [proxy] and body_bytes(proxy) > MOST_BYTES:
                return await self._put_alone(proxy)
            rows = await self._kv.txn([*self._proof(), *ops])
        return rows[proxy.key].index

    async def _put_alone(self, proxy: Cas) -> int:
        """Write a value too long for a transaction, in which it would be base64."""
        if proof := self._proof():
            await self._kv.txn(proof)
        if await self._kv.cas(proxy.key, proxy.value, proxy.index):
            row = await self._kv.get(proxy.key, consistent=True)
            if row is not None and row.value == proxy.value:
                return row.index
        raise ConsulConflict(f"kv cas {proxy.key}", "the key has changed")

    def _note_written(self, ref: Ref, manifest: _Manifest) -> None:
        now = self._clock()
        for name in manifest.values:
            self._entries[name.partition(".")[0]] = name
            (self._used or {}).setdefault(name, now)
        entries = manifest.listed.values()
        self._entries.update({digest_of(entry): entry for entry in entries if ":" in entry})
        self._listed[ref] = manifest.listed
        self._keep(ref, frozenset(chain.from_iterable(map(names, entries))))

    def _keep(self, ref: Ref, needed: frozenset[str]) -> None:
        """Note what the latest manifest needs; what the oldest one needed has been in use until now."""
        manifests = self._kept[ref]
        if len(manifests) == KEPT_MANIFESTS and self._used is not None:
            self._used.update(dict.fromkeys(manifests[0] - needed, self._clock()))
        manifests.append(needed)

    def _entry(self, body: bytes, values: dict[str, bytes]) -> str:
        """How *body* is listed; what has to be written for it is added to *values*."""
        if (known := self._entries.get(digest(body))) is not None:
            return known
        entry, pieces = cut(body)
        values.update(pieces)
        return entry

    def _proof(self) -> list[Op]:
        """What goes first in a transaction of a leader."""
        if self._fence is None:
            return []
        if (op := self._fence()) is None:
            raise ConsulConflict("write proxy", "this process does not lead")
        return [op]

    async def _load(self) -> dict[str, float]:
        """The chunks that exist, each with when it was last needed: for strangers, now."""
        now, before = self._clock(), self._used or {}
        found = [name.removeprefix(self._prefix) for name in await self._kv.keys(self._prefix)]
        self._used = {name: before.get(name, now) for name in found}
        # A chunk in pieces that we did not write ourselves may lack some.
        known = {
            entry for entry in self._entries.values() if all(name in self._used for name in names(entry))
        }
        known.update(name for name in found if "." not in name)
        self._entries = {digest_of(entry): entry for entry in known}
        return self._used

    async def _live(self, stored: Sequence[str]) -> set[str] | None:
        """The chunks that the Proxies at the keys *stored* list; None when one's list cannot be read."""
        reader, live = ChunkReader(self._kv, self._root), set[str]()
        for stored_at in stored:
            row = await self._kv.get(stored_at, consistent=True)
            try:
                document = parse(row.value) if row is not None else {}
                if is_manifest(document):
                    live |= await reader.names(document)
            except InvalidDocument:
                continue
            except (InvalidResource, MissingChunk) as error:
                log.warning(
                    "chunks are kept: a proxy's list of them cannot be read",
                    extra={"key": stored_at, "error": str(error)},
                )
                return None
        return live


def _fresh(values: Mapping[str, bytes]) -> dict[str, str]:
    """What a manifest brings along of the *values* that it is the first to list: all, if they are short."""
    texts = {name: b64encode(value).decode() for name, value in values.items() if "." not in name}
    return texts if sum(map(len, texts.values())) <= FRESH_BYTES else {}


def _annotated(skeleton: Mapping[str, Any], listed: str) -> dict[str, Any]:
    metadata = skeleton.get("metadata") or {}
    annotations = {**(metadata.get("annotations") or {}), ANNOTATION: listed}
    return {**skeleton, "metadata": {**metadata, "annotations": annotations}}
