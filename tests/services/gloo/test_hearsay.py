"""Replicas that tell each other of refusals by a real Consul."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.gloo import hearsay
from services.gloo.feedback import Feedback
from services.gloo.hearsay import MOST_TOLD_BYTES, Hearsay
from services.gloo.quarantine.held import Place
from services.gloo.quarantine.quarantine import RETRY_SECONDS
from services.gloo.records import MOST_RECORDS, Record, pack_told, unpack
from services.gloo.refusals import Told
from services.gloo.resources import CLUSTER, ENDPOINTS, Resource, Resources, Snapshot, resource
from services.gloo.xds.cache import Cache
from shared.consul.client import Consul
from shared.consul.members import Members
from shared.ref import Ref, Source
from tests.support.consul import ConsulServer
from tests.support.waiting import eventually

ROLE = "gloo-system~gateway-proxy"
UPSTREAM = Source("Upstream", Ref("gloo-system", "web"))
GOOD, BAD = (resource("web", body, [UPSTREAM]) for body in (b"good", b"bad"))
PREFIX = "gloo/_refusals/"
SAID = "Envoy envoy-1 refused cluster web, served in its last good version: no such policy"


class Replica:
    """What a gloo process has of refusals, and its Envoys as a script."""

    def __init__(self, consul: Consul, name: str, *, leading: bool = False) -> None:
        self.consul = consul
        self.told: list[str] = []
        self.cache = Cache()
        self.now = time.monotonic()
        self.feedback = Feedback(self.told.append, self.cache, clock=lambda: self.now)
        self.members = Members(consul, "gloo/_members/gloo/", name)
        self.leading = leading
        self.synced = asyncio.Event()
        self.hearsay = Hearsay(
            consul,
            "gloo",
            me=f"{name}:1",
            feedback=self.feedback,
            members=self.members,
            leading=lambda: self.leading,
            synced=self.synced.set,
        )

    def want(self, *wanted: Resource) -> None:
        self.feedback.publish(ROLE, Snapshot({CLUSTER: Resources.of(wanted)}))

    def served(self) -> list[bytes]:
        snapshot = self.cache.get(ROLE)
        return [each.body for each in snapshot.of(CLUSTER).by_name.values()] if snapshot else []

    def said(self) -> list[str]:
        return [str(refusal) for refusal in self.feedback.refusals(ROLE)]

    def refuses(self, *refused: Resource, client: str = "1") -> None:
        self.feedback.nacked(client, ROLE, CLUSTER, "v", refused, "no such policy")

    def poisoned(self) -> None:
        """An Envoy comes, takes what is good and refuses what is bad."""
        self.feedback.connected("1", ROLE, "envoy-1")
        self.want(GOOD)
        self.feedback.acked("1", ROLE, CLUSTER, "v", (GOOD,), ())
        self.want(BAD)
        self.refuses(BAD)


@asynccontextmanager
async def replica(server: ConsulServer, name: str, *, leading: bool = False) -> AsyncIterator[Replica]:
    async with Consul(server.config) as consul, asyncio.TaskGroup() as tasks:
        made = Replica(consul, name, leading=leading)
        running = [
            tasks.create_task(each) for each in (made.members.run(), made.hearsay.run(), made.feedback.run())
        ]
        await made.synced.wait()
        made.hearsay.settled = True
        await eventually(lambda: name in made.members.current)
        yield made
        for task in running:
            task.cancel()


async def stored(server: ConsulServer) -> dict[str, bytes]:
    async with Consul(server.config) as consul:
        rows = [await consul.kv.get(key) for key in await consul.kv.keys(PREFIX)]
    return {row.key.removeprefix(PREFIX): row.value for row in rows if row is not None}


async def records(server: ConsulServer) -> list[Record]:
    return [unpack(value) for key, value in (await stored(server)).items() if key.startswith("parts/")]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearsay, "CHECK", 0.2)
    monkeypatch.setattr(hearsay, "TOLD_AFTER", 0.1)
    monkeypatch.setattr(hearsay, "LINGER", 0.5)


async def test_what_one_was_told_all_hold_and_say_in_the_same_words(consul_server: ConsulServer) -> None:
    async with replica(consul_server, "a") as a, replica(consul_server, "b") as b:
        b.want(BAD)
        a.poisoned()

        await eventually(lambda: b.served() == [b"good"])
        assert b.said() == a.said() == [SAID]
        assert b.told == [ROLE]
        async with replica(consul_server, "c") as new:
            new.want(BAD)
            assert (new.served(), new.said()) == ([b"good"], [SAID])


async def test_a_mended_object_is_served_by_all_and_leaves_nothing_behind(
    consul_server: ConsulServer,
) -> None:
    mended = resource("web", b"mended", [UPSTREAM])
    async with replica(consul_server, "a") as a, replica(consul_server, "b") as b:
        b.want(BAD)
        a.poisoned()
        await eventually(b.said)

        a.want(mended)
        a.feedback.acked("1", ROLE, CLUSTER, "v", (mended,), ())
        await eventually(lambda: stored(consul_server), until=lambda found: not found)
        assert b.served() == [b"good"]  # b has yet to read what a has read already
        b.want(mended)

        assert (a.served(), b.served(), b.said()) == ([b"mended"], [b"mended"], [])


async def test_a_refusal_outlives_the_replica_that_was_told(consul_server: ConsulServer) -> None:
    async with replica(consul_server, "b", leading=True) as b:
        b.want(BAD)
        async with replica(consul_server, "a") as a:
            a.poisoned()
            await eventually(b.said)
        await eventually(lambda: b.members.current == {"b"})
        assert b.served() == [b"good"]
        b.feedback.connected("7", ROLE, "envoy-1")
        b.feedback.acked("7", ROLE, CLUSTER, "v", (GOOD,), ())

        await eventually(lambda: records(consul_server), until=lambda found: found[0].owner == "b:1")
        assert (b.served(), b.said()) == ([b"good"], [SAID])
        b.want()
        await eventually(lambda: stored(consul_server), until=lambda found: not found)


async def test_a_refusal_that_nobody_has_an_envoy_for_waits_for_one(consul_server: ConsulServer) -> None:
    async with replica(consul_server, "a") as a:
        a.poisoned()
        await eventually(lambda: records(consul_server), until=bool)

        a.feedback.disconnected("1")
        await eventually(lambda: records(consul_server), until=lambda found: found[0].owner == "")
        assert a.served() == [b"good"]
        a.feedback.connected("2", ROLE, "envoy-1")

        await eventually(lambda: records(consul_server), until=lambda found: found[0].owner == "a:1")
        assert (a.served(), a.said()) == ([b"good"], [SAID])


async def test_an_owner_that_tries_again_as_its_last_envoy_goes_gives_up_and_holds_on(
    consul_server: ConsulServer,
) -> None:
    async with replica(consul_server, "a") as a, replica(consul_server, "b") as b:
        b.want(BAD)
        a.poisoned()
        await eventually(b.said)
        a.now += RETRY_SECONDS

        a.feedback.disconnected("1")
        await eventually(lambda: a.served() == [b"bad"])

        await eventually(lambda: a.served() == [b"good"])
        assert [record.owner for record in await records(consul_server)] == [""]
        b.feedback.connected("2", ROLE, "envoy-1")
        await eventually(lambda: records(consul_server), until=lambda found: found[0].owner == "b:1")
        assert a.served() == b.served() == [b"good"]


async def test_what_nobody_wants_and_nobody_owns_the_leader_takes_away(consul_server: ConsulServer) -> None:
    async with replica(consul_server, "a") as a:
        a.poisoned()
        await eventually(lambda: stored(consul_server), until=bool)

    async with replica(consul_server, "b", leading=True):
        await eventually(lambda: stored(consul_server), until=lambda found: not found)


async def test_what_an_envoy_of_another_replica_accepts_is_served_by_all(consul_server: ConsulServer) -> None:
    async with replica(consul_server, "a") as a, replica(consul_server, "b") as b:
        b.feedback.connected("2", ROLE, "envoy-2")
        b.want(BAD)
        b.feedback.acked("2", ROLE, CLUSTER, "v", (BAD,), ())
        a.poisoned()
        assert a.served() == [b"good"]

        await eventually(lambda: a.served() == [b"bad"])

        assert b.served() == [b"bad"]
        a.refuses(BAD)
        assert a.served() == [b"bad"]
        words = "Envoy envoy-1 refused cluster web: no such policy"
        await eventually(lambda: a.said() == b.said() == [words])


async def test_words_about_what_is_not_held_reach_the_others_and_end(consul_server: ConsulServer) -> None:
    endpoints = resource("web", b"endpoints", [UPSTREAM])
    async with replica(consul_server, "b", leading=True) as b:
        async with replica(consul_server, "a") as a:
            a.feedback.connected("1", ROLE, "envoy-1")
            a.feedback.nacked("1", ROLE, ENDPOINTS, "v", (endpoints,), "no weight")
            words = ["Envoy envoy-1 refused endpoints web: no weight"]
            await eventually(lambda: b.said() == words)
            a.feedback.acked("1", ROLE, ENDPOINTS, "v", (endpoints,), ())
            await eventually(lambda: b.said() == [])
            a.feedback.nacked("1", ROLE, ENDPOINTS, "v", (endpoints,), "no weight")
            await eventually(lambda: b.said() == words)

        assert b.said() == words  # until its Envoys have come back somewhere
        await eventually(lambda: b.said() == [])
        assert await stored(consul_server) == {}


async def test_nothing_is_written_while_all_is_well(consul_server: ConsulServer) -> None:
    async with replica(consul_server, "a") as a:
        a.feedback.connected("1", ROLE, "envoy-1")
        for number in range(20):
            fresh = resource("web", str(number).encode(), [UPSTREAM])
            a.want(fresh)
            a.feedback.acked("1", ROLE, CLUSTER, "v", (fresh,), ())
            await asyncio.sleep(0)

            assert not a.feedback.all_held
        assert await stored(consul_server) == {}


async def test_an_envoy_that_refuses_everything_does_not_flood_consul(consul_server: ConsulServer) -> None:
    many = [resource(f"cluster-{number}", b"x", [UPSTREAM]) for number in range(MOST_RECORDS + 50)]
    async with replica(consul_server, "a") as a:
        a.feedback.connected("1", ROLE, "envoy-1")
        a.want(*many)
        for _ in range(5):
            a.refuses(*many)
        await eventually(lambda: stored(consul_server), until=lambda found: len(found) >= 40)
        async with Consul(consul_server.config) as consul:
            indexes = {row["ModifyIndex"] for row in (await consul.kv.list(PREFIX))[1]}

    assert len(indexes) <= hearsay.BURST + 2


async def test_long_words_are_told_of_as_many_as_fit(consul_server: ConsulServer) -> None:
    many = [resource(f"cluster-{number}", b"x", [UPSTREAM]) for number in range(40)]
    async with replica(consul_server, "a") as a:
        a.feedback.connected("1", ROLE, "envoy" * 1000)
        a.feedback.nacked("1", ROLE, ENDPOINTS, "v", tuple(many), "\0" * 2000)

        (value,) = (await eventually(lambda: stored(consul_server), until=bool)).values()
        assert 10_000 < len(value) <= MOST_TOLD_BYTES


async def test_words_that_cannot_be_read_any_longer_are_told_no_more(consul_server: ConsulServer) -> None:
    words = Told(Place(ROLE, ENDPOINTS, "web"), "envoy-1", "no weight")
    async with replica(consul_server, "a") as a:
        await a.consul.kv.put(f"{PREFIX}envoys/x", pack_told([words]))
        await eventually(lambda: a.said() == ["Envoy envoy-1 refused endpoints web: no weight"])

        await a.consul.kv.put(f"{PREFIX}envoys/x", b"what?")

        await eventually(lambda: a.said() == [])


async def test_what_others_wrote_there_harms_nobody(
    consul_server: ConsulServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with Consul(consul_server.config) as consul:
        await consul.kv.put(f"{PREFIX}parts/x", b"what?")
        await consul.kv.put(f"{PREFIX}envoys/x", b'{"a": 1}')

    async with replica(consul_server, "a") as a, replica(consul_server, "b") as b:
        b.want(BAD)
        a.poisoned()
        await eventually(lambda: b.served() == [b"good"])
    assert [each.getMessage() for each in caplog.records].count("not a refusal") == 4
