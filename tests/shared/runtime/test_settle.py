from __future__ import annotations

import asyncio

import pytest

from shared.runtime.settle import Settle


def test_the_first_change_after_quiet_is_handled_at_once() -> None:
    settle = Settle()

    assert settle.delay(100.0) == 0.0


def test_after_a_handling_there_is_a_pause_of_the_processor_time_it_took() -> None:
    settle = Settle(least=0.01, most=0.5)

    settle.handled(1.1, 0.1)

    assert settle.delay(1.1) == pytest.approx(0.1)
    assert settle.delay(1.15) == pytest.approx(0.05)
    assert settle.delay(1.21) == 0.0


@pytest.mark.parametrize(("took", "pause"), [(0.0, 0.01), (0.001, 0.01), (0.02, 0.02), (3.0, 0.5)])
def test_the_pause_has_a_floor_and_a_ceiling(took: float, pause: float) -> None:
    settle = Settle(least=0.01, most=0.5)

    settle.handled(5.0, took)

    assert settle.delay(5.0) == pytest.approx(pause)


async def test_handling_twice_in_a_row_waits_between() -> None:
    settle, clock = Settle(least=0.02), asyncio.get_running_loop().time
    async with settle:
        first = clock()

    async with settle:
        second = clock()

    assert second - first >= 0.019


async def test_waiting_is_no_work() -> None:
    settle = Settle(least=0.0)
    async with settle:
        await asyncio.sleep(0.2)

    assert settle.delay(asyncio.get_running_loop().time()) < 0.1


async def test_a_handling_that_fails_counts_too() -> None:
    settle = Settle(least=0.02)

    with pytest.raises(ZeroDivisionError):
        async with settle:
            raise ZeroDivisionError

    assert settle.delay(asyncio.get_running_loop().time()) > 0
