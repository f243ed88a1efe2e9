from __future__ import annotations

import asyncio
from collections.abc import Generator

from shared.runtime.breath import Breath


async def turns_of_others(breath: Breath, steps: int) -> int:
    """How often somebody else ran during so many steps."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    for _ in range(steps):
        await breath.take()
    task.cancel()
    return turns


async def test_others_run_once_the_turn_is_over() -> None:
    assert await turns_of_others(Breath(0.0), 5) == 5
    assert await turns_of_others(Breath(60.0), 5) == 0


async def test_steps_give_their_result_and_everybody_else_a_turn_between_any_two() -> None:
    done: list[str] = []

    def steps() -> Generator[None, None, str]:
        for _ in range(3):
            done.append("step")
            yield
        return "result"

    async def other() -> None:
        while True:
            done.append("other")
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    assert await Breath(0.0).between(steps()) == "result"
    task.cancel()

    assert done == ["step", "other"] * 3
