"""The store's tests run twice: on a real Consul, and on its twin in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from shared.consul.client import Consul
from shared.store.keys import Kind
from shared.store.memory import MemoryKV, watch_memory
from shared.store.watch import watch_objects
from tests.support.consul import ConsulServer
from tests.support.watching import AnyKV, Seen, Watch


@pytest.fixture(params=["memory", pytest.param("consul", marks=pytest.mark.consul)])
def server(request: pytest.FixtureRequest) -> ConsulServer | None:
    return request.getfixturevalue("consul_server") if request.param == "consul" else None


@pytest.fixture
async def kv(server: ConsulServer | None) -> AsyncIterator[AnyKV]:
    if server is None:
        yield MemoryKV()
        return
    async with Consul(server.config) as consul:
        yield consul.kv


@pytest.fixture
async def watch(kv: AnyKV) -> AsyncIterator[Watch]:
    """Starts following a kind; stops at the end of the test."""
    tasks: list[asyncio.Task[None]] = []

    def start(kind: Kind, *, namespaces: Sequence[str] | None = None) -> Seen:
        seen = Seen()
        if isinstance(kv, MemoryKV):
            changes = watch_memory(kv, "gloo", kind, namespaces=namespaces)
        else:
            changes = watch_objects(kv, "gloo", kind, namespaces=namespaces)
        tasks.append(asyncio.get_running_loop().create_task(seen.follow(changes)))
        return seen

    yield start
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, asyncio.CancelledError), result
