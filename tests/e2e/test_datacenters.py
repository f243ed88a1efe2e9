"""Two datacenters, each with a Consul of its own: both are served, and the loss of one takes nothing away."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support.backends import Backend
from tests.support.consul import ConsulServer
from tests.support.site import Site
from tests.support.stack import GATEWAY, ROLES, Stack, to_upstream
from tests.support.traffic import undisturbed
from tests.support.waiting import eventually

pytestmark = pytest.mark.e2e


@pytest.fixture
async def far(tmp_path: Path) -> AsyncIterator[ConsulServer]:
    """The other datacenter's Consul, which survives its crashes."""
    async with ConsulServer(tmp_path / "far", durable=True, extra={"datacenter": "dc2"}) as running:
        yield running


@pytest.fixture
async def stack(tmp_path: Path, far: ConsulServer) -> AsyncIterator[Stack]:
    """The whole system beside the first Consul, which knows the other."""
    running = Stack(tmp_path)
    running.write_settings()
    try:
        await running.consul.start()
        await running.consul.call("PUT", f"/v1/agent/join/127.0.0.1:{far.wan_port}?wan=1")
        await eventually(
            lambda: running.consul.call("GET", "/v1/catalog/datacenters"),
            until=lambda known: sorted(known) == ["dc1", "dc2"],
        )
        await running.put("Gateway", "gateway-proxy", GATEWAY | {"bindPort": running.http_port})
        for role in ROLES:
            start(running, role)
        running.start_envoy("envoy", running.admin_port)
        for role in ROLES:
            await running.ready(role)
        yield running
    finally:
        await running.stop()


def start(stack: Stack, role: str) -> None:
    flags = ["--state-dir", str(stack.directory / "state")] if role == "gloo" else []
    stack.start_role(role, flags=flags)


async def register(consul: ConsulServer, backend: Backend) -> None:
    body = {"ID": backend.name, "Name": "pets", "Address": "127.0.0.1", "Port": backend.port}
    await consul.call("PUT", "/v1/agent/service/register", body)


async def met(site: Site, path: str) -> set[str]:
    """Who answers some requests."""
    return set(Counter([(await site.get(path)).headers.get("x-backend", "nobody") for _ in range(20)]))


async def test_instances_of_all_datacenters_are_served_and_outlive_the_loss_of_one(
    stack: Stack, far: ConsulServer
) -> None:
    async with AsyncExitStack() as running:
        here, there, late, anew = [
            await running.enter_async_context(Backend(name)) for name in ("here", "there", "late", "anew")
        ]
        await register(stack.consul, here)
        await register(far, there)
        site = Site(stack, "pets")
        only_there = {"serviceName": "pets", "dataCenters": ["dc2"]}
        await site.serve(
            {"matchers": [{"prefix": "/far"}], "routeAction": {"single": {"consul": only_there}}},
            to_upstream("/", "pets"),
        )
        await eventually(lambda: met(site, "/"), until=lambda names: names == {"here", "there"})
        await eventually(lambda: met(site, "/far"), until=lambda names: names == {"there"})

        async with undisturbed(stack.http_port, site.domain, "/far") as traffic:
            await far.kill()
            await register(stack.consul, late)
            await eventually(
                lambda: met(site, "/"), until=lambda names: names == {"here", "there", "late"}, within=30.0
            )
            await site.serve(
                {"matchers": [{"prefix": "/far"}], "routeAction": {"single": {"consul": only_there}}},
                {**to_upstream("/", "pets"), "matchers": [{"prefix": "/edited"}]},
            )
            await eventually(lambda: met(site, "/edited"), until=lambda names: "late" in names)
            await traffic.flows()

            for role in ROLES:
                await stack.stop_process(role)
                start(stack, role)
                await stack.ready(role)
            await traffic.flows()
            assert (await stack.debug("gloo", "gloo"))["endpoints"]["unread"] == ["dc2"]

            await far.start()
            await register(far, anew)
            await eventually(
                lambda: met(site, "/far"), until=lambda names: names == {"there", "anew"}, within=60.0
            )
        assert not traffic.failures
        await far.call("PUT", "/v1/agent/service/deregister/there")
        await eventually(lambda: met(site, "/far"), until=lambda names: names == {"anew"})
