"""Writing Proxies: only when they differ, over what is known, while leading."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from services.gateway.composition import CREATED_BY, Rendered
from services.gateway.inputs import Inputs
from services.gateway.sink import Sink
from shared.consul.blocking import PrefixChange
from shared.consul.operations import CheckSession, Op
from shared.ref import Ref
from shared.store import large
from shared.store.keys import PROXY, key
from shared.store.memory import MemoryKV
from tests.services.gateway.support import NAMESPACE, ROOT

KEY = key(ROOT, PROXY, Ref(NAMESPACE, "p"))
LEADER = "gloo/_leaders/gateway"


class World:
    """A sink on a KV store in memory, and the watch it is told of."""

    def __init__(self) -> None:
        self.kv = MemoryKV({LEADER: b"me"})
        self.kv.locks[LEADER] = "mine"
        self.leads = True
        self.inputs = Inputs(ROOT, NAMESPACE)
        self.sink = Sink(self.kv, ROOT, NAMESPACE, fence=self.fence)

    def fence(self) -> Op | None:
        return CheckSession(LEADER, "mine") if self.leads else None

    async def watch(self) -> bool:
        """Show the sink what is stored now; whether it wants to write again."""
        rows = tuple(row for row in self.kv.rows.values() if row.key.startswith(KEY[:-1]))
        gone = frozenset({KEY} - {row.key for row in rows})
        await self.inputs.take_proxies(PrefixChange(changed=rows, gone=gone, index=self.kv.index))
        names = self.inputs.take_moved()
        told = [self.sink.observe(name, self.inputs.proxies.get(name)) for name in names]
        return any(told)

    async def put(self, document: dict[str, Any]) -> None:
        await self.kv.put(KEY, orjson.dumps(document))

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads(self.kv.rows[KEY].value)
        return found


def proxy(*bodies: bytes) -> dict[str, Rendered]:
    skeleton = {
        "metadata": {"name": "p", "namespace": NAMESPACE, "labels": CREATED_BY},
        "listeners": [{"name": "l", "httpListener": {}}],
    }
    parts = tuple(large.Part("listeners[0].httpListener.virtualHosts", body) for body in bodies)
    return {"p": Rendered(skeleton=skeleton, parts=parts)}


@pytest.fixture
def world() -> World:
    return World()


async def test_the_same_is_not_written_twice(world: World) -> None:
    assert await world.sink.write(proxy(b'{"name":"a"}'))
    index = world.kv.index

    assert not await world.sink.write(proxy(b'{"name":"a"}'))
    assert not await world.watch()
    assert not await world.sink.write(proxy(b'{"name":"a"}'))

    assert world.kv.index == index
    assert world.document()["listeners"][0]["httpListener"]["virtualHosts"] == [{"name": "a"}]


async def test_a_status_written_by_gloo_does_not_make_it_write_again(world: World) -> None:
    await world.sink.write(proxy(b'{"name":"a"}'))
    await world.watch()
    await world.put({**world.document(), "status": {"state": "Accepted"}})

    again = await world.watch()
    written = await world.sink.write(proxy(b'{"name":"b"}'))

    assert not again
    assert written
    assert "status" not in world.document()


async def test_a_status_seen_before_our_own_write_was_is_not_taken_for_an_alteration(world: World) -> None:
    await world.sink.write(proxy(b'{"name":"a"}'))
    await world.put({**world.document(), "status": {"state": "Accepted"}})
    index = world.kv.index

    again = await world.watch()
    written = await world.sink.write(proxy(b'{"name":"a"}'))

    assert not again
    assert not written
    assert world.kv.index == index


async def test_a_write_that_lost_its_race_is_repeated_on_what_is_there(world: World) -> None:
    await world.sink.write(proxy(b'{"name":"a"}'))
    await world.put({**world.document(), "status": {"state": "Accepted"}})

    assert await world.sink.write(proxy(b'{"name":"b"}'))
    assert world.document()["listeners"][0]["httpListener"]["virtualHosts"] == [{"name": "b"}]


async def test_what_was_altered_or_deleted_by_hand_is_put_right(world: World) -> None:
    await world.sink.write(proxy(b'{"name":"a"}'))
    await world.watch()

    await world.put({**world.document(), "listeners": []})
    assert await world.watch()
    assert await world.sink.write(proxy(b'{"name":"a"}'))
    await world.kv.delete(KEY)
    assert await world.watch()
    assert await world.sink.write(proxy(b'{"name":"a"}'))


async def test_another_process_starts_from_what_is_stored(world: World) -> None:
    await world.sink.write(proxy(b'{"name":"a"}'))
    index = world.kv.index
    world.sink = Sink(world.kv, ROOT, NAMESPACE, fence=world.fence)
    await world.watch()

    assert not await world.sink.write(proxy(b'{"name":"a"}'))
    assert world.kv.index == index


async def test_a_large_proxy_is_known_again_by_another_process(world: World) -> None:
    bodies = [orjson.dumps({"name": f"h{i}", "pad": "x" * 50_000}) for i in range(8)]
    await world.sink.write(proxy(*bodies))
    index = world.kv.index
    world.sink = Sink(world.kv, ROOT, NAMESPACE, fence=world.fence)
    await world.watch()

    assert not await world.sink.write(proxy(*bodies))
    assert world.kv.index == index
    assert await world.sink.write(proxy(*bodies[1:]))


async def test_a_follower_writes_and_deletes_nothing(world: World) -> None:
    await world.put({"metadata": {"labels": CREATED_BY}})
    await world.watch()
    world.leads = False

    assert not await world.sink.write(proxy(b'{"name":"a"}'))
    assert not await world.sink.write({})
    assert world.document() == {"metadata": {"labels": CREATED_BY}}


async def test_a_leader_deposed_without_knowing_is_refused(world: World) -> None:
    world.kv.locks[LEADER] = "another"

    assert not await world.sink.write(proxy(b'{"name":"a"}'))
    assert KEY not in world.kv.rows


async def test_proxies_of_others_are_left_alone(world: World) -> None:
    await world.put({"listeners": [], "metadata": {"labels": {"created_by": "hand"}}})
    await world.watch()

    assert not await world.sink.write(proxy(b'{"name":"a"}'))
    assert world.sink.foreign == {"p"}
    assert not await world.sink.write({})
    assert world.document()["listeners"] == []
    await world.kv.delete(KEY)
    await world.watch()
    assert await world.sink.write(proxy(b'{"name":"a"}'))
    assert world.sink.foreign == set()


async def test_garbage_at_our_key_is_replaced_and_a_stale_proxy_deleted(world: World) -> None:
    await world.kv.put(KEY, b"\x00\xff")
    await world.watch()

    assert await world.sink.write(proxy(b'{"name":"a"}'))
    await world.watch()
    assert await world.sink.write({}) == {}
    assert KEY not in world.kv.rows


async def test_a_lost_proxy_that_others_go_on_with_is_not_written_by_one_that_never_saw_it(
    world: World,
) -> None:
    await world.sink.write(proxy(b'{"name":"a"}'))
    held = {"p"}

    async def awaited(name: str) -> bool:
        return name in held

    world.kv.rows.pop(KEY)
    world.sink = Sink(world.kv, ROOT, NAMESPACE, fence=world.fence, awaited=awaited)
    assert not await world.sink.write(proxy(b'{"name":"b"}'))
    assert KEY not in world.kv.rows
    held.clear()
    assert await world.sink.write(proxy(b'{"name":"b"}'))
    held.add("p")
    world.kv.rows.pop(KEY)
    assert await world.sink.write(proxy(b'{"name":"c"}'))
