"""Endpoints of a real Consul."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from protos import gloo
from services.gloo.endpoints.consul import ConsulEndpoints, EndpointOptions
from services.gloo.endpoints.feed import FeedOptions
from shared.consul.client import Consul
from shared.consul.datacenters import CatalogOptions
from tests.support.consul import ConsulServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.consul


@asynccontextmanager
async def following(
    server: ConsulServer, options: EndpointOptions | None = None
) -> AsyncIterator[ConsulEndpoints]:
    async with Consul(server.config) as consul:
        endpoints = ConsulEndpoints(consul, options)
        task = asyncio.create_task(endpoints.run())
        try:
            await eventually(lambda: endpoints.synced)
            yield endpoints
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def register(server: ConsulServer, id: str = "web-1", name: str = "web", **more: Any) -> None:
    service = {"ID": id, "Name": name, "Port": 80, "Address": "10.0.0.1", **more}
    await server.call("PUT", "/v1/agent/service/register", service)


async def put_in_catalog(server: ConsulServer, count: int, *, nodes: int = 1) -> None:
    """Services ``many-…``, each with a check, on nodes without agents."""
    for number in range(nodes):
        await server.call(
            "PUT", "/v1/catalog/register", {"Node": f"elsewhere-{number}", "Address": f"10.1.0.{number + 1}"}
        )
    operations: list[Any] = []
    for number in range(count):
        node, name = f"elsewhere-{number % nodes}", f"many-{number}"
        service = {"ID": name, "Service": name, "Port": 80}
        check = {"Node": node, "CheckID": name, "Name": name, "Status": "passing", "ServiceID": name}
        operations += [
            {"Service": {"Verb": "set", "Node": node, "Service": service}},
            {"Check": {"Verb": "set", "Check": check}},
        ]
    for first in range(0, len(operations), 64):
        await server.call("PUT", "/v1/txn", operations[first : first + 64])


async def set_check(server: ConsulServer, number: int, status: str, *, nodes: int = 1) -> None:
    node, name = f"elsewhere-{number % nodes}", f"many-{number}"
    check = {"Node": node, "CheckID": name, "Name": name, "Status": status, "ServiceID": name}
    await server.call("PUT", "/v1/txn", [{"Check": {"Verb": "set", "Check": check}}])


def ports(endpoints: ConsulEndpoints, name: str = "web") -> list[int]:
    return [each.port for each in endpoints.table.endpoints(name)]


async def test_instances_come_change_and_go(consul_server: ConsulServer) -> None:
    async with following(consul_server) as endpoints:
        told: list[Set[str]] = []
        endpoints.subscribe(told.append)

        await register(consul_server, Tags=["v1"], Weights={"Passing": 7, "Warning": 1})
        await eventually(lambda: ports(endpoints), until=[80].__eq__)
        (web,) = endpoints.table.endpoints("web")
        await register(consul_server, Port=81)
        await eventually(lambda: ports(endpoints), until=[81].__eq__)
        await register(consul_server, "web-2", Port=82)
        await eventually(lambda: ports(endpoints), until=[81, 82].__eq__)
        await consul_server.call("PUT", "/v1/agent/service/deregister/web-1")
        await eventually(lambda: ports(endpoints), until=[82].__eq__)

    assert (web.address, web.weight, web.tags, web.datacenter) == ("10.0.0.1", 7, ("v1",), "dc1")
    assert set().union(*told) == {"web"}


async def test_a_failing_instance_and_one_in_maintenance_do_not_serve(consul_server: ConsulServer) -> None:
    check = {"CheckID": "web-check", "TTL": "60s", "Status": "passing"}
    await register(consul_server, Check=check)
    agent = "/v1/agent"

    async with following(consul_server) as endpoints:
        there = ports(endpoints)
        await consul_server.call("PUT", f"{agent}/check/fail/web-check")
        await eventually(lambda: ports(endpoints), until=[].__eq__)
        await consul_server.call("PUT", f"{agent}/check/pass/web-check")
        await eventually(lambda: ports(endpoints), until=[80].__eq__)
        for path in ("/service/maintenance/web-1", "/maintenance"):
            await consul_server.call("PUT", f"{agent}{path}?enable=true")
            await eventually(lambda: ports(endpoints), until=[].__eq__)
            await consul_server.call("PUT", f"{agent}{path}?enable=false")
            await eventually(lambda: ports(endpoints), until=[80].__eq__)

    assert there == [80]


async def test_an_instance_whose_check_fails_never_serves_on_its_way_in_or_out(
    consul_server: ConsulServer,
) -> None:
    async with following(consul_server) as endpoints:
        served: list[list[int]] = []
        endpoints.subscribe(lambda names: served.append(ports(endpoints)))
        for round in range(5):
            await register(consul_server, Check={"TTL": "60s", "Status": "critical"}, Port=80 + round)
            await eventually(lambda: list(endpoints.table.known("web")))
            await consul_server.call("PUT", "/v1/agent/service/deregister/web-1")
            await eventually(lambda: list(endpoints.table.known("web")), until=[].__eq__)

    assert served
    assert not any(served)


async def test_a_nodes_address_is_followed(consul_server: ConsulServer) -> None:
    await put_in_catalog(consul_server, 1)

    async with following(consul_server) as endpoints:
        before = endpoints.table.endpoints("many-0")[0].address
        await consul_server.call(
            "PUT", "/v1/catalog/register", {"Node": "elsewhere-0", "Address": "10.2.0.1"}
        )
        await eventually(
            lambda: [each.address for each in endpoints.table.endpoints("many-0")], until=["10.2.0.1"].__eq__
        )

    assert before == "10.1.0.1"


async def test_a_host_name_is_resolved(consul_server: ConsulServer) -> None:
    await register(consul_server, Address="localhost")
    await register(consul_server, "web-2", Address="no.such.host.invalid", Port=81)

    async with following(consul_server) as endpoints:
        there = endpoints.table.endpoints("web")
        state = endpoints.state()

    assert {(each.address, each.hostname) for each in there} <= {
        ("127.0.0.1", "localhost"),
        ("::1", "localhost"),
    }
    assert there
    assert list(state["unresolved"]) == ["no.such.host.invalid"]


async def test_a_node_that_comes_with_services_is_found(consul_server: ConsulServer) -> None:
    async with following(consul_server) as endpoints:
        await put_in_catalog(consul_server, 40, nodes=4)
        await eventually(lambda: all(endpoints.table.endpoints(f"many-{number}") for number in range(40)))
        for number in range(4):
            await consul_server.call("PUT", "/v1/catalog/deregister", {"Node": f"elsewhere-{number}"})
            await eventually(
                lambda number=number: endpoints.table.endpoints(f"many-{number}"), until=().__eq__
            )


@pytest.mark.parametrize("services", [20, 400])
async def test_what_a_change_costs_does_not_depend_on_how_many_services_there_are(
    consul_server: ConsulServer, services: int
) -> None:
    await put_in_catalog(consul_server, services, nodes=2)

    async with following(consul_server) as endpoints:
        feed = endpoints._feeds["dc1"].state
        await eventually(lambda: feed.sweeps == 0 and feed.reads)
        start = feed.reads
        for status in ("critical", "passing"):
            await set_check(consul_server, 7, status, nodes=2)
            await eventually(lambda status=status: bool(ports(endpoints, "many-7")) == (status == "passing"))
        flips = feed.reads - start
        await register(consul_server)
        await eventually(lambda: ports(endpoints) and feed.sweeps)
        registration = feed.reads - start - flips

    assert flips == 0
    assert registration <= 2 * (3 + 2)  # a read of the service and a sweep of three nodes, twice at most
    assert len(feed.watches) == 3


async def test_a_restart_of_consul_costs_no_endpoint(tmp_path: Path) -> None:
    async with ConsulServer(tmp_path, durable=True) as server:
        await put_in_catalog(server, 30, nodes=3)
        async with following(server) as endpoints:
            least = [30]

            def count(names: object = ()) -> int:
                least.append(sum(len(endpoints.table.endpoints(f"many-{number}")) for number in range(30)))
                return least[-1]

            endpoints.subscribe(count)
            await server.restart()
            await register(server)
            await eventually(lambda: ports(endpoints), within=40)
            count()

    assert min(least) == 30


async def test_endpoints_that_vanish_with_consuls_data_are_held_and_then_let_go(tmp_path: Path) -> None:
    options = EndpointOptions(feed=FeedOptions(hold_seconds=2.0))
    async with ConsulServer(tmp_path) as server:
        await put_in_catalog(server, 30)
        async with following(server, options) as endpoints:
            await server.wipe()
            await register(server)
            await eventually(lambda: ports(endpoints) and endpoints.held_since, within=30)
            held = [bool(ports(endpoints, f"many-{number}")) for number in range(30)]
            await eventually(lambda: endpoints.table.services(), until=lambda there: "many-1" not in there)
            await eventually(lambda: endpoints.held_since is None)

    assert all(held)


async def test_a_single_endpoint_that_vanishes_with_consuls_data_is_held_too(tmp_path: Path) -> None:
    async with ConsulServer(tmp_path) as server:
        await register(server)
        async with following(server) as endpoints:
            await eventually(lambda: ports(endpoints))
            await server.wipe()
            await eventually(lambda: endpoints.held_since, within=30)
            held = ports(endpoints)
            await register(server)
            await eventually(lambda: endpoints.held_since is None, within=30)

    assert held


async def test_endpoints_that_come_back_while_held_were_never_gone(tmp_path: Path) -> None:
    async with ConsulServer(tmp_path) as server:
        await put_in_catalog(server, 30)
        async with following(server) as endpoints:
            gone: list[str] = []
            endpoints.subscribe(
                lambda names: gone.extend(name for name in names if not endpoints.table.endpoints(name))
            )
            await server.wipe()
            await eventually(lambda: endpoints.held_since, within=30)
            await put_in_catalog(server, 30)
            await eventually(lambda: endpoints.held_since is None)

    assert not [name for name in gone if name.startswith("many-")]


async def test_a_name_that_no_url_can_end_with_costs_nobody_else(consul_server: ConsulServer) -> None:
    async with following(consul_server) as endpoints:
        for number, name in enumerate(("..", "a/b", "a//b", "ü ?#%")):
            await register(consul_server, f"odd-{number}", name)
        await register(consul_server)
        for name in ("..", "a/b", "a//b", "ü ?#%", "web"):
            await eventually(lambda name=name: ports(endpoints, name), until=[80].__eq__)


async def test_only_the_wanted_datacenters_are_followed(consul_server: ConsulServer) -> None:
    options = EndpointOptions(catalog=CatalogOptions(datacenters=("dc1", "dc9")))

    async with following(consul_server, options) as endpoints:
        assert list(endpoints.state()["datacenters"]) == ["dc1"]


async def test_endpoints_wait_for_consul_to_come(tmp_path: Path) -> None:
    server = ConsulServer(tmp_path)
    async with Consul(server.config) as consul:
        endpoints = ConsulEndpoints(consul)
        task = asyncio.create_task(endpoints.run())
        try:
            assert not endpoints.synced
            await server.start()
            await eventually(lambda: endpoints.synced, within=30)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await server.stop()

    assert endpoints.table.services() <= {"consul"}


def test_the_options_are_read_from_the_settings() -> None:
    settings = gloo.Settings(
        consul=gloo.SettingsConsulConfiguration(
            dns_polling_interval=timedelta(seconds=2),
            service_discovery=gloo.SettingsConsulConfigurationServiceDiscoveryOptions(data_centers=["dc2"]),
        ),
        consul_discovery=gloo.SettingsConsulUpstreamDiscoveryConfiguration(
            consistency_mode=gloo.ConsulConsistencyModes.StaleMode
        ),
    )

    options = EndpointOptions.of(settings)

    assert options.catalog == CatalogOptions(datacenters=("dc2",), consistency="stale")
    assert options.dns_interval == 2.0
    assert EndpointOptions.of(gloo.Settings()) == EndpointOptions()
