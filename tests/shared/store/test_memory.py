from __future__ import annotations

import pytest

from shared.consul.operations import Cas, CheckIndex, CheckSession, Delete, DeleteCas, Get, Op, Put
from shared.errors import ConsulConflict
from shared.ref import Ref
from shared.store.keys import UPSTREAM, key
from shared.store.memory import MemoryKV
from shared.store.store import Store
from tests.support.watching import AnyKV


async def test_documents_can_be_put_in_from_the_start() -> None:
    petstore = Ref("gloo-system", "petstore")
    kv = MemoryKV({key("gloo", UPSTREAM, petstore): b"static: {}"})

    stored = await Store(kv, "gloo").get(UPSTREAM, petstore)

    assert stored is not None
    assert stored.report.clean


async def index_of(kv: AnyKV, key: str) -> int:
    row = await kv.get(key)
    assert row is not None
    return row.index


async def test_an_equal_value_moves_no_index(kv: AnyKV) -> None:
    await kv.put("gloo/a", b"1")
    before = await index_of(kv, "gloo/a")

    await kv.put("gloo/a", b"1")

    assert await index_of(kv, "gloo/a") == before


async def test_all_rows_of_a_transaction_share_one_index(kv: AnyKV) -> None:
    rows = await kv.txn([Put("gloo/a", b"1"), Put("gloo/b", b"2"), Get("gloo/a"), Get("gloo/b")])

    assert rows["gloo/a"].value == b"1"
    assert rows["gloo/a"].index == rows["gloo/b"].index


async def test_a_swap_tells_its_new_index_and_no_value(kv: AnyKV) -> None:
    first = await kv.txn([Cas("gloo/a", b"1", 0), Put("gloo/b", b"1")])
    again = await kv.txn([Cas("gloo/a", b"1", first["gloo/a"].index)])

    assert first.keys() == again.keys() == {"gloo/a"}
    assert first["gloo/a"].value == b""
    assert first["gloo/a"].index == again["gloo/a"].index == await index_of(kv, "gloo/a")


@pytest.mark.parametrize(
    "refused",
    [
        Cas("gloo/a", b"2", 0),
        CheckIndex("gloo/a", 1),
        CheckSession("gloo/a", "00000000-0000-0000-0000-000000000000"),
        DeleteCas("gloo/a", 1),
        Get("gloo/none"),
    ],
    ids=lambda op: type(op).__name__,
)
async def test_a_transaction_is_taken_whole_or_not_at_all(kv: AnyKV, refused: Op) -> None:
    await kv.put("gloo/a", b"1")

    with pytest.raises(ConsulConflict) as conflict:
        await kv.txn([Put("gloo/b", b"1"), refused])

    assert conflict.value.failed == (1,)
    assert await kv.keys("gloo/") == ["gloo/a"]


async def test_deleting_is_by_key_and_by_index(kv: AnyKV) -> None:
    await kv.put("gloo/a", b"1")
    await kv.put("gloo/b", b"1")

    assert not await kv.delete("gloo/a", 1)
    assert await kv.delete("gloo/a", await index_of(kv, "gloo/a"))
    await kv.txn([Delete("gloo/b"), Delete("gloo/none")])

    assert await kv.keys("gloo/") == []
