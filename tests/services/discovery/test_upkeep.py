"""Discovery without Consul: a catalog put in, a store in memory."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

from services.discovery.inputs import Inputs
from services.discovery.upkeep import HoldOptions, Upkeep
from services.discovery.upstreams.consul import Rules
from shared.consul.operations import Op
from shared.consul.polling import Holding
from shared.errors import ConsulUnavailable
from shared.ref import Ref
from shared.store.keys import UPSTREAM, key, prefix
from shared.store.memory import MemoryKV, watch_memory
from shared.telemetry.metrics import Metrics
from tests.support.waiting import eventually

NS = "gloo-system"
PREFIX = prefix("gloo", UPSTREAM, NS)


class Story:
    """A catalog, a store and the upkeep between them."""

    def __init__(
        self,
        kv: MemoryKV,
        *,
        hold: HoldOptions | None = None,
        owns: Callable[[Ref], bool] = lambda ref: True,
        holds: Holding | None = None,
    ) -> None:
        self.kv = kv
        self.inputs = Inputs()
        self.metrics = Metrics()
        self.ready: list[tuple[bool, str]] = []
        self.upkeep = Upkeep(self.inputs, kv, "gloo", Rules(namespace=NS), owns, self.metrics, hold, holds)

    def catalog(self, *services: str, dc: str = "dc1", again: bool = False) -> None:
        self.inputs.take_services(dc, {name: [] for name in services}, again=again)

    def names(self) -> set[str]:
        return {key.removeprefix(PREFIX) for key in self.kv.rows}

    def written(self, verb: str) -> float:
        return self.metrics.registry.get_sample_value("discovery_writes_total", {"verb": verb}) or 0

    async def watch(self) -> None:
        async for change in watch_memory(self.kv, "gloo", UPSTREAM, namespaces=(NS,)):
            self.inputs.take_upstreams(change)

    async def settled(self) -> None:
        """Until everything that was put in has been looked at."""
        rounds = self.upkeep.rounds
        self.inputs.changed.set()
        await eventually(lambda: self.upkeep.rounds > rounds and not self.inputs.changed.is_set())


@asynccontextmanager
async def going(story: Story) -> AsyncIterator[Story]:
    tasks = [
        asyncio.create_task(story.watch()),
        asyncio.create_task(story.upkeep.run(lambda ok, why: story.ready.append((ok, why)))),
    ]
    try:
        yield story
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_nothing_is_written_before_all_was_read() -> None:
    story = Story(
        MemoryKV(
            {f"{PREFIX}x": b"metadata: {labels: {discovered_by: consulplugin}}\nconsul: {serviceName: x}\n"}
        )
    )

    async with going(story):
        await eventually(lambda: "Consul's catalog" in story.ready[-1][1])
        story.catalog("a")
        await eventually(lambda: story.ready[-1][0])
        await eventually(lambda: story.names() == {"a"})

    assert story.written("delete") == 1


async def test_a_status_or_a_change_of_others_asks_for_no_look() -> None:
    async with going(Story(MemoryKV())) as story:
        story.catalog("a")
        await eventually(lambda: story.names() == {"a"})
        await story.settled()
        rounds = story.upkeep.rounds

        row = story.kv.rows[f"{PREFIX}a"]
        await story.kv.put(row.key, row.value + b"status: {state: Accepted}\n")
        await story.kv.put(f"{prefix('gloo', UPSTREAM)}elsewhere/b", row.value)
        await eventually(lambda: story.inputs.stored[Ref(NS, "a")].index > row.index)

        assert story.upkeep.rounds == rounds
        assert not story.inputs.changed.is_set()


async def test_only_our_share_is_written() -> None:
    async with going(Story(MemoryKV(), owns=lambda ref: ref.name != "b")) as story:
        story.catalog("a", "b", "c")
        await eventually(lambda: story.names() == {"a", "c"})
        await story.settled()

    assert story.names() == {"a", "c"}
    assert story.upkeep.state()["own"] == 2


async def test_a_service_that_goes_is_outlived_by_its_upstream_for_a_moment() -> None:
    async with going(Story(MemoryKV(), hold=HoldOptions(linger=0.3))) as story:
        story.catalog("a", "b")
        await eventually(lambda: story.names() == {"a", "b"})
        story.catalog("a")
        await story.settled()
        at_once = story.names()
        await eventually(lambda: story.names() == {"a"})

    assert at_once == {"a", "b"}


async def test_a_service_that_is_registered_anew_keeps_its_upstream_and_the_edits_in_it() -> None:
    async with going(Story(MemoryKV(), hold=HoldOptions(linger=0.3))) as story:
        story.catalog("a")
        await eventually(lambda: story.names() == {"a"})
        at = key("gloo", UPSTREAM, Ref(NS, "a"))
        await story.kv.put(at, story.kv.rows[at].value + b"useHttp2: true\n")
        story.catalog()
        await story.settled()
        story.catalog("a")
        await story.settled()
        story.catalog()
        await story.settled()
        edited = story.kv.rows[at].value
        await eventually(lambda: story.names() == set())

    assert b"useHttp2: true" in edited
    assert (story.written("create"), story.written("delete")) == (1, 1)


async def test_services_that_vanish_by_the_dozen_keep_their_upstreams_for_a_while() -> None:
    many = [f"s{number}" for number in range(20)]

    async with going(Story(MemoryKV(), hold=HoldOptions(seconds=0.5))) as story:
        story.catalog(*many)
        await eventually(lambda: len(story.names()) == 20)
        story.catalog("s1")
        await eventually(lambda: story.upkeep.state()["held"])
        held = story.names()
        await eventually(lambda: story.names() == {"s1"})

    assert len(held) == 20


async def test_after_trouble_with_the_catalog_not_one_upstream_goes_at_once() -> None:
    async with going(Story(MemoryKV(), hold=HoldOptions(seconds=0.5))) as story:
        story.catalog("a", "b")
        await eventually(lambda: story.names() == {"a", "b"})
        story.catalog("a", again=True)
        await eventually(lambda: story.upkeep.state()["held"])
        held = story.names()
        await eventually(lambda: story.names() == {"a"})

    assert held == {"a", "b"}


async def test_what_comes_back_while_it_is_kept_is_not_written_again() -> None:
    async with going(Story(MemoryKV())) as story:
        story.catalog("a", "b")
        await eventually(lambda: story.names() == {"a", "b"})
        story.catalog(again=True)
        await eventually(lambda: story.upkeep.state()["held"])
        story.catalog("a", "b", again=True)
        await eventually(lambda: not story.upkeep.state()["held"])

    assert (story.written("create"), story.written("delete")) == (2, 0)


async def test_a_datacenter_that_did_not_answer_yet_loses_nothing() -> None:
    far = b"""\
metadata: {name: far, namespace: gloo-system, labels: {discovered_by: consulplugin}}
consul: {serviceName: far, dataCenters: [dc2]}
"""
    story = Story(MemoryKV({f"{PREFIX}far": far}))
    story.catalog("a")
    story.inputs._followed.append("dc2")

    async with going(story):
        await eventually(lambda: "a" in story.names())
        await story.settled()
        before = story.names()
        story.catalog(dc="dc2")
        await eventually(lambda: story.names() == {"a"})

    assert before == {"a", "far"}


class Shaky(MemoryKV):
    """A store that is out of reach for the first few transactions."""

    failures = 3

    async def txn(self, ops: list[Op]) -> dict[str, object]:  # type: ignore[override]
        if self.failures:
            self.failures -= 1
            raise ConsulUnavailable("txn", "no cluster leader")
        return dict(await super().txn(ops))


async def test_writes_are_tried_again_when_consul_is_back() -> None:
    async with going(Story(Shaky())) as story:
        story.catalog("a")
        await eventually(lambda: story.names() == {"a"})


async def test_a_conflict_is_settled_with_the_newer_version() -> None:
    async with going(Story(MemoryKV())) as story:
        story.catalog("a")
        await eventually(lambda: story.names() == {"a"})
        await story.settled()
        at = key("gloo", UPSTREAM, Ref(NS, "a"))

        # Both happen before the watch can tell: our look is at a version that is gone.
        await story.kv.put(at, story.kv.rows[at].value + b"useHttp2: true\n")
        story.inputs.take_services("dc2", {"a": ["t"]})
        await eventually(lambda: b"- t" in story.kv.rows[at].value)

    assert b"useHttp2: true" in story.kv.rows[at].value
    assert b"- dc2" in story.kv.rows[at].value


async def test_an_object_in_the_way_is_reported_and_left() -> None:
    own = b"static: {hosts: [{addr: h, port: 1}]}\n"

    async with going(Story(MemoryKV({f"{PREFIX}a": own}))) as story:
        story.catalog("a", "b")
        await eventually(lambda: "b" in story.names())

    assert story.kv.rows[f"{PREFIX}a"].value == own
    assert set(story.upkeep.state()["left_alone"]) == {Ref(NS, "a")}


class Watched:
    """What would be told of what is held."""

    limit = math.inf
    history = 1

    def __init__(self) -> None:
        self.told: Collection[str] = ()
        self.release: Callable[[], None] = lambda: None

    async def look(self) -> int:
        return self.history

    async def owed(self, what: str) -> Collection[str]:
        return ()

    def tell(self, what: str, names: Collection[str], release: Callable[[], None]) -> None:
        self.told, self.release = names, release


async def test_a_service_that_vanished_with_consuls_history_keeps_its_upstream_until_released() -> None:
    holds = Watched()

    async with going(Story(MemoryKV(), hold=HoldOptions(linger=0.0, seconds=0.01), holds=holds)) as story:
        story.catalog("a", "b")
        await eventually(lambda: story.names() == {"a", "b"})
        holds.history = 2
        story.catalog("a")
        await eventually(lambda: holds.told)
        await story.settled()
        told, held = holds.told, story.names()
        holds.release()
        await eventually(lambda: story.names() == {"a"})
        await eventually(lambda: not holds.told)

    assert told == [f"{NS}.b"]
    assert held == {"a", "b"}


async def test_an_upstream_that_consul_has_lost_is_written_again_with_its_edits() -> None:
    async with going(Story(MemoryKV())) as story:
        story.catalog("a")
        at = key("gloo", UPSTREAM, Ref(NS, "a"))
        await eventually(lambda: at in story.kv.rows)
        await story.kv.put(at, edited := story.kv.rows[at].value + b"useHttp2: true\n")
        await eventually(lambda: any(each.raw == edited for each in story.inputs.stored.values()))
        del story.kv.rows[at]  # the watch goes on with it, and tells nothing
        story.inputs.take_lost([f"{NS}/a"])
        await eventually(lambda: at in story.kv.rows)

    assert story.kv.rows[at].value == edited
