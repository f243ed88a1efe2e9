from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from shared.runtime.garbage import FEW, Garbage


class Knot:
    """Refers to itself, so that only the collector frees it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def garbage() -> Iterator[Garbage]:
    thresholds = gc.get_threshold()
    yield Garbage()
    gc.set_threshold(*thresholds)
    gc.unfreeze()
    gc.enable()


def test_nothing_is_collected_by_itself_before_all_is_ready(garbage: Garbage) -> None:
    garbage.look(ready=False)

    assert not gc.isenabled()


def test_the_little_that_gathers_while_waiting_is_collected(garbage: Garbage) -> None:
    knot = weakref.ref(Knot())

    garbage.look(ready=False)

    assert knot() is None


def test_much_that_was_built_while_waiting_is_taken_out_of_the_rounds(garbage: Garbage) -> None:
    before = gc.get_freeze_count()
    built: list[list[int]] = [[] for _ in range(2 * FEW)]

    garbage.look(ready=False)

    assert gc.get_freeze_count() - before >= len(built)
    assert gc.get_count()[0] < FEW


def test_what_was_built_by_the_time_all_is_ready_is_out_of_the_rounds(garbage: Garbage) -> None:
    garbage.look(ready=True)

    assert gc.isenabled()
    assert gc.get_freeze_count() > 0


def test_what_a_beginning_left_behind_is_collected_with_the_next_one(garbage: Garbage) -> None:
    knot = weakref.ref(Knot())
    garbage.look(ready=True)

    garbage.look(ready=False)
    garbage.look(ready=True)

    assert knot() is None
