"""Host names as addresses, against a real Consul."""

from __future__ import annotations

import asyncio

import pytest

from services.gloo.endpoints.consul import ConsulEndpoints
from shared.consul.client import Consul
from tests.support.consul import ConsulServer
from tests.support.waiting import eventually


@pytest.mark.consul
async def test_a_host_name_that_comes_later_is_resolved(consul_server: ConsulServer) -> None:
    async with Consul(consul_server.config) as consul:
        endpoints = ConsulEndpoints(consul)
        following = asyncio.ensure_future(endpoints.run())
        try:
            await eventually(lambda: endpoints.synced)
            changed: set[str] = set()
            endpoints.subscribe(changed.update)

            service = {"Name": "petstore", "Address": "localhost", "Port": 8090}
            await consul_server.call("PUT", "/v1/agent/service/register", service)

            await eventually(lambda: "petstore" in changed)
            assert "localhost" in endpoints.table.hostnames()
            assert "localhost" in str(endpoints.state()["hosts"])
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
