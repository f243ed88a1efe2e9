"""Typed reads of a real registry."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from shared.consul.catalog import OWN_SERVICE, Catalog, Check
from shared.consul.client import Consul
from tests.support.consul import ConsulServer

PETSTORE = {
    "ID": "petstore-1",
    "Name": "petstore",
    "Address": "10.0.0.1",
    "Port": 8090,
    "Tags": ["v1", "http"],
    "Meta": {"team": "pets"},
    "TaggedAddresses": {"lan": {"Address": "10.0.0.2", "Port": 9000}},
    "Weights": {"Passing": 5, "Warning": 2},
    "Check": {"CheckID": "alive", "TTL": "1h", "Status": "critical"},
}


@pytest.fixture
async def catalog(consul_server: ConsulServer) -> AsyncIterator[Catalog]:
    await consul_server.call("PUT", "/v1/agent/service/register", PETSTORE)
    async with Consul(consul_server.config) as consul:
        yield Catalog(consul)


async def test_services_are_listed_but_for_our_own(catalog: Catalog, consul_server: ConsulServer) -> None:
    await consul_server.call("PUT", "/v1/agent/service/register", {"Name": OWN_SERVICE})

    services = await catalog.services()

    assert {name: sorted(tags) for name, tags in services.items()} == {
        "consul": [],
        "petstore": ["http", "v1"],
    }


async def test_a_node_comes_with_its_services(catalog: Catalog) -> None:
    (node,) = await catalog.nodes()
    found = await catalog.node("test-node")

    assert (node.name, node.address, node.datacenter) == ("test-node", "127.0.0.1", "dc1")
    assert found is not None
    assert found[0] == node
    petstore = next(service for service in found[1] if service.name == "petstore")
    assert (petstore.id, petstore.address, petstore.port) == ("petstore-1", "10.0.0.1", 8090)
    assert petstore.tags == ("v1", "http")
    assert petstore.meta == {"team": "pets"}
    assert petstore.tagged_addresses["lan"] == {"Address": "10.0.0.2", "Port": 9000}
    assert petstore.weights == (5, 2)
    assert petstore.index > 0
    assert await catalog.node("none") is None


async def test_health_tells_which_instances_pass(catalog: Catalog, consul_server: ConsulServer) -> None:
    (instance,) = await catalog.health_service("petstore")
    assert {check.id: check.status for check in instance.checks} == {
        "serfHealth": "passing",
        "alive": "critical",
    }
    assert await catalog.health_service("petstore", passing=True) == []

    await consul_server.call("PUT", "/v1/agent/check/pass/alive")

    assert [found.service.id for found in await catalog.health_service("petstore", passing=True)] == [
        "petstore-1"
    ]
    assert await catalog.health_service("none") == []


async def test_every_check_names_its_node_and_service(catalog: Catalog) -> None:
    checks = {check.id: check for check in await catalog.health_state_any()}

    assert checks["serfHealth"].service == ""
    assert checks["alive"] == Check(
        id="alive",
        node="test-node",
        status="critical",
        service_id="petstore-1",
        service="petstore",
        index=checks["alive"].index,
    )
