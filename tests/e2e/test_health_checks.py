"""Upstreams that Envoy checks itself: edits and new instances lose no request, and others hardly wait."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support.backends import Backend
from tests.support.site import Site
from tests.support.stack import Stack, direct, to_upstream
from tests.support.traffic import undisturbed
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

CHECK: dict[str, Any] = {
    "httpHealthCheck": {"path": "/health"},
    "timeout": "1s",
    "interval": "0.1s",
    "noTrafficInterval": "0.1s",
    "unhealthyThreshold": 1,
    "healthyThreshold": 1,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with Stack(tmp_path_factory.mktemp("health")) as running:
        yield running


def checked(service: str, **fields: Any) -> dict[str, Any]:
    return {"consul": {"serviceName": service}, "healthChecks": [CHECK], **fields}


def hosts(port: int, **fields: Any) -> dict[str, Any]:
    return {"static": {"hosts": [{"addr": "127.0.0.1", "port": port}]}, **fields}


async def test_edits_of_a_checked_upstream_lose_nothing(stack: Stack) -> None:
    site = Site(stack, "edited")
    async with Backend("a") as a, Backend("b") as b:
        await stack.register("edited", a.port)
        await stack.register("edited", b.port)
        await stack.put("Upstream", "mine", checked("edited"))
        await site.serve(to_upstream("/", "mine"))
        async with undisturbed(stack.http_port, site.domain, saying=('"backend": "a"', '"backend": "b"')):
            for n in range(5):
                breakers = {"maxConnections": 100 + n}
                await stack.put("Upstream", "mine", checked("edited", circuitBreakers=breakers))
                await eventually(
                    lambda n=n: stack.envoy("/clusters"),
                    until=lambda text, n=n: (
                        f"mine_gloo-system::default_priority::max_connections::{100 + n}" in text
                    ),
                )
        await stack.put("Upstream", "mine", {"consul": {"serviceName": "edited"}})
        await stack.status_is("Accepted", "Upstream", "mine")


async def test_a_new_instance_waits_for_its_first_check(stack: Stack) -> None:
    site = Site(stack, "joined")
    async with Backend("old") as old, Backend("new") as new:
        new.delay = 0.3
        await stack.register("joined", old.port)
        await stack.put("Upstream", "joined-checked", checked("joined"))
        await site.serve(to_upstream("/", "joined-checked"))
        async with undisturbed(stack.http_port, site.domain, saying=('"backend": "old"',)):
            new.failures = 5
            await stack.register("joined", new.port)
            await eventually(lambda: new.asked >= 4)
        await site.reaches("/", "new")


async def test_others_hardly_wait_for_an_instance_that_does_not_answer(stack: Stack) -> None:
    """Envoy answers for no cluster while one of them waits for its first checks."""
    site, clock = Site(stack, "others"), asyncio.get_running_loop().time
    with socket.create_server(("127.0.0.1", 0)) as server:
        silent = hosts(server.getsockname()[1], healthChecks=[CHECK | {"timeout": "3s"}])
        await stack.put("Upstream", "silent", silent)
        await stack.status_is("Accepted", "Upstream", "silent")
        before = clock()
        await site.serve(direct("/", "no new upstream"))
        assert clock() - before < 2
        async with Backend("well") as well:
            await stack.put("Upstream", "well", hosts(well.port))
            await site.serve(to_upstream("/", "well"))
            assert (await site.echo("/")).backend == "well"
        assert clock() - before < 8
