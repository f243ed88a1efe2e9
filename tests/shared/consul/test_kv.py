"""KV reads, check-and-set writes and transactions against a real Consul."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from shared.consul.client import Consul
from shared.consul.kv import KV
from shared.consul.operations import Cas, CheckIndex, CheckSession, Delete, DeleteCas, Get, Put, Row
from shared.errors import ConsulConflict, ConsulRefused
from tests.support.consul import ConsulServer


@pytest.fixture
async def kv(consul_server: ConsulServer) -> AsyncIterator[KV]:
    async with Consul(consul_server.config) as consul:
        yield consul.kv


async def test_a_value_is_read_as_it_was_written(kv: KV) -> None:
    await kv.put("gloo/a", b"\x00\xff text")

    row = await kv.get("gloo/a", consistent=True)

    assert row is not None
    assert row == Row(key="gloo/a", value=b"\x00\xff text", index=row.index)
    assert row.index > 0


async def test_an_empty_value_and_a_missing_key_differ(kv: KV) -> None:
    await kv.put("gloo/empty", b"")

    assert (await kv.get("gloo/empty")).value == b""  # type: ignore[union-attr]
    assert await kv.get("gloo/none") is None


async def test_odd_characters_in_a_key_survive(kv: KV) -> None:
    for key in ("gloo/a b", "gloo/a%2Fb", "gloo/a?b=c&d", "gloo/a#b", "gloo/ä+ö"):
        await kv.put(key, key.encode())
        assert (await kv.get(key)).value == key.encode()  # type: ignore[union-attr]

    assert len(await kv.keys("gloo/")) == 5


async def test_a_listing_has_raw_rows_and_the_index(kv: KV) -> None:
    await kv.put("gloo/a", b"1")
    await kv.put("gloo/b", b"2")
    await kv.put("gloo2/c", b"3")

    index, rows = await kv.list("gloo/")

    assert [(row["Key"], row["Value"]) for row in rows] == [("gloo/a", "MQ=="), ("gloo/b", "Mg==")]
    assert index == max(row["ModifyIndex"] for row in rows)
    assert (await kv.list("nothing/"))[1] == []


async def test_check_and_set_creates_replaces_and_loses(kv: KV) -> None:
    assert await kv.cas("gloo/a", b"1", 0)
    assert not await kv.cas("gloo/a", b"2", 0)
    row = await kv.get("gloo/a")
    assert row is not None
    assert await kv.cas("gloo/a", b"3", row.index)
    assert not await kv.cas("gloo/a", b"4", row.index)
    assert not await kv.delete("gloo/a", row.index)
    assert await kv.delete("gloo/a")
    assert await kv.get("gloo/a") is None


async def test_a_transaction_applies_all_and_reads(kv: KV) -> None:
    await kv.put("gloo/old", b"old")
    await kv.put("gloo/read", b"read")
    row = await kv.get("gloo/read")
    assert row is not None

    read = await kv.txn(
        [
            CheckIndex("gloo/read", row.index),
            Put("gloo/a", b"a", 7),
            Cas("gloo/b", b"b", 0),
            Delete("gloo/old"),
            Get("gloo/read"),
        ]
    )

    written = await kv.get("gloo/b")
    assert written is not None
    assert read == {"gloo/read": row, "gloo/b": replace(written, value=b"")}
    assert {key: (await kv.get(key)) is not None for key in ("gloo/a", "gloo/b", "gloo/old")} == {
        "gloo/a": True,
        "gloo/b": True,
        "gloo/old": False,
    }
    assert (await kv.get("gloo/a")).flags == 7  # type: ignore[union-attr]


async def test_a_refused_transaction_names_its_failed_operations_and_applies_none(kv: KV) -> None:
    await kv.put("gloo/a", b"a")

    with pytest.raises(ConsulConflict) as refused:
        await kv.txn([Put("gloo/b", b"b"), Cas("gloo/a", b"x", 0), DeleteCas("gloo/a", 1)])

    assert refused.value.failed[0] == 1
    assert "operation 1" in str(refused.value)
    assert await kv.get("gloo/b") is None


async def test_a_stale_session_is_fenced_off(kv: KV) -> None:
    session = await kv.consul.session.create(lock_delay=0)
    other = await kv.consul.session.create(lock_delay=0)
    assert await kv.acquire("gloo/leader", b"me", session)
    assert not await kv.acquire("gloo/leader", b"you", other)

    await kv.txn([CheckSession("gloo/leader", session), Put("gloo/a", b"1")])
    assert await kv.release("gloo/leader", session)
    assert await kv.acquire("gloo/leader", b"you", other)

    with pytest.raises(ConsulConflict) as fenced:
        await kv.txn([CheckSession("gloo/leader", session), Put("gloo/a", b"2")])
    assert fenced.value.failed == (0,)
    row = await kv.get("gloo/a")
    assert row is not None
    assert row.value == b"1"


async def test_too_large_a_value_is_refused_in_clear_words(kv: KV) -> None:
    with pytest.raises(ConsulRefused, match=r"kv put gloo/big: HTTP 413: .*too large"):
        await kv.put("gloo/big", b"x" * 600_000)
    with pytest.raises(ConsulRefused, match=r"txn of 2: HTTP 413"):
        await kv.txn([Put("gloo/a", b"x" * 300_000), Put("gloo/b", b"x" * 300_000)])


async def test_too_many_operations_are_refused_before_they_are_sent(kv: KV) -> None:
    with pytest.raises(ConsulRefused, match="at most 64"):
        await kv.txn([Put(f"gloo/{i}", b"") for i in range(65)])


async def test_all_under_a_prefix_can_be_deleted(kv: KV) -> None:
    await kv.put("gloo/a/1", b"")
    await kv.put("gloo/ab", b"")

    await kv.delete_prefix("gloo/a/")

    assert await kv.keys("gloo/") == ["gloo/ab"]
