"""What is held in a real Consul: noted, answered, and told from what somebody deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from shared.consul.blocking import PrefixChange, WatchOptions, WatchState, watch_prefix
from shared.consul.client import Consul
from shared.consul.holds import Holds
from tests.support.consul import ConsulServer
from tests.support.waiting import eventually

NOTE = "gloo/_holds/gloo/me"
HISTORY = "gloo/_holds/history"
PREFIX = "gloo/objects/"


class Watch:
    """One that holds *names* until it is told to give them up."""

    def __init__(self, holds: Holds, what: str = "things") -> None:
        self.holds = holds
        self.what = what
        self.released = 0

    def holding(self, *names: str) -> None:
        self.holds.tell(self.what, names, self.release)

    def release(self) -> None:
        self.released += 1
        self.holding()


@pytest.fixture
async def consul(consul_server: ConsulServer) -> AsyncIterator[Consul]:
    async with Consul(consul_server.config) as client:
        yield client


@asynccontextmanager
async def running(holds: Holds) -> AsyncIterator[Watch]:
    task = asyncio.create_task(holds.run())
    try:
        yield Watch(holds)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def note(consul: Consul) -> dict[str, Any]:
    row = await consul.kv.get(NOTE)
    found: dict[str, Any] = orjson.loads(row.value) if row else {}
    return found


async def noted(consul: Consul, *names: str) -> dict[str, Any]:
    """The note once it has *names*."""
    return await eventually(
        lambda: note(consul),
        until=lambda found: found.get("held", {}).get("things", {}).get("names", []) == list(names),
    )


async def test_what_is_held_is_noted_and_an_answer_to_the_note_releases_it(consul: Consul) -> None:
    async with running(Holds(consul, "gloo", "gloo", "me")) as watch:
        watch.holding("a", "b")
        found = await noted(consul, "a", "b")
        assert found["held"]["things"]["count"] == 2
        watch.holding("b")
        assert (await noted(consul, "b"))["id"] == found["id"]

        await consul.kv.put(NOTE, orjson.dumps({"released": found["id"]}))
        await eventually(lambda: watch.released)
        await eventually(lambda: consul.kv.get(NOTE), until=lambda row: row is None)

    assert not watch.holds.held


async def test_an_answer_to_an_older_note_releases_nothing(consul: Consul) -> None:
    async with running(Holds(consul, "gloo", "gloo", "me")) as watch:
        watch.holding("a")
        older = await noted(consul, "a")
        watch.holding("a", "b")
        await noted(consul, "a", "b")

        await consul.kv.put(NOTE, orjson.dumps({"released": older["id"]}))
        await noted(consul, "a", "b")

    assert not watch.released


async def test_what_one_process_noted_the_next_one_is_owed(consul: Consul) -> None:
    async with running(Holds(consul, "gloo", "gloo", "me")) as watch:
        watch.holding("a", "b")
        await noted(consul, "a", "b")

    after = Holds(consul, "gloo", "gloo", "other")
    after.owe("things", ["c"])

    assert await after.owed("things") == {"a", "b", "c"}
    assert not await after.owed("others")


async def test_what_is_held_at_the_very_end_is_noted_still(consul: Consul) -> None:
    async with running(Holds(consul, "gloo", "gloo", "me")) as watch:
        watch.holding("a")
        await noted(consul, "a")
        watch.holding("a", "b")

    assert (await note(consul))["held"]["things"]["names"] == ["a", "b"]


async def test_a_note_that_was_lost_is_written_again(consul: Consul) -> None:
    async with running(Holds(consul, "gloo", "gloo", "me")) as watch:
        watch.holding("a")
        await noted(consul, "a")
        await consul.kv.delete(NOTE)
        await noted(consul, "a")


async def test_history_goes_on_while_processes_come_and_is_another_once_its_key_is_lost(
    consul: Consul,
) -> None:
    one, two = Holds(consul, "gloo", "gloo", "one"), Holds(consul, "gloo", "gloo", "two")
    await one.owed("things")
    await two.owed("things")
    assert (await one.look(), await two.look()) == (0, 0)

    await consul.kv.delete(HISTORY)

    assert (await one.look(), await two.look()) == (1, 1)
    assert (await one.look(), await two.look()) == (1, 1)


async def test_a_restored_history_is_another_though_it_bears_the_same_name(consul: Consul) -> None:
    one, two = Holds(consul, "gloo", "gloo", "one"), Holds(consul, "gloo", "gloo", "two")
    await one.owed("things")
    snapshot = await consul.kv.get(HISTORY)
    await two.owed("things")
    assert snapshot is not None

    await consul.kv.put(HISTORY, snapshot.value)

    assert await two.look() == 1
    assert await one.look() == 1


async def test_a_signature_on_disk_tells_of_a_loss_while_nobody_ran(consul: Consul, tmp_path: Path) -> None:
    path = tmp_path / "state" / "history.json"
    await Holds(consul, "gloo", "gloo", "me", signature=path).owed("things")

    same = Holds(consul, "gloo", "gloo", "me", signature=path)
    same.owe("things", ["a"], if_lost=True)
    assert not await same.owed("things")

    await consul.kv.delete(HISTORY)
    other = Holds(consul, "gloo", "gloo", "me", signature=path)
    other.owe("things", ["a"], if_lost=True)
    assert await other.owed("things") == {"a"}

    path.write_text("garbage")
    assert not await Holds(consul, "gloo", "gloo", "me", signature=path).owed("things")


async def test_a_watch_holds_what_a_wiped_consul_lost_though_its_index_has_climbed(tmp_path: Path) -> None:
    """The new Consul is further than the old one was before the watch looks again."""
    view: dict[str, bytes] = {}

    def take(change: PrefixChange) -> None:
        view.update((row.key.removeprefix(PREFIX), row.value) for row in change.changed)
        for key in change.gone:
            del view[key.removeprefix(PREFIX)]

    async with ConsulServer(tmp_path) as server, Consul(server.config) as consul:
        holds, state = Holds(consul, "gloo", "gloo", "me"), WatchState()
        for name in ("a", "b", "c"):
            await consul.kv.put(f"{PREFIX}{name}", b"1")

        async def follow() -> None:
            options = WatchOptions(holds=holds, max_backoff=5.0)
            async for change in watch_prefix(consul.kv, PREFIX, options=options, state=state):
                take(change)

        async with running(holds):
            task = asyncio.create_task(follow())
            await eventually(lambda: len(view) == 3)
            index = state.index
            await server.wipe()
            for count in range(1000):
                await consul.kv.put("other", str(count).encode())
                if (await consul.kv.read("other")).index > index:
                    break
            await consul.kv.put(f"{PREFIX}a", b"2")
            await eventually(lambda: view == {"a": b"2", "b": b"1", "c": b"1"}, within=20.0)
            assert holds.held[PREFIX].names == {"b", "c"}
            assert "2 of gloo/objects/ since" in holds.in_words()[0]

            await consul.kv.delete(f"{PREFIX}a")
            await eventually(lambda: view == {"b": b"1", "c": b"1"})
            holds.release()
            await eventually(lambda: not view and not holds.held)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_what_is_held_is_dropped_after_the_limit_without_another_answer(tmp_path: Path) -> None:
    async with ConsulServer(tmp_path) as server, Consul(replace(server.config, hold_lost=1.0)) as consul:
        holds, gone = Holds(consul, "gloo", "gloo", "me"), asyncio.Event()
        await consul.kv.put(f"{PREFIX}a", b"1")
        listed = asyncio.Event()

        async def follow() -> None:
            async for change in watch_prefix(consul.kv, PREFIX, options=WatchOptions(holds=holds)):
                listed.set()
                if change.gone:
                    gone.set()

        task = asyncio.create_task(follow())
        async with asyncio.timeout(30.0):
            await listed.wait()
            await server.wipe()
            await eventually(lambda: PREFIX in holds.held, within=20.0)
            assert not gone.is_set()
            await gone.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert not holds.held
