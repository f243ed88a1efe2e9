"""Large Proxies made whole: Consul holds a manifest and chunks, people want to see the Proxy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from glooctl.consul import Consul
from glooctl.errors import CommandError
from shared.ref import Ref


def whole(consul: Consul, root: str, ref: Ref, document: dict[str, Any]) -> dict[str, Any]:
    """*document*, or the Proxy it stands for; what that takes to import is imported only then."""
    annotations = (document.get("metadata") or {}).get("annotations")
    if not isinstance(annotations, Mapping) or not any("chunks" in str(name) for name in annotations):
        return document
    import asyncio

    from shared.errors import InvalidResource
    from shared.store.chunks import ChunkReader, MissingChunk, is_manifest

    if not is_manifest(document):
        return document
    try:
        return asyncio.run(ChunkReader(_Reader(consul), root).read(ref, document))
    except (MissingChunk, InvalidResource) as error:
        raise CommandError(f"Proxy {ref} cannot be read whole: {error}") from error


class _Reader:
    """As much of a key-value store as reading chunks takes."""

    def __init__(self, consul: Consul) -> None:
        self._consul = consul

    async def txn(self, ops: Sequence[Any]) -> dict[str, Any]:
        from shared.consul.operations import Row
        from shared.errors import ConsulConflict

        found = {}
        for number, op in enumerate(ops):
            pair = self._consul.get(op.key)
            if pair is None:
                raise ConsulConflict("read chunks", f"{op.key} is not there", failed=[number])
            found[op.key] = Row(key=pair.key, value=pair.value, index=pair.index)
        return found
