"""Waiting for something to come true, with a deadline and a last word."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")


@overload
async def eventually(
    probe: Callable[[], Awaitable[T]],
    *,
    until: Callable[[T], object] = ...,
    within: float = ...,
    every: float = ...,
) -> T: ...
@overload
async def eventually(
    probe: Callable[[], T], *, until: Callable[[T], object] = ..., within: float = ..., every: float = ...
) -> T: ...
async def eventually(
    probe: Callable[[], Awaitable[T] | T],
    *,
    until: Callable[[T], object] = bool,
    within: float = 10.0,
    every: float = 0.02,
) -> T:
    """Ask *probe* until its value satisfies *until*; fail with its last value or error."""
    deadline = time.monotonic() + within
    last: object = None
    while True:
        try:
            answer = probe()
            last = value = await answer if isinstance(answer, Awaitable) else answer
            if until(value):
                return value
        except (AssertionError, LookupError, OSError) as error:
            last = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {within:.1f} s; the last answer was {last!r}")
        await asyncio.sleep(every)
