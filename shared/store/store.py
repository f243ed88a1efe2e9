"""One object at a time: read, create, replace, delete, each a check-and-set with an error people can read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.codec.text import render_json
from shared.errors import ControlPlaneError
from shared.ref import Ref, Source
from shared.store.chunks import ChunkReader
from shared.store.keys import Kind, check_ref, key
from shared.store.kv import KeyValues
from shared.store.objects import Stored, complete, read_value


class ObjectExists(ControlPlaneError):
    """There is such an object already, or it came into being in the meantime."""

    def __init__(self, source: Source) -> None:
        super().__init__(f"{source} exists already")
        self.source = source


class ObjectMissing(ControlPlaneError):
    """There is no such object, or it went in the meantime."""

    def __init__(self, source: Source) -> None:
        super().__init__(f"{source} does not exist")
        self.source = source


class ObjectChanged(ControlPlaneError):
    """Somebody else has changed the object since it was read at *index*."""

    def __init__(self, source: Source, index: int) -> None:
        super().__init__(f"{source} has changed since it was read (version {index}): read it again")
        self.source = source
        self.index = index


class Store:
    """The objects below one root key."""

    def __init__(self, kv: KeyValues, root: str) -> None:
        self._kv = kv
        self._root = root

    async def get(self, kind: Kind, ref: Ref) -> Stored | None:
        """The object as it stands now, decodable or not; a large Proxy comes whole."""
        row = await self._kv.get(self._key(kind, ref), consistent=True)
        stored = row and read_value(self._root, row.key, row.value, row.index)
        if not stored:
            return None
        return await complete(stored, ChunkReader(self._kv, self._root))

    async def create(self, kind: Kind, ref: Ref, document: Mapping[str, Any]) -> None:
        """Write a new object; raises ``ObjectExists``, or ``InvalidResource`` for a name that cannot be."""
        check_ref(ref)
        if not await self._kv.cas(self._key(kind, ref), _text(ref, document), 0):
            raise ObjectExists(Source(kind.name, ref))

    async def replace(self, kind: Kind, ref: Ref, document: Mapping[str, Any], index: int) -> None:
        """Write over the object read at *index*; raises ``ObjectChanged`` or ``ObjectMissing``."""
        at = self._key(kind, ref)
        if not index or not await self._kv.cas(at, _text(ref, document), index):
            raise await self._refused(kind, ref, index)

    async def delete(self, kind: Kind, ref: Ref, index: int | None = None) -> None:
        """Delete the object, if given an *index* only as it was read; it is no mistake that there is none."""
        if not await self._kv.delete(self._key(kind, ref), index):
            refused = await self._refused(kind, ref, index or 0)
            if isinstance(refused, ObjectChanged):
                raise refused

    async def _refused(self, kind: Kind, ref: Ref, index: int) -> ObjectChanged | ObjectMissing:
        source = Source(kind.name, ref)
        row = await self._kv.get(self._key(kind, ref), consistent=True)
        return ObjectMissing(source) if row is None else ObjectChanged(source, index)

    def _key(self, kind: Kind, ref: Ref) -> str:
        return key(self._root, kind, ref)


def _text(ref: Ref, document: Mapping[str, Any]) -> bytes:
    metadata = {**(document.get("metadata") or {}), "name": ref.name, "namespace": ref.namespace}
    return render_json({**document, "metadata": metadata})
