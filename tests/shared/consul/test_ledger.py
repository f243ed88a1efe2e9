"""What a watch tells, and which losses it doubts."""

from __future__ import annotations

from shared.consul.ledger import LOST, Ledger, PrefixChange
from shared.consul.operations import RawRow


def raw(**indexes: int) -> list[RawRow]:
    return [{"Key": key, "Value": None, "Flags": 0, "ModifyIndex": index} for key, index in indexes.items()]


MANY = {f"k{i}": i + 1 for i in range(20)}


def test_a_deletion_of_nearly_everything_is_believed_when_the_index_advances() -> None:
    ledger = Ledger(hold=30, limit=30)
    ledger.take(20, raw(**MANY), 0.0)

    change = ledger.take(21, raw(k0=1), 1.0)

    assert change is not None
    assert len(change.gone) == 19


def test_a_mass_vanish_at_an_unmoved_index_is_held_and_given_up_when_it_passes() -> None:
    ledger = Ledger(hold=30, limit=30)
    ledger.take(20, raw(**MANY), 0.0)

    assert ledger.take(20, raw(k0=1), 1.0) is None
    assert ledger.held
    assert ledger.take(20, raw(**MANY), 2.0) is None
    assert not ledger.held
    assert ledger.known.keys() == MANY.keys()


def test_a_few_that_vanish_at_an_unmoved_index_are_believed() -> None:
    ledger = Ledger(hold=30, limit=30)
    ledger.take(20, raw(**MANY), 0.0)

    change = ledger.take(20, raw(**{key: index for key, index in MANY.items() if index > 10}), 1.0)

    assert change is not None
    assert len(change.gone) == 10


def test_a_loss_in_a_lost_history_stays_held_while_the_new_index_climbs() -> None:
    ledger = Ledger(hold=30, limit=30)
    ledger.take(7, raw(a=5, b=7), 0.0)

    assert ledger.take(2, raw(a=5), 1.0) is None
    assert ledger.take(90, raw(a=5), 20.0) is None
    change = ledger.take(91, raw(a=5), 31.0)

    assert change == PrefixChange(gone=frozenset({"b"}), index=91)
    assert ledger.take(92, raw(), 32.0) == PrefixChange(gone=frozenset({"a"}), index=92)


def test_what_is_written_while_a_loss_is_held_is_told_at_once() -> None:
    ledger = Ledger(hold=30, limit=30)
    ledger.take(7, raw(a=5, b=7), 0.0)

    change = ledger.take(3, raw(a=2, c=3), 1.0)

    assert change is not None
    assert ([row.key for row in change.changed], change.gone) == (["a", "c"], frozenset())
    assert ledger.held
    assert ledger.take(4, raw(a=2, b=4, c=3), 2.0) is not None
    assert not ledger.held
    assert ledger.take(5, raw(a=2, b=4), 3.0) == PrefixChange(gone=frozenset({"c"}), index=5)


def test_a_smaller_index_without_a_loss_is_no_reason_to_hold() -> None:
    ledger = Ledger(hold=30, limit=30)
    ledger.take(7, raw(a=5), 0.0)

    change = ledger.take(5, raw(a=3, b=5), 1.0)

    assert change is not None
    assert not ledger.held


def test_another_value_at_the_same_index_is_a_change() -> None:
    ledger = Ledger(hold=30, limit=30)
    ledger.take(7, raw(a=5), 0.0)

    change = ledger.take(7, [{**row, "Value": "Mg=="} for row in raw(a=5)], 1.0)

    assert change is not None
    assert change.changed[0].value == b"2"


def test_without_a_hold_every_loss_is_believed() -> None:
    ledger = Ledger(hold=0, limit=0)
    ledger.take(20, raw(**MANY), 0.0)

    change = ledger.take(1, raw(), 1.0)

    assert change is not None
    assert len(change.gone) == 20


def test_ledgers_of_parts_know_together_what_the_whole_knew() -> None:
    whole = Ledger(hold=30, name="p/")
    whole.take(7, raw(a=5, b=7), 0.0)

    parts = [whole.part("a", ["a"]), whole.part("b", ["b"])]
    assert parts[1].take(9, raw(b=9), 1.0) is not None
    assert parts[0].take(3, [], 2.0) is None
    joined = Ledger.joined(parts, name="p/")

    assert joined.known.keys() == {"a", "b"}
    assert joined.max_index == 9
    assert joined.held
    assert joined.take(10, raw(a=5, b=9), 3.0) is None
    assert not joined.held


def test_what_a_lost_history_took_is_held_for_ever_and_what_is_there_can_be_deleted() -> None:
    ledger = Ledger(hold=30)
    ledger.take(7, raw(a=5, b=6, c=7), 0.0)

    assert ledger.take(2, [], 1.0) is None
    back = ledger.take(8, raw(a=8, d=7), 2.0)
    deleted = ledger.take(9, raw(d=7), 1e9)

    assert back is not None
    assert [row.key for row in back.changed] == ["a", "d"]
    assert deleted == PrefixChange(gone=frozenset({"a"}), index=9)
    assert ledger.held.keys() == {"b", "c"}
    assert not ledger.doubts(2.0)


def test_another_history_is_lost_history_though_the_index_climbed_beyond_the_old_one() -> None:
    ledger = Ledger(hold=30)
    ledger.take(7, raw(a=5, b=7), 0.0, history=1)

    assert ledger.loses(raw(a=5))
    assert ledger.take(20, raw(a=5), 1.0, history=2) is None
    assert not ledger.loses(raw(a=5))
    assert ledger.take(21, [], 2.0, history=2) == PrefixChange(gone=frozenset({"a"}), index=21)
    assert ledger.held.keys() == {"b"}


def test_a_second_accident_is_held_too() -> None:
    ledger = Ledger(hold=30)
    ledger.take(7, raw(a=5, b=7), 0.0)
    ledger.take(3, raw(a=3), 1.0)

    assert ledger.take(2, [], 2.0) is None
    assert ledger.held.keys() == {"a", "b"}


def test_what_is_released_is_told_as_gone_with_the_next_answer_and_not_held_again() -> None:
    ledger = Ledger(hold=30)
    ledger.take(7, raw(a=5, b=7), 0.0)
    ledger.take(3, raw(a=3), 1.0)

    ledger.release()

    assert ledger.until < 1.0
    assert ledger.take(3, raw(a=3), 2.0) == PrefixChange(gone=frozenset({"b"}), index=3)
    assert not ledger.held


def test_what_was_lost_before_the_first_answer_is_told_without_a_value() -> None:
    ledger = Ledger(hold=30)

    first = ledger.take(7, raw(a=5), 0.0, owed=["a", "b"])
    back = ledger.take(8, raw(a=5, b=8), 1.0)

    assert first is not None
    assert {row.key: row.value for row in first.changed} == {"a": b"", "b": LOST}
    assert back is not None
    assert [row.key for row in back.changed] == ["b"]
    assert not ledger.held


def test_parts_hold_what_the_whole_held() -> None:
    whole = Ledger(hold=30, name="p/")
    whole.take(7, raw(a=5, b=7), 0.0)
    whole.take(3, raw(a=5), 1.0)

    parts = [whole.part("a", ["a"]), whole.part("b", ["b"])]

    assert [part.held.keys() for part in parts] == [set(), {"b"}]
    assert Ledger.joined(parts, name="p/").held == whole.held
