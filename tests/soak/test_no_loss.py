"""No change of ours costs a request: every kind of edit, thousands of them, under load that never stops.

``make test`` runs some hundreds of changes, ``make soak`` ten thousand. (That the probe would see a loss is
shown beside the xDS server, where a wrong order of pushes loses requests on purpose.)
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import queue
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.backends import Backend
from tests.support.ports import free_port
from tests.support.stack import GATEWAY, Stack, direct, to_upstream, virtual_service
from tests.support.traffic import undisturbed

Change = Callable[[int], Awaitable[None]]
PROBED = ("swap", "weights", "tables", "flapping", "edited")
RATE = 100  # requests a second of the open loop
WORKERS = 16


@pytest.mark.e2e
async def test_some_hundred_changes_lose_no_request(tmp_path: Path) -> None:
    await lose_nothing(tmp_path, changes=210)


@pytest.mark.soak
async def test_ten_thousand_changes_lose_no_request(tmp_path: Path) -> None:
    await lose_nothing(tmp_path, changes=10_000)


async def lose_nothing(folder: Path, changes: int) -> None:
    async with AsyncExitStack() as stopping:
        stack = await stopping.enter_async_context(Stack(folder))
        one = await stopping.enter_async_context(Backend("one"))
        two = await stopping.enter_async_context(Backend("two"))
        kinds = await prepare(stack, one, two)
        for name in PROBED:
            await stack.answers("/", host=f"{name}.example.com")
        for name in PROBED:
            await stopping.enter_async_context(undisturbed(stack.http_port, f"{name}.example.com"))
        await stopping.enter_async_context(
            open_loop(stack.http_port, [f"{name}.example.com" for name in PROBED])
        )
        started = time.monotonic()
        for number, kind in zip(range(changes), itertools.cycle(kinds), strict=False):
            await kind(number // len(kinds))
            await asyncio.sleep(random.uniform(0, 0.03))
        print(f"{changes} changes in {time.monotonic() - started:.0f} s")
        await stack.put(
            "VirtualService", "last", virtual_service(direct("/", "last"), domains=["last.example.com"])
        )
        await stack.answers("/", host="last.example.com", saying="last", within=30)


async def prepare(stack: Stack, one: Backend, two: Backend) -> list[Change]:
    """The objects under load, and each kind of change to them."""

    async def upstream(name: str, port: int, timeout: str = "5s") -> None:
        hosts = [{"addr": "127.0.0.1", "port": port}]
        await stack.put(
            "Upstream", name, {"static": {"hosts": hosts}, "connectionConfig": {"connectTimeout": timeout}}
        )

    async def site(name: str, *routes: dict[str, Any]) -> None:
        await stack.put("VirtualService", name, virtual_service(*routes, domains=[f"{name}.example.com"]))

    async def swap(number: int) -> None:
        """A new cluster and its route at once, the old one goes."""
        await upstream(f"swap-{number}", (one, two)[number % 2].port)
        await site("swap", to_upstream("/", f"swap-{number}"))
        if number > 3:
            await stack.delete("Upstream", f"swap-{number - 4}")

    async def edit_upstream(number: int) -> None:
        await upstream("edited", one.port, f"{1 + number % 5}s")

    async def weigh(number: int) -> None:
        shares = [(0, 100), (100, 0), (50, 50)][number % 3]
        members = [
            {"destination": {"upstream": {"name": name, "namespace": "gloo-system"}}, "weight": share}
            for name, share in zip(("one", "two"), shares, strict=True)
        ]
        await site(
            "weights", {"matchers": [{"prefix": "/"}], "routeAction": {"multi": {"destinations": members}}}
        )

    async def move_table(number: int) -> None:
        table = f"table-{number % 2}"
        await stack.put("RouteTable", table, {"routes": [to_upstream("/", ("one", "two")[number % 2])]})
        delegate = {"ref": {"name": table, "namespace": "gloo-system"}}
        await site("tables", {"matchers": [{"prefix": "/"}], "delegateAction": delegate})

    async def come_and_go(number: int) -> None:
        name = f"passing-{number // 2}"
        if number % 2:
            await stack.delete("VirtualService", name)
        else:
            await site(name, direct("/", "x"))

    async def edit_gateways(number: int) -> None:
        if number % 2:
            await stack.delete("Gateway", "other")
        else:
            await stack.put("Gateway", "other", GATEWAY | {"bindPort": other})

    async def flap(number: int) -> None:
        await (stack.deregister if number % 2 else stack.register)("flapping", two.port)

    other = free_port()
    await upstream("one", one.port)
    await upstream("two", two.port)
    await stack.register("flapping", one.port)
    await stack.status_is("Accepted", "Upstream", "flapping")
    await site("flapping", to_upstream("/", "flapping"))
    await site("edited", to_upstream("/", "edited"))
    kinds: list[Change] = [swap, edit_upstream, weigh, move_table, come_and_go, edit_gateways, flap]
    for kind in kinds:
        await kind(0)
    return kinds


@asynccontextmanager
async def open_loop(port: int, hosts: list[str]) -> AsyncIterator[None]:
    """Requests at a fixed rate, whether or not the ones before were answered; all must be 200."""
    failures: list[str] = []
    due: queue.Queue[str | None] = queue.Queue()

    def work() -> None:
        while (host := due.get()) is not None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            try:
                connection.request("GET", "/", headers={"Host": host})
                if (status := connection.getresponse().status) != 200:
                    failures.append(f"{host}: {status}")
            except (OSError, http.client.HTTPException) as error:
                failures.append(f"{host}: {error!r}")
            finally:
                connection.close()

    async def schedule() -> None:
        for host in itertools.cycle(hosts):
            due.put(host)
            await asyncio.sleep(1 / RATE)

    workers = [threading.Thread(target=work) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    scheduling = asyncio.create_task(schedule())
    try:
        yield
    finally:
        scheduling.cancel()
        for _ in workers:
            due.put(None)
        await asyncio.gather(*(asyncio.to_thread(worker.join) for worker in workers))
    assert failures == []
