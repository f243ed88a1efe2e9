from __future__ import annotations

from shared.incremental.memo import Memo


def test_what_was_made_of_a_value_is_known_in_the_next_round() -> None:
    memo, value = Memo[list[int], str](), [1]

    assert memo.known(value) is None
    assert memo.keep(value, "one") == "one"
    assert memo.known(value) is None
    memo.end_round()

    assert memo.known(value) == "one"
    assert memo.known([1]) is None, "an equal value is another one"


def test_what_a_round_did_not_keep_is_forgotten() -> None:
    memo, kept, gone = Memo[list[int], str](), [1], [2]
    for value in (kept, gone):
        memo.keep(value, "made")
    memo.end_round()
    memo.keep(kept, "made")
    memo.end_round()

    assert memo.known(kept) == "made"
    assert memo.known(gone) is None


def test_a_value_is_held_so_that_no_other_can_be_taken_for_it() -> None:
    memo = Memo[list[int], int]()
    for i in range(1000):
        memo.keep([i], i)
    memo.end_round()

    assert [memo.known([i]) for i in range(1000)] == [None] * 1000
