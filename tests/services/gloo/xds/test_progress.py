"""How far clients are, as the real server tells it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.gloo.resources import CLUSTER, LISTENER, Resources, Snapshot, resource
from shared.incremental.units import at_once
from shared.ref import Ref, Source
from tests.services.gloo.xds.drivers import ROLE, Driver, Streams, streaming
from tests.support.waiting import eventually

GATEWAY = Source("Gateway", Ref("ns", "gw"))
UPSTREAM = Source("Upstream", Ref("ns", "up"))


@pytest.fixture(params=[False, True], ids=["sotw", "delta"])
async def driver(request: pytest.FixtureRequest) -> AsyncIterator[Driver]:
    async with streaming(delta=request.param, aggregated=True) as streams:
        yield Driver(streams)


def publish(driver: Driver, cluster: str, listener: str) -> Snapshot:
    content = Snapshot(
        {
            CLUSTER: Resources.of([resource("c", cluster.encode(), [UPSTREAM])]),
            LISTENER: Resources.of([resource("l", listener.encode(), [GATEWAY])]),
        }
    )
    driver.wire.publish(content)
    return content


def told(driver: Driver, source: Source | None = None) -> dict[str, Any]:
    assert isinstance(driver.wire, Streams)
    return at_once(driver.wire.server.roles(source))[ROLE]


def behind(driver: Driver, source: Source | None = None) -> list[tuple[str, int]]:
    return [(each["type"], each["missing"]) for each in told(driver, source)["behind"]]


def shown(driver: Driver, type_url: str) -> dict[str, Any]:
    assert isinstance(driver.wire, Streams)
    (client,) = driver.wire.server.clients()
    found: dict[str, Any] = client["types"].get(type_url, {})
    return found


async def test_a_client_is_behind_until_it_has_answered(driver: Driver) -> None:
    content = publish(driver, "c1", "l1")
    await driver.subscribe(CLUSTER)
    await driver.subscribe(LISTENER)
    await driver.receive(CLUSTER, answer=False)

    before, of_gateway = behind(driver), behind(driver, GATEWAY)
    await driver.answer(CLUSTER)
    await driver.receive(LISTENER)

    assert (CLUSTER, 1) in before
    assert CLUSTER not in dict(of_gateway)
    await eventually(lambda: behind(driver), until=lambda found: found == [])
    assert told(driver)["envoys"] == 1
    assert told(driver)["versions"][LISTENER] == content.of(LISTENER).version
    assert shown(driver, LISTENER)["lag"] == 0


async def test_a_refusal_names_the_resource_and_the_object(driver: Driver) -> None:
    publish(driver, "c1", "l1")
    await driver.subscribe(LISTENER)
    await driver.receive(LISTENER, refuse="no such port")

    refused = await eventually(
        lambda: shown(driver, LISTENER), until=lambda found: found.get("lastRefusal") is not None
    )

    assert refused["lag"] == 1
    assert refused["lastRefusal"].items() >= {"message": "no such port"}.items()
    assert list(refused["lastRefusal"]["resources"]) == ["l"]
    assert list(refused["lastRefusal"]["objects"]) == ["Gateway ns.gw"]
    assert behind(driver) == []  # a refused version is not on its way


async def test_a_client_of_an_unknown_role_is_told_of_as_not_served(driver: Driver) -> None:
    driver.role = "ns~nobody"
    publish(driver, "c1", "l1")
    await driver.subscribe(CLUSTER)
    assert isinstance(driver.wire, Streams)
    server = driver.wire.server

    role = await eventually(lambda: at_once(server.roles())["ns~nobody"])

    assert (role["served"], role["envoys"]) == (False, 1)
    (client,) = server.clients()
    assert f"served are {ROLE}" in client["problem"]
