from services.discovery.sink import write_upstreams
from services.discovery.upstreams.reconcile import Create, Delete, Update, Write
from shared.consul.operations import Op
from shared.errors import ConsulRefused
from shared.ref import Ref
from shared.store.keys import UPSTREAM, key
from shared.store.memory import MemoryKV

NS = "gloo-system"


def at(name: str) -> str:
    return key("gloo", UPSTREAM, Ref(NS, name))


def create(name: str, text: str = "new") -> Create:
    return Create(ref=Ref(NS, name), document={"is": text})


async def test_every_kind_of_write_is_carried_out() -> None:
    kv = MemoryKV({at("old"): b"is: old\n", at("gone"): b"gone"})
    writes: list[Write] = [
        create("new"),
        Update(
            ref=Ref(NS, "old"),
            key=at("old"),
            index=kv.rows[at("old")].index,
            raw=b"is: old\n",
            changes={("is",): "updated"},
        ),
        Delete(ref=Ref(NS, "gone"), key=at("gone"), index=kv.rows[at("gone")].index),
    ]

    outcome = await write_upstreams(kv, "gloo", writes)

    assert outcome.done == {Ref(NS, name) for name in ("new", "old", "gone")}
    assert {name: row.value for name, row in kv.rows.items()} == {
        at("new"): b"is: new\n",
        at("old"): b"is: updated\n",
    }


async def test_a_conflict_costs_only_itself() -> None:
    kv = MemoryKV({at("b"): b"theirs"})

    outcome = await write_upstreams(kv, "gloo", [create("a"), create("b"), create("c")])

    assert outcome.done == {Ref(NS, "a"), Ref(NS, "c")}
    assert outcome.conflicts == {Ref(NS, "b")}
    assert kv.rows[at("b")].value == b"theirs"


async def test_a_name_that_no_object_can_have_costs_only_itself() -> None:
    outcome = await write_upstreams(kv := MemoryKV(), "gloo", [create("a"), create("B_")])

    assert set(kv.rows) == {at("a")}
    assert "no valid name" in outcome.failed[Ref(NS, "B_")]


class Picky(MemoryKV):
    """A store that refuses a value as too large, and with it the transaction it is in."""

    transactions = 0

    async def txn(self, ops: list[Op]) -> dict[str, object]:  # type: ignore[override]
        self.transactions += 1
        if any(b"huge" in getattr(op, "value", b"") for op in ops):
            raise ConsulRefused("txn", "too large", status=413)
        return dict(await super().txn(ops))


async def test_a_write_that_consul_refuses_costs_only_itself() -> None:
    kv = Picky()
    writes = [create(f"u{number}", "huge" if number == 17 else "new") for number in range(60)]

    outcome = await write_upstreams(kv, "gloo", writes)

    assert len(outcome.done) == 59
    assert set(outcome.failed) == {Ref(NS, "u17")}
    assert kv.transactions < 20


async def test_many_writes_share_transactions() -> None:
    kv = Picky()

    await write_upstreams(kv, "gloo", [create(f"u{number}") for number in range(1000)])

    assert len(kv.rows) == 1000
    assert kv.transactions == 16
