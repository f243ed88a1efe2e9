from __future__ import annotations

import asyncio

import pytest

from shared.runtime.settle import Settle


def test_the_first_change_after_quiet_is_handled_at_once() -> None:
    settle = Settle()

    assert settle.delay(100.0) == 0.0


def test_changes_of_a_burst_wait_longer_and_longer_up_to_the_ceiling() -> None:
    settle, now, waits = Settle(first=0.01, ceiling=0.5), 0.0, []

    for _ in range(9):
        wait = settle.delay(now)
        waits.append(round(wait, 3))
        now += wait
        settle.ended(now)

    assert waits == [0.0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5]


def test_quiet_as_long_as_the_gap_ends_the_burst() -> None:
    settle = Settle(first=0.01, ceiling=0.5)
    settle.delay(0.0)
    settle.ended(0.0)
    settle.ended(settle.delay(0.0))

    assert settle.delay(0.03) == 0.0
    settle.ended(0.03)
    assert settle.delay(0.03) == pytest.approx(0.01)


def test_single_changes_after_a_burst_soon_wait_no_more() -> None:
    settle, now, waits = Settle(first=0.01, ceiling=0.5), 0.0, []
    for _ in range(9):
        now += settle.delay(now)
        settle.ended(now)

    for _ in range(3):
        now += 0.45
        waits.append(round(settle.delay(now), 3))
        now += waits[-1]
        settle.ended(now)

    assert waits == [0.05, 0.0, 0.0]


def test_the_gap_counts_from_the_end_of_slow_work() -> None:
    settle = Settle(first=0.01, ceiling=0.5)
    settle.delay(0.0)

    settle.ended(5.0)

    assert settle.delay(5.004) == pytest.approx(0.006)


async def test_handling_twice_in_a_row_waits_between() -> None:
    settle, clock = Settle(first=0.02), asyncio.get_running_loop().time
    async with settle:
        first = clock()

    async with settle:
        second = clock()

    assert second - first >= 0.019
