"""What can wait, waits for quiet, but not for ever."""

from __future__ import annotations

import asyncio
import time

from shared.runtime.lull import Lull


async def waited(lull: Lull) -> float:
    began = time.monotonic()
    await lull.wait()
    return time.monotonic() - began


async def test_in_quiet_nothing_waits() -> None:
    assert await waited(Lull(quiet=5.0, most=10.0)) < 1.0


async def test_after_something_happened_it_waits_for_quiet() -> None:
    lull = Lull(quiet=0.1, most=10.0)
    lull.note()

    assert 0.09 < await waited(lull) < 5.0


async def test_while_one_thing_follows_another_it_waits_as_long_as_it_may() -> None:
    lull = Lull(quiet=0.2, most=0.5)

    async def hustle() -> None:
        while True:
            lull.note()
            await asyncio.sleep(0.01)

    lull.note()
    hustling = asyncio.create_task(hustle())
    try:
        assert 0.49 < await waited(lull) < 5.0
    finally:
        hustling.cancel()
