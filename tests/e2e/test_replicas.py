"""Several of each process: they serve the same, and any of them may die at any time."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from tests.e2e.test_quarantine import BIG_REGEX, STRICT
from tests.support.backends import Backend
from tests.support.ports import free_port
from tests.support.replicas import Replica, leader
from tests.support.stack import ROLES, Stack, direct, fetch, to_upstream, virtual_service
from tests.support.statuses import watched_statuses
from tests.support.traffic import undisturbed
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SHOP = "shop.example.com"


def shop(content: str, **route: object) -> dict[str, object]:
    return virtual_service({**direct("/", content), **route}, domains=[SHOP])


async def write(stack: Stack, content: str) -> None:
    await stack.put("VirtualService", "shop", shop(content))
    await stack.answers("/", host=SHOP, saying=content)


async def poison(stack: Stack, content: str) -> None:
    """Write what gloo finds no fault with, and these Envoys refuse."""
    await stack.put("VirtualService", "shop", shop(content, matchers=[{"regex": BIG_REGEX}]))
    status = await stack.status_is("Rejected", "VirtualService", "shop", saying="deprecated option")
    assert "virtualHost.routes[0]: Envoy " in status["reason"]


async def updates(stack: Stack, admin: int) -> dict[str, int]:
    """How often an Envoy was sent something, and how often it refused that."""
    text = await stack.envoy("/stats?format=json&filter=update_(success|rejected)$", admin)
    stats = json.loads(text)["stats"]
    return {stat["name"]: stat["value"] for stat in stats if ".xds_cluster." not in stat["name"]}


def refused(counts: dict[str, int]) -> int:
    return sum(count for name, count in counts.items() if name.endswith("update_rejected"))


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[Stack]:
    """The whole system, with Envoys that refuse more than gloo knows of; the first is stopped."""
    async with Stack(tmp_path, runtime=STRICT) as stack:
        await stack.stop_process("envoy")
        yield stack


async def test_a_leader_without_envoys_tells_what_another_replicas_envoy_refuses(strict: Stack) -> None:
    stack, second, admin = strict, Replica(strict, "gloo", "second"), free_port()
    await second.start()
    stack.start_envoy("envoy", stack.admin_port, xds_ports=[second.xds_port])
    assert (await stack.debug("gloo", "gloo"))["leading"]
    await write(stack, "old")
    async with undisturbed(stack.http_port, SHOP, saying=["old"]):
        await poison(stack, "bad")

        served = await second.served()
        first = Replica(stack, "gloo", "gloo")
        first.admin_port = stack.admins["gloo"]
        assert await eventually(first.served, until=lambda found: found == served)
        stack.start_envoy("other", admin, xds_ports=[stack.xds_port])
        await eventually(
            lambda: updates(stack, admin), until=lambda counts: any("rds" in name for name in counts)
        )
        assert refused(await updates(stack, admin)) == 0

    await write(stack, "mended")
    await stack.status_is("Accepted", "VirtualService", "shop")
    await eventually(
        lambda: fetch(f"{stack.consul.url}/v1/kv/gloo/_refusals/?keys"),
        until=lambda answer: answer.status == 404,
    )


@pytest.mark.parametrize("delta", [True, False], ids=["delta", "state-of-the-world"])
async def test_an_envoy_that_moves_is_sent_nothing_and_finds_what_it_had(strict: Stack, delta: bool) -> None:
    stack, replicas = strict, [Replica(strict, "gloo", name) for name in ("second", "third")]
    stack.delta = delta
    await stack.stop_process("gloo")
    second, third = replicas
    await second.start()
    stack.start_envoy("envoy", stack.admin_port, xds_ports=[second.xds_port, third.xds_port])
    await write(stack, "old")
    async with undisturbed(stack.http_port, SHOP, saying=["old"]):
        await poison(stack, "bad")
        await third.start()
        assert await third.served() == await second.served()
        said = await stack.raw("VirtualService", "shop")
        before = await updates(stack, stack.admin_port)
        assert refused(before) == 1

        await second.kill()
        await eventually(third.clients, until=lambda clients: clients == ["envoy"])
        assert await leader(replicas) is third
        await stack.put("VirtualService", "other", virtual_service(direct("/", "new"), domains=["new.com"]))
        await stack.answers("/", host="new.com", saying="new")

        after = await updates(stack, stack.admin_port)
        assert refused(after) == 1
        assert sum(after.values()) == sum(before.values()) + 1  # the routes with the new one
        await stack.status_is("Accepted", "VirtualService", "other", within=20.0)
        assert await stack.raw("VirtualService", "shop") == said
    await write(stack, "mended")
    await stack.status_is("Accepted", "VirtualService", "shop")


LIVE_WITHIN = 20.0  # seconds for an edit made while a leader is dead; mostly it is a tenth of a second
TOLD_WITHIN = 30.0  # seconds to the next status when a leader was killed


class Crowd:
    """Two of each process, and two Envoys that know both gloos and share a port."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.of = {role: [Replica(stack, role, f"{role}-{n}") for n in (1, 2)] for role in ROLES}
        self.slowest: dict[str, float] = {}
        self.took: dict[str, float] = {}
        self.admins = [stack.admin_port, free_port()]
        self._number = 0

    async def start(self) -> None:
        stack = self.stack
        for name in ("envoy", *ROLES):
            await stack.stop_process(name)
        async with asyncio.TaskGroup() as tasks:
            for replica in itertools.chain(*self.of.values()):
                tasks.create_task(replica.start())
        ports = [replica.xds_port for replica in self.of["gloo"]]
        stack.start_envoy("envoy-1", stack.admin_port, xds_ports=ports)
        stack.start_envoy("envoy-2", self.admins[1], xds_ports=ports)

    async def refused(self) -> list[int]:
        """How often each Envoy has refused something."""
        return [refused(await updates(self.stack, admin)) for admin in self.admins]

    async def victim(self, role: str) -> Replica:
        """The leader; discovery has none, there each has its turn."""
        if role == "discovery":
            return self.of[role][self._number % 2]
        return await leader(self.of[role])

    async def told(self, what: str, role: str) -> None:
        """Write something new, and note how long it takes until *role* has said something of it."""
        began, self._number = time.monotonic(), self._number + 1
        name = f"probe-{self._number}"
        kind = "VirtualService" if role == "gateway" else "Upstream"
        if role == "gateway":
            domains = [f"{name}.example.com"]
            await self.stack.put(kind, name, virtual_service(direct("/", name), domains=domains))
        elif role == "gloo":
            hosts = [{"addr": "127.0.0.1", "port": self.stack.admin_port}]
            await self.stack.put(kind, name, {"static": {"hosts": hosts}})
        else:
            for share in ("a", "b", "c", "d"):  # some of them the one that is gone would have written
                name = f"probe-{self._number}-{share}"
                await self.stack.register(name, self.stack.admin_port)
                await self.stack.status_is("Accepted", kind, name, within=TOLD_WITHIN)
        await self.stack.status_is("Accepted", kind, name, within=TOLD_WITHIN)
        took = round(time.monotonic() - began, 2)
        self.took[f"{role} {what}"] = max(took, self.took.get(f"{role} {what}", 0.0))

    async def edit(self, one: Backend, two: Backend) -> None:
        """Change a VirtualService, an Upstream, a RouteTable and a service's instances, over and over."""
        stack = self.stack
        for number in itertools.count():
            backend, other = (one, two) if number % 2 else (two, one)
            changed = Change(stack, self.slowest)
            await stack.put(
                "VirtualService",
                "edited",
                virtual_service(direct("/", f"v{number}."), domains=["edited.com"]),
            )
            await changed.live("VirtualService", "edited.com", f"v{number}.")
            hosts = [{"addr": "127.0.0.1", "port": backend.port}]
            await stack.put("Upstream", "static", {"static": {"hosts": hosts}})
            await changed.live("Upstream", "static.com", f'"{backend.name}"')
            await stack.put("RouteTable", "table", {"routes": [direct("/", f"t{number}.")]})
            await changed.live("RouteTable", "table.com", f"t{number}.")
            await stack.register("moving", backend.port)
            await stack.deregister("moving", other.port)
            await changed.live("endpoints", "moving.com", f'"{backend.name}"')


class Change:
    def __init__(self, stack: Stack, slowest: dict[str, float]) -> None:
        self._stack = stack
        self._slowest = slowest

    async def live(self, what: str, host: str, saying: str) -> None:
        """Wait until both Envoys answer so: of many connections each gets some."""
        began = time.monotonic()
        for _ in range(6):
            await self._stack.answers("/", host=host, saying=saying, within=LIVE_WITHIN)
        self._slowest[what] = round(max(self._slowest.get(what, 0.0), time.monotonic() - began), 2)


async def prepare(stack: Stack, one: Backend) -> None:
    await stack.put("Upstream", "static", {"static": {"hosts": [{"addr": "127.0.0.1", "port": one.port}]}})
    await stack.register("moving", one.port)
    await stack.put("RouteTable", "table", {"routes": [direct("/", "t.")]})
    delegate = {"delegateAction": {"ref": {"name": "table", "namespace": "gloo-system"}}}
    routes = {
        "edited.com": direct("/", "v."),
        "static.com": to_upstream("/", "static"),
        "table.com": {"matchers": [{"prefix": "/"}], **delegate},
        "moving.com": to_upstream("/", "moving"),
    }
    for domain, route in routes.items():
        await stack.put(
            "VirtualService", domain.removesuffix(".com"), virtual_service(route, domains=[domain])
        )
    for domain in routes:
        await stack.answers("/", host=domain, within=30.0)


@pytest.mark.timeout(600)
async def test_any_process_may_be_killed_at_any_time(tmp_path: Path) -> None:
    """No request fails, no edit is lost, no status is lost or flaps, nothing refused is sent again."""
    await survive(tmp_path, [Replica.kill, Replica.stop], rounds=1)


@pytest.mark.soak
async def test_processes_may_be_killed_again_and_again(tmp_path: Path) -> None:
    await survive(tmp_path, [Replica.kill, Replica.kill, Replica.stop], rounds=20)


Way = Callable[[Replica], Awaitable[None]]


async def survive(folder: Path, ways: Sequence[Way], rounds: int) -> None:
    async with Stack(folder, runtime=STRICT) as stack, Backend("one") as one, Backend("two") as two:
        crowd = Crowd(stack)
        await crowd.start()
        await prepare(stack, one)
        await write(stack, "old")
        await poison(stack, "bad")
        before = await crowd.refused()
        async with (
            watched_statuses(stack.consul) as statuses,
            undisturbed(stack.http_port, SHOP, saying=["old"]),
            undisturbed(stack.http_port, "static.com", saying=["one", "two"]),
            undisturbed(stack.http_port, "moving.com", saying=["one", "two"]),
            undisturbed(stack.http_port, "edited.com", saying=["v"]) as traffic,
        ):
            editing = asyncio.create_task(crowd.edit(one, two))
            for role in ROLES * rounds:
                await crowd.told("untouched", role)
                for how in ways:  # whoever leads, so that each has its turn
                    victim = await crowd.victim(role)
                    await how(victim)
                    await crowd.told("after a kill" if how is Replica.kill else "after a stop", role)
                    await victim.start()
                    await traffic.flows()
                assert not editing.done(), editing
            editing.cancel()
            await asyncio.wait([editing])
            ends = ("VirtualService/gloo-system/shop", "Proxy/gloo-system/gateway-proxy")
            await eventually(
                lambda: statuses.unsettled(*ends), until=lambda found: not found, within=TOLD_WITHIN
            )
            assert await crowd.refused() == before
        print(crowd.took, crowd.slowest)
