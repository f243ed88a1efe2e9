"""Watches against a real Consul that changes, restarts, forgets and goes away."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from shared.consul.blocking import (
    DEFAULTS,
    PrefixChange,
    WatchOptions,
    WatchState,
    watch_prefix,
    watch_query,
)
from shared.consul.client import Consul
from shared.consul.kv import KV
from shared.consul.operations import Delete, Put, Row
from tests.support.consul import ConsulServer
from tests.support.waiting import eventually

PREFIX = "gloo/objects/"


@dataclass
class Seen:
    """What a watch has told so far, and the view that follows from it."""

    state: WatchState
    changes: list[PrefixChange] = field(default_factory=list)
    view: dict[str, bytes] = field(default_factory=dict)
    smallest: int | None = None

    def take(self, change: PrefixChange) -> None:
        self.changes.append(change)
        for row in change.changed:
            self.view[row.key.removeprefix(PREFIX)] = row.value
        for key in change.gone:
            del self.view[key.removeprefix(PREFIX)]
        size = len(self.view)
        self.smallest = size if self.smallest is None else min(size, self.smallest)

    async def shows(self, view: dict[str, bytes], *, within: float = 20.0) -> None:
        await eventually(lambda: self.view, until=lambda now: now == view, within=within)


@asynccontextmanager
async def watching(
    kv: KV, options: WatchOptions = DEFAULTS, *, prefix: str = PREFIX, synced: bool = True
) -> AsyncIterator[Seen]:
    """A watch that, unless told otherwise, has had its first listing."""
    seen = Seen(WatchState(prefix))

    async def follow() -> None:
        async for change in watch_prefix(kv, prefix, options=options, state=seen.state):
            seen.take(change)

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(follow())
        if synced:
            await eventually(lambda: seen.changes)
        yield seen
        task.cancel()


@pytest.fixture
async def kv(consul_server: ConsulServer) -> AsyncIterator[KV]:
    async with Consul(consul_server.config) as consul:
        yield consul.kv


async def test_the_first_change_is_the_listing_and_later_ones_are_differences(kv: KV) -> None:
    await kv.put(f"{PREFIX}a", b"1")
    await kv.put(f"{PREFIX}b", b"2")

    async with watching(kv) as seen:
        assert seen.changes[0].initial
        assert seen.view == {"a": b"1", "b": b"2"}

        await kv.put(f"{PREFIX}a", b"3")
        await seen.shows({"a": b"3", "b": b"2"})
        await kv.delete(f"{PREFIX}b")
        await seen.shows({"a": b"3"})

    first, second, third = seen.changes
    assert [row.key for row in second.changed] == [f"{PREFIX}a"]
    assert not second.gone
    assert not second.initial
    assert not third.changed
    assert third.gone == {f"{PREFIX}b"}
    assert first.index < second.index < third.index


async def test_an_empty_prefix_is_told_once_and_its_first_key_seen(kv: KV) -> None:
    async with watching(kv) as seen:
        assert seen.changes == [PrefixChange(index=seen.changes[0].index, initial=True)]
        assert seen.state.synced

        await kv.put(f"{PREFIX}a", b"1")
        await seen.shows({"a": b"1"})

    assert len(seen.changes) == 2


async def test_a_transaction_is_seen_as_one_change(kv: KV) -> None:
    await kv.put(f"{PREFIX}old", b"")

    async with watching(kv) as seen:
        await kv.txn([*(Put(f"{PREFIX}{i}", b"x") for i in range(40)), Delete(f"{PREFIX}old")])
        await eventually(lambda: len(seen.view), until=lambda size: size == 40)

    assert len(seen.changes) == 2
    assert len(seen.changes[1].changed) == 40
    assert seen.changes[1].gone == {f"{PREFIX}old"}


async def test_wakeups_without_a_change_publish_nothing_and_slow_down(kv: KV) -> None:
    await kv.put("gloo/neighbour/0", b"")

    async with watching(kv, prefix="gloo/untouched/") as seen:
        for i in range(1, 100):
            await kv.put(f"gloo/neighbour/{i}", b"")
        await kv.put("gloo/untouched/a", b"1")
        await eventually(lambda: seen.view)

    assert len(seen.changes) == 2
    assert 0 < seen.state.empty_wakeups < 30


async def test_a_write_of_the_same_value_is_no_change(kv: KV) -> None:
    await kv.put(f"{PREFIX}a", b"1")

    async with watching(kv) as seen:
        await kv.put(f"{PREFIX}a", b"1")
        await kv.put(f"{PREFIX}b", b"2")
        await seen.shows({"a": b"1", "b": b"2"})

    assert [[row.key for row in change.changed] for change in seen.changes] == [
        [f"{PREFIX}a"],
        [f"{PREFIX}b"],
    ]


async def test_a_prefix_without_its_slash_is_refused(kv: KV) -> None:
    with pytest.raises(ValueError, match="must end with /"):
        await anext(watch_prefix(kv, "gloo/objects"))


async def test_a_quiet_watch_does_no_more_than_park(kv: KV) -> None:
    await kv.put(f"{PREFIX}a", b"1")

    async with watching(kv, WatchOptions(wait=1.0)) as seen:
        await eventually(lambda: seen.state.polls, until=lambda polls: polls >= 3, within=20.0)

    assert len(seen.changes) == 1
    assert seen.state.polls == 3
    assert seen.state.empty_wakeups == 0


async def test_a_durable_server_that_crashes_and_returns_never_empties_the_view(tmp_path: Path) -> None:
    async with ConsulServer(tmp_path, durable=True) as server, Consul(server.config) as consul:
        objects = {str(i): b"x" * 500 for i in range(200)}
        for name, value in objects.items():
            await consul.kv.put(f"{PREFIX}{name}", value)

        # With hold 0 nothing but the consistent resync stands between a replaying server and the view.
        async with watching(consul.kv, WatchOptions(hold=0, max_backoff=0.1)) as seen:
            for life in range(2):
                await server.restart()
                await server.put(f"{PREFIX}{life}", "after")
                objects[str(life)] = b"after"
                await seen.shows(objects)

        assert seen.smallest == 200
        assert not any(change.gone for change in seen.changes)
        assert seen.state.errors > 0


async def test_a_wiped_server_is_disbelieved_for_the_hold_and_then_believed(tmp_path: Path) -> None:
    async with ConsulServer(tmp_path) as server, Consul(server.config) as consul:
        objects = {str(i): b"1" for i in range(20)}
        for name, value in objects.items():
            await consul.kv.put(f"{PREFIX}{name}", value)

        async with watching(consul.kv, WatchOptions(hold=1.0, hold_pause=0.1, max_backoff=0.2)) as seen:
            await server.restart()
            await eventually(lambda: seen.state.held)
            assert seen.view == objects
            await seen.shows({})
            await server.put(f"{PREFIX}new", "1")
            await seen.shows({"new": b"1"})

        assert seen.state.held_reads >= 1
        assert not seen.state.held
        assert seen.state.resets == 1


async def test_a_wiped_server_that_is_refilled_within_the_hold_loses_nothing(tmp_path: Path) -> None:
    async with ConsulServer(tmp_path) as server, Consul(server.config) as consul:
        for i in range(5):
            await consul.kv.put(f"{PREFIX}{i}", b"1")

        async with watching(consul.kv, WatchOptions(hold=60.0, hold_pause=0.05, max_backoff=0.2)) as seen:
            await server.restart()
            await eventually(lambda: seen.state.held)
            for i in range(5):
                await server.put(f"{PREFIX}{i}", "2")
            await seen.shows({str(i): b"2" for i in range(5)})

        assert seen.smallest == 5
        assert not seen.state.held


async def test_a_restored_snapshot_is_noticed_at_once_and_not_after_the_wait(tmp_path: Path) -> None:
    async with ConsulServer(tmp_path, durable=True) as server, Consul(server.config) as consul:
        await consul.kv.put(f"{PREFIX}a", b"old")
        snapshot = await consul.snapshot.save()
        await consul.kv.put(f"{PREFIX}a", b"new")

        async with watching(consul.kv, WatchOptions(wait=60.0)) as seen:
            await consul.snapshot.restore(snapshot)
            await seen.shows({"a": b"old"}, within=20.0)
            await consul.kv.put(f"{PREFIX}a", b"newer")
            await seen.shows({"a": b"newer"}, within=20.0)

        assert seen.state.resets == 1


async def test_consul_may_be_away_at_the_start(tmp_path: Path) -> None:
    server = ConsulServer(tmp_path)
    async with Consul(server.config) as consul, watching(consul.kv, synced=False) as seen:
        await eventually(lambda: seen.state.errors, until=lambda errors: errors >= 2)
        assert "Connect" in seen.state.problem
        assert not seen.changes
        assert not seen.state.synced
        async with server:
            await server.put(f"{PREFIX}a", "1")
            await seen.shows({"a": b"1"})
            assert seen.state.problem == ""


SMALL_PARTS = WatchOptions(wait=1.0, split_above=20_000, join_below=4_000, most_parts=12)


async def test_a_large_prefix_is_watched_in_parts_and_as_a_whole_when_it_has_shrunk(kv: KV) -> None:
    objects = {f"vs-{number:02}": b"x" * 500 for number in range(60)}
    await kv.txn([Put(f"{PREFIX}{name}", value) for name, value in objects.items()])

    async with watching(kv, SMALL_PARTS) as seen:
        await eventually(lambda: seen.state.polls, until=lambda polls: polls > 6)
        before = seen.state.bytes
        for name in ("vs-00", "vs-31", "vs-31", "vs-59"):
            objects[name] += b"!"
            await kv.put(f"{PREFIX}{name}", objects[name])
            await seen.shows(objects)
        assert seen.state.bytes - before < 60 * 500 * 2
        for name in ("zebra", "vs", "aa", "vs-3"):
            objects[name] = b"outside of all parts"
            await kv.put(f"{PREFIX}{name}", objects[name])
            await seen.shows(objects)
        del objects["vs-07"]
        await kv.delete(f"{PREFIX}vs-07")
        await seen.shows(objects)
        for name in list(objects)[3:]:
            del objects[name]
            await kv.delete(f"{PREFIX}{name}")
        await seen.shows(objects)
        objects["zebra"] = b"again"
        await kv.put(f"{PREFIX}zebra", objects["zebra"])
        await seen.shows(objects)

    assert seen.state.objects == len(objects)


async def test_no_change_is_lost_while_a_prefix_is_cut_and_joined(kv: KV) -> None:
    chance = random.Random(7)
    names = ["".join(chance.choices("ab1", k=chance.randint(1, 6))) for _ in range(80)]
    options = replace(SMALL_PARTS, wait=0.3)

    async with watching(kv, options) as seen:
        for density in (0.9, 0.05, 0.8, 0.0, 0.5):
            for _ in range(6):
                ops = {
                    f"{PREFIX}{name}": Put(f"{PREFIX}{name}", chance.randbytes(600))
                    if chance.random() < density
                    else Delete(f"{PREFIX}{name}")
                    for name in chance.sample(names, 30)
                }
                await kv.txn(list(ops.values()))
            _, rows = await kv.list(PREFIX)
            stored = [Row.of(row) for row in rows]
            await seen.shows({row.key.removeprefix(PREFIX): row.value for row in stored})


async def test_a_query_is_told_now_and_whenever_its_index_moves(consul_server: ConsulServer, kv: KV) -> None:
    bodies: asyncio.Queue[object] = asyncio.Queue()

    async def follow() -> None:
        async for _, body in watch_query(kv.consul, "/v1/kv/gloo/one"):
            bodies.put_nowait(body and body[0]["Value"])

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(follow())
        assert await bodies.get() is None
        await kv.put("gloo/one", b"1")
        assert await bodies.get() == "MQ=="
        await kv.delete("gloo/one")
        assert await bodies.get() is None
        task.cancel()
