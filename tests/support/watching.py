"""Following a watch in a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

from shared.consul.kv import KV
from shared.ref import Ref
from shared.store.memory import MemoryKV
from shared.store.objects import Stored
from shared.store.watch import ObjectsChange

AnyKV: TypeAlias = KV | MemoryKV


class Seen:
    """What a watch has told so far: the objects as its taker would hold them, and every change."""

    def __init__(self) -> None:
        self.objects: dict[Ref, Stored] = {}
        self.changes: list[ObjectsChange] = []
        self._moved = asyncio.Event()

    async def follow(self, changes: AsyncIterator[ObjectsChange]) -> None:
        async for change in changes:
            for ref in change.gone:
                del self.objects[ref]
            self.objects.update(change.put)
            self.changes.append(change)
            self._moved.set()

    async def until(self, condition: Callable[[Seen], object]) -> None:
        async with asyncio.timeout(10):
            while not condition(self):
                await self._moved.wait()
                self._moved.clear()


Watch: TypeAlias = Callable[..., Seen]
