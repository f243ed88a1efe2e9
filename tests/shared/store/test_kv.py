from __future__ import annotations

from shared.consul.operations import MOST_OPERATIONS, Get, Put
from shared.store.kv import MOST_BYTES, batches, body_bytes


def test_a_batch_leaves_room_for_the_fence() -> None:
    groups = list(batches((i, Put(f"k{i}", b"v")) for i in range(150)))

    assert [len(group) for group in groups] == [63, 63, 24]
    assert max(len(group) for group in groups) < MOST_OPERATIONS
    assert [i for group in groups for i, _ in group] == list(range(150))


def test_a_batch_fits_into_a_request() -> None:
    groups = list(batches((i, Put(f"k{i}", b"v" * 100_000)) for i in range(10)))

    assert [len(group) for group in groups] == [3, 3, 3, 1]
    assert all(sum(body_bytes(op) for _, op in group) <= MOST_BYTES for group in groups)


def test_what_is_too_long_for_any_batch_comes_alone() -> None:
    sizes = [10, 500_000, 10]

    groups = list(batches((size, Put("k", b"v" * size)) for size in sizes))

    assert [[size for size, _ in group] for group in groups] == [[10], [500_000], [10]]


def test_nothing_makes_no_batch_and_reads_count_too() -> None:
    assert list(batches([])) == []
    assert [len(group) for group in batches((i, Get("k")) for i in range(64))] == [63, 1]
