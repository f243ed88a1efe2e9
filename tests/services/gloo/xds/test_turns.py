"""Turns: who goes first, and how much goes at once."""

from __future__ import annotations

import asyncio
from functools import partial

from services.gloo.xds.turns import Line, Wakes


async def test_who_lags_is_woken_last_and_one_by_one() -> None:
    wakes, woken = Wakes(at_once=3), list[str]()
    for name in ("lags 1", "lags 2"):
        wakes.add(partial(woken.append, name), late=True)
    for number in range(5):
        wakes.add(partial(woken.append, str(number)), late=False)

    turns = [list(woken)]
    for _ in range(4):
        await asyncio.sleep(0)
        turns.append(woken[sum(map(len, turns)) :])

    assert turns == [["0", "1", "2"], ["3", "4"], ["lags 1"], ["lags 2"], []]


async def test_who_comes_meanwhile_goes_before_who_lags() -> None:
    wakes, woken = Wakes(at_once=3), list[str]()
    for name in ("lags 1", "lags 2"):
        wakes.add(partial(woken.append, name), late=True)
    await asyncio.sleep(0)

    wakes.add(partial(woken.append, "prompt"), late=False)

    assert woken == ["lags 1", "prompt"]


async def test_a_line_does_one_thing_at_a_time_in_order() -> None:
    line, done = Line(pause=0), list[int]()
    for number in range(3):
        line.add(partial(done.append, number))
    assert done == [0]

    await line.turn()

    assert done == [0, 1, 2]
