from __future__ import annotations

from shared.runtime.backoff import Backoff


def test_the_bound_doubles_up_to_the_ceiling() -> None:
    backoff = Backoff(0.1, 1.0, random=lambda: 1.0)

    assert [round(backoff.next(), 3) for _ in range(5)] == [0.2, 0.4, 0.8, 1.0, 1.0]


def test_delays_are_drawn_between_floor_and_bound() -> None:
    backoff = Backoff(0.1, 2.0)

    delays = [backoff.next() for _ in range(200)]

    assert min(delays) >= 0.1
    assert max(delays) <= 2.0
    assert len(set(delays)) > 100


def test_success_starts_over() -> None:
    backoff = Backoff(0.1, 10.0, random=lambda: 1.0)
    for _ in range(6):
        backoff.next()

    backoff.reset()

    assert backoff.next() == 0.2


def test_a_ceiling_under_the_floor_waits_the_floor() -> None:
    assert Backoff(1.0, 0.5, random=lambda: 1.0).next() == 1.0
