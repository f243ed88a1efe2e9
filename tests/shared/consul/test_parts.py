"""Cutting prefixes into parts: complete, disjoint, and small where that is possible."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shared.consul.parts import Part, part_beside, partition

NAMES = st.text("ab-é", max_size=6)


def names(parts: object) -> list[str]:
    return sorted(part.text for part in parts)  # type: ignore[attr-defined]


def test_a_prefix_is_cut_where_its_keys_differ_until_the_parts_are_small() -> None:
    sizes = {f"p/vs-{number:02}": 10 for number in range(40)}

    assert names(partition("p/", sizes, target=400, most=28)) == ["p/"]
    assert names(partition("p/", sizes, target=100, most=28)) == ["p/vs-0", "p/vs-1", "p/vs-2", "p/vs-3"]


def test_only_the_large_parts_are_cut_further() -> None:
    sizes = {"p/a1": 100, "p/a2": 100, "p/b": 10, "p/c": 10}

    assert names(partition("p/", sizes, target=100, most=28)) == ["p/a1", "p/a2", "p/b", "p/c"]
    assert names(partition("p/", sizes, target=200, most=28)) == ["p/a", "p/b", "p/c"]


def test_a_part_that_would_need_too_many_pieces_stays_whole() -> None:
    sizes = {f"p/{letter}": 100 for letter in "abcdef"}

    assert names(partition("p/", sizes, target=100, most=5)) == ["p/"]


def test_a_key_that_others_continue_is_watched_by_itself() -> None:
    parts = partition("p/", {"p/vs": 100, "p/vs-1": 100}, target=50, most=28)

    assert set(parts) == {Part("p/vs", exact=True), Part("p/vs-")}


@given(st.sets(NAMES, min_size=1), st.integers(1, 8), st.integers(1, 12))
def test_each_key_lies_in_exactly_one_part(keys: set[str], target: int, most: int) -> None:
    sizes = {f"p/{key}": 1 for key in keys}

    parts = partition("p/", sizes, target=target, most=most)

    assert len(parts) <= most
    assert sorted(key for group in parts.values() for key in group) == sorted(sizes)
    for part, group in parts.items():
        for key in sizes:
            assert part.covers(key) == (key in group)


@given(st.sets(NAMES, min_size=1), NAMES)
def test_a_key_outside_gets_a_part_that_overlaps_none(keys: set[str], name: str) -> None:
    parts = partition("p/", {f"p/{key}": 1 for key in keys}, target=1, most=12)
    key = f"p/{name}"
    if any(part.covers(key) for part in parts):
        return

    fresh = part_beside("p/", key, parts)

    assert fresh.covers(key)
    assert not any(fresh.covers(part.text) or (part.covers(fresh.text) and not part.exact) for part in parts)
