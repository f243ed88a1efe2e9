"""A value that changes, of which only the newest matters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

V = TypeVar("V")


class Latest(Generic[V]):
    """Holds a value and wakes those who wait for a different one.

    Publishing an equal value is not an event. A slow reader skips what was replaced meanwhile and never
    misses the last.
    """

    __slots__ = ("_changed", "_value", "_version")

    def __init__(self, value: V) -> None:
        self._value = value
        self._version = 0
        self._changed = asyncio.Event()

    @property
    def value(self) -> V:
        return self._value

    def set(self, value: V) -> bool:
        """Publish *value*; whether it differs from the one before."""
        if value == self._value:
            return False
        self._value = value
        self._version += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        return True

    async def next(self, seen: V) -> V:
        """The value as soon as it differs from *seen*."""
        while self._value == seen:
            await self._changed.wait()
        return self._value

    async def values(self) -> AsyncIterator[V]:
        """The value now and each time it was replaced; ends only by cancellation."""
        seen = -1
        while True:
            while seen == self._version:
                await self._changed.wait()
            seen = self._version
            yield self._value
