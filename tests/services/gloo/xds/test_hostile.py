"""Clients that do harm: the server's memory stays bounded, and others are served as before."""

from __future__ import annotations

import asyncio
import statistics

import pytest

from services.gloo.resources import CLUSTER, ENDPOINTS
from tests.support.hostile_clients import KINDS, hostile_clients
from tests.support.waiting import eventually
from tests.support.xds_clients import xds_clients
from tests.support.xds_process import XdsProcess, xds_process

PUSHES = 15
NOISE = 0.04  # seconds; the machine is shared with the clients that do harm, and with other tests
MEMORY = 160  # MiB; 2,000 streams alone are 80


async def push_to_ack(server: XdsProcess, seed: int) -> float:
    """The median time from a change to its acknowledgement, while other changes go to everybody else."""
    seconds = []
    for number in range(seed, seed + PUSHES):
        await server.put((CLUSTER, "large", 100_000, number))
        await asyncio.sleep(0.05)
        answer = await server.put((ENDPOINTS, "probe", 500, number), acks=1)
        seconds.append(answer["seconds"])
    return statistics.median(seconds)


@pytest.mark.parametrize("kind", KINDS)
async def test_who_does_harm_delays_nobody_and_takes_little_memory(kind: str) -> None:
    async with xds_process(send_timeout=3.0) as server:
        await server.put((CLUSTER, "large", 100_000, 0), (ENDPOINTS, "probe", 500, 0))
        async with xds_clients(server.port, 1, ENDPOINTS):
            alone = await push_to_ack(server, seed=1)
            before = server.memory()
            server.forget_peak()
            async with hostile_clients(server.port, kind):
                await asyncio.sleep(1)
                together = await push_to_ack(server, seed=1_000)
            grown = server.memory("VmHWM") - before

            print(
                f"{kind}: push to answer {alone * 1e3:.2f} ms, {together * 1e3:.2f} ms; {grown:.0f} MiB more"
            )
            await eventually(server.clients, until=lambda count: count == 1)

    assert together <= alone * 1.1 + NOISE
    assert grown <= MEMORY


async def test_a_thousand_clients_at_once_are_admitted_in_turn() -> None:
    """As after a restart: who is here already is not kept waiting by those who come."""
    async with xds_process() as server:
        await server.tell(fill=[(CLUSTER, "cluster-", 500, 400)])
        await server.put((ENDPOINTS, "probe", 500, 0))
        async with xds_clients(server.port, 1, ENDPOINTS):
            server.forget_peak()
            before, waits = server.memory(), []
            coming = asyncio.create_task(come(server))
            while not coming.done():
                answer = await server.put((ENDPOINTS, "probe", 500, len(waits) + 1), acks=1)
                waits.append(answer["seconds"])
                await asyncio.sleep(0.02)
            seconds = await coming
            grown = server.memory("VmHWM") - before

    print(
        f"1,000 clients in {seconds:.2f} s, {grown:.0f} MiB; meanwhile a push took "
        f"{statistics.median(waits) * 1e3:.1f} ms, at most {max(waits) * 1e3:.1f} ms"
    )
    assert statistics.median(waits) < 0.1
    assert grown < 300


async def come(server: XdsProcess) -> float:
    started = asyncio.get_running_loop().time()
    async with xds_clients(server.port, 1_000, CLUSTER):
        return asyncio.get_running_loop().time() - started
