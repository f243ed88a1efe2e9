"""Several of each process: they serve the same, and any of them may die at any time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.test_quarantine import BIG_REGEX, STRICT
from tests.support.ports import free_port
from tests.support.replicas import Replica, leader
from tests.support.stack import Stack, direct, fetch, virtual_service
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
