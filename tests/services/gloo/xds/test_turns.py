"""Turns and places: nobody keeps one for long while others wait."""

from __future__ import annotations

import asyncio

import pytest

from services.gloo.xds.turns import Places, Turns


async def test_a_turn_that_is_not_ended_ends_by_itself() -> None:
    turns = Turns(1, 0.01)
    await turns.take()

    async with asyncio.timeout(5):
        with await turns.take():
            pass


async def test_who_takes_long_gives_up_a_place_when_others_wait() -> None:
    places = Places(1, moment=0.01, longest=60)
    taken = asyncio.Event()

    async def keep() -> None:
        async with places.take():
            taken.set()
            await asyncio.Event().wait()

    keeping = asyncio.create_task(keep())
    await taken.wait()
    async with asyncio.timeout(5), places.take():
        pass

    with pytest.raises(TimeoutError):
        await keeping


async def test_a_place_is_kept_while_nobody_waits() -> None:
    places = Places(2, moment=0, longest=60)

    async with places.take(), places.take():
        await asyncio.sleep(0.01)
