"""Watches against a real Consul that changes, restarts, forgets and goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from shared.consul.blocking import DEFAULTS, PrefixChange, WatchOptions, WatchState, watch_prefix
from shared.consul.client import Consul
from shared.consul.kv import KV, Delete, Put
from tests.support.consul import ConsulServer
from tests.support.waiting import eventually

PREFIX = "gloo/objects/"


@dataclass
class Seen:
    """What a watch has told so far, and the view that follows from it."""

    state: WatchState
    changes: list[PrefixChange] = field(default_factory=list)
    view: dict[str, bytes] = field(default_factory=dict)

    def take(self, change: PrefixChange) -> None:
        self.changes.append(change)
        for row in change.changed:
            self.view[row.key.removeprefix(PREFIX)] = row.value
        for key in change.gone:
            del self.view[key.removeprefix(PREFIX)]

    async def shows(self, view: dict[str, bytes], *, within: float = 10.0) -> None:
        await eventually(lambda: self.view, until=lambda now: now == view, within=within)


@asynccontextmanager
async def watching(kv: KV, options: WatchOptions = DEFAULTS) -> AsyncIterator[Seen]:
    """A watch of ``PREFIX`` that has had its first listing."""
    seen = Seen(WatchState(PREFIX))

    async def follow() -> None:
        async for change in watch_prefix(kv, PREFIX, options=options, state=seen.state):
            seen.take(change)

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(follow())
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

    async with watching(kv) as seen:
        for i in range(1, 100):
            await kv.put(f"gloo/neighbour/{i}", b"")
        await kv.put(f"{PREFIX}a", b"1")
        await seen.shows({"a": b"1"})

    assert len(seen.changes) == 2
    assert 0 < seen.state.empty_wakeups < 30
