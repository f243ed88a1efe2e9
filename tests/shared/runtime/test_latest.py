from __future__ import annotations

import asyncio

from shared.runtime.latest import Latest


async def test_an_equal_value_is_not_an_event() -> None:
    latest = Latest([1])

    assert latest.set([1]) is False
    assert latest.set([2]) is True
    assert latest.value == [2]


async def test_next_waits_for_a_different_value() -> None:
    latest = Latest("a")
    waiting = asyncio.ensure_future(latest.next("a"))
    await asyncio.sleep(0)

    latest.set("b")

    assert await waiting == "b"
    assert await latest.next("a") == "b"


async def test_a_slow_reader_skips_to_the_newest() -> None:
    latest, seen = Latest(0), []

    async def read() -> None:
        async for value in latest.values():
            seen.append(value)
            await asyncio.sleep(0)
            if value == 4:
                return

    reader = asyncio.ensure_future(read())
    await asyncio.sleep(0)
    for value in range(1, 5):
        latest.set(value)
    await reader

    assert seen == [0, 4]


async def test_all_waiting_readers_are_woken() -> None:
    latest = Latest(0)
    readers = [asyncio.ensure_future(latest.next(0)) for _ in range(3)]
    await asyncio.sleep(0)

    latest.set(7)

    assert await asyncio.gather(*readers) == [7, 7, 7]
