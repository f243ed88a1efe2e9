"""Proxies written: only when they differ, only over what we know, only while we lead."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson
from prometheus_client import Counter

from services.gateway.composition import Rendered
from services.gateway.inputs import StoredProxy
from shared.codec.text import parse
from shared.consul.operations import DeleteCas
from shared.errors import ConsulConflict, InvalidDocument, InvalidResource
from shared.ref import Ref
from shared.runtime.breath import Breath
from shared.store.chunks import ChunkReader, MissingChunk, is_manifest, join
from shared.store.keys import PROXY, key
from shared.store.kv import Fence, KeyValues
from shared.store.large import ProxyWriter
from shared.store.spec import spec_of

log = logging.getLogger(__name__)

ATTEMPTS = 5


Awaited = Callable[[str], Awaitable[bool]]
"""Whether others go on with a Proxy that Consul has lost: to write it anew without having seen it would take
away what they serve."""


async def not_awaited(name: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class _Written:
    """What we wrote, or found written, and where it stands: the index moves on with each status."""

    rendered: Rendered
    index: int
    body: Mapping[str, Any]


class Sink:
    """Brings the stored Proxies to what they should be.

    A Proxy of the same name that somebody else made is left alone: ``foreign`` names such. ``observe`` is
    told what the watch sees, so that a Proxy that was altered or deleted by hand is put right.
    """

    def __init__(
        self,
        kv: KeyValues,
        root: str,
        namespace: str,
        *,
        fence: Fence,
        writes: Counter | None = None,
        awaited: Awaited = not_awaited,
    ) -> None:
        self.foreign: set[str] = set()
        self._kv = kv
        self._root = root
        self._namespace = namespace
        self._fence = fence
        self._writes = writes
        self._writer = ProxyWriter(kv, root, fence=fence)
        self._chunks = ChunkReader(kv, root)
        self._stored: dict[str, StoredProxy] = {}
        self._written: dict[str, _Written] = {}
        self._awaited = awaited
        self._seen: set[str] = set()
        self._withheld: set[str] = set()

    def forget(self) -> None:
        """Another process may have written: trust only what is stored."""
        self._writer.forget()
        self._written.clear()

    def observe(self, name: str, proxy: StoredProxy | None) -> bool:
        """Take note of what the watch saw; whether it may not be what we wrote."""
        self._stored.pop(name, None)
        if proxy is None:
            self.foreign.discard(name)
            return self._written.pop(name, None) is not None
        if proxy.document:
            self._seen.add(name)
        self._stored[name] = proxy
        written = self._written.get(name)
        if written is None or proxy.index <= written.index:
            return False
        if proxy.body == written.body:
            self._written[name] = replace(written, index=proxy.index)  # a status was written
            return False
        del self._written[name]
        return True

    async def write(self, wanted: Mapping[str, Rendered]) -> dict[str, int]:
        """Write the Proxies that differ, delete ours that are not wanted; the names written, with indexes."""
        written = {
            name: self._written[name].index for name in wanted if await self._write(name, wanted[name])
        }
        for name, proxy in list(self._stored.items()):
            if name not in wanted and proxy.ours:
                await self._delete(name, proxy)
        return written

    async def collect(self) -> int:
        """Clear away chunks of large Proxies that nothing needs any more."""
        return await self._writer.collect()

    async def whole(self, proxy: StoredProxy) -> Mapping[str, Any] | None:
        """The Proxy with its virtual hosts; None when they cannot be read."""
        if not is_manifest(proxy.document):
            return proxy.body
        try:
            found = spec_of(await self._chunks.read(Ref(self._namespace, proxy.name), proxy.document))
        except (MissingChunk, InvalidResource) as error:
            log.warning("a stored Proxy cannot be read", extra={"proxy": proxy.name, "error": str(error)})
            return None
        metadata = {
            name: value for name, value in found["metadata"].items() if name != "annotations" or value
        }
        return {**found, "metadata": metadata}

    async def _write(self, name: str, rendered: Rendered) -> bool:
        if (known := self._written.get(name)) is not None and known.rendered == rendered:
            return False
        ref = Ref(self._namespace, name)
        for _ in range(ATTEMPTS):
            proxy = self._stored.get(name)
            if proxy is not None and not proxy.ours and proxy.document:
                self._note_foreign(name)
                return False
            self.foreign.discard(name)
            known = self._written.get(name)
            if known is None and proxy is not None and await self._matches(proxy, rendered):
                self._written[name] = _Written(rendered, proxy.index, proxy.body)
                return False
            index = max(known.index if known else 0, proxy.index if proxy else 0)
            if not index and await self._is_awaited(name):
                return False
            found = await self._writer.write(ref, rendered.skeleton, rendered.parts, index)
            if found is not None:
                self._written[name] = _Written(rendered, found.index, spec_of(found.document))
                self._count("written")
                return True
            self._count("conflict")
            if self._fence() is None:
                return False
            await self._read_again(name)
        log.warning("a Proxy is written by others all the time", extra={"proxy": name})
        return False

    async def _is_awaited(self, name: str) -> bool:
        """Whether others go on with what Consul has lost, and we cannot know what that was."""
        if name in self._seen or not await self._awaited(name):
            self._seen.add(name)
            self._withheld.discard(name)
            return False
        if name not in self._withheld:
            log.warning(
                "Consul has lost this Proxy and a gloo goes on with it: it is not written anew before it was"
                " given up, by `glooctl release`",
                extra={"proxy": name},
            )
        self._withheld.add(name)
        return True

    async def _matches(self, proxy: StoredProxy, rendered: Rendered) -> bool:
        """Whether what is stored is what we would write."""
        whole = await self.whole(proxy)
        lists: dict[str, list[Any]] = {}
        breath = Breath()
        for part in rendered.parts:
            lists.setdefault(part.path, []).append(orjson.loads(part.body))
            await breath.take()
        return whole is not None and whole == join(rendered.skeleton, lists)

    async def _read_again(self, name: str) -> None:
        row = await self._kv.get(key(self._root, PROXY, Ref(self._namespace, name)), consistent=True)
        known = self._written.get(name)
        if row is None or (known is not None and row.index < known.index):
            self._written.pop(name, None)
            self._stored.pop(name, None)
        if row is None:
            self._writer.forget()  # who deleted or lost it may have done so to its chunks
        else:
            try:
                document = parse(row.value)
            except InvalidDocument:
                document = {}
            self.observe(
                name,
                StoredProxy(name=name, index=row.index, document=document, body=spec_of(document)),
            )

    async def _delete(self, name: str, proxy: StoredProxy) -> None:
        fence = self._fence()
        if fence is None:
            return
        at = key(self._root, PROXY, Ref(self._namespace, name))
        known = self._written.get(name)
        index = max(proxy.index, known.index if known else 0)
        try:
            await self._kv.txn([fence, DeleteCas(at, index)])
        except ConsulConflict:
            self._count("conflict")
            return  # the watch will show what it is now
        self._stored.pop(name, None)
        self._written.pop(name, None)
        self._count("deleted")
        log.info("deleted a Proxy that no gateway makes any more", extra={"proxy": name})

    def _note_foreign(self, name: str) -> None:
        if name not in self.foreign:
            log.error("a Proxy of this name was made by somebody else", extra={"proxy": name})
        self.foreign.add(name)

    def _count(self, result: str) -> None:
        if self._writes is not None:
            self._writes.labels(result).inc()
