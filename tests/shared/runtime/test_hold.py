import math

from shared.runtime.hold import Hold

ALL = {str(number) for number in range(20)}


def test_a_few_that_vanish_are_gone() -> None:
    hold = Hold[str](least=10, seconds=30)

    assert hold.keep({"1", "2"}, 20, now=0) == set()
    assert hold.since(0) is None


def test_most_that_vanish_at_once_are_kept_for_a_while() -> None:
    hold = Hold[str](least=10, seconds=30)

    assert hold.keep(ALL, 20, now=0) == ALL
    assert hold.since(29) == 0
    assert hold.until() == 30
    assert hold.keep(ALL, 20, now=29) == ALL
    assert hold.keep(ALL, 20, now=30) == set()
    assert hold.until() is None


def test_half_is_not_most_and_ten_are_not_many() -> None:
    hold = Hold[str](least=10)

    assert not hold.keep(set(list(ALL)[:10]), 10, now=0)
    assert not hold.keep(set(list(ALL)[:11]), 22, now=0)


def test_what_comes_back_was_never_gone() -> None:
    hold = Hold[str](least=10, seconds=30)
    hold.keep(ALL, 20, now=0)

    rest = ALL - {"1"}

    assert hold.keep(rest, 20, now=5) == rest
    assert hold.keep(set(), 20, now=6) == set()
    assert hold.since(6) is None
    assert hold.keep({"1"}, 20, now=7) == set()


def test_while_something_is_kept_a_few_more_are_kept_too() -> None:
    hold = Hold[str](least=10, seconds=30)
    hold.keep(ALL - {"1"}, 20, now=0)

    assert hold.keep(ALL, 20, now=10) == ALL
    assert hold.keep(ALL, 20, now=31) == {"1"}
    assert hold.keep({"1"}, 1, now=40) == set()


def test_a_look_at_one_part_ends_nothing_for_the_others() -> None:
    hold = Hold[str](least=10, seconds=30)
    hold.keep(ALL, 20, now=0)

    hold.keep({"1"}, 20, now=31, present=set())

    assert hold.keep(ALL - {"1"}, 19, now=31, present=set()) == set()


def test_a_doubtful_look_loses_nothing_for_a_while() -> None:
    hold = Hold[str](least=10, seconds=30)

    assert hold.keep({"1"}, 20, now=0, suspect=30.0) == {"1"}
    assert hold.keep({"1"}, 20, now=29) == {"1"}
    assert hold.keep({"1"}, 20, now=30, suspect=30.0) == set()


def test_what_is_no_longer_missed_is_forgotten() -> None:
    hold = Hold[str](least=10, seconds=30)
    hold.keep(ALL, 20, now=0)

    hold.keep(set(), 0, now=1)

    assert hold.until() is None


def test_what_a_look_without_a_past_lacks_is_kept_until_it_is_back_or_released() -> None:
    hold = Hold[str](least=10, seconds=30)

    assert hold.keep({"1", "2"}, 20, now=0, suspect=math.inf) == {"1", "2"}
    assert hold.until() is None
    assert hold.keep({"1", "2", "3"}, 20, now=100) == {"1", "2"}
    assert hold.keep({"1"}, 20, now=1e9) == {"1"}
    hold.release()
    assert hold.since(1e9) is None
    assert hold.keep({"1"}, 20, now=1e9, suspect=math.inf) == set()
    assert not hold.kept()
