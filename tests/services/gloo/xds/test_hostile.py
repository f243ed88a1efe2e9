"""Clients that do harm: the server's memory stays bounded, and others are served as before."""

from __future__ import annotations

import asyncio
import statistics

import pytest

from services.gloo.resources import CLUSTER, ENDPOINTS
from tests.support.hostile_clients import ELSEWHERE, HERE, KINDS, delays
from tests.support.xds_clients import xds_clients
from tests.support.xds_process import XdsProcess, xds_process

LONGER = 1.3  # `python -m benchmarks hostile` has the figures; here is what a busy machine keeps
TURNS = 0.001  # seconds: turns of the loop, when each has something else to do
MEMORY = 120  # MiB; 2,000 streams alone are 80


@pytest.mark.parametrize("kind", KINDS)
async def test_who_does_harm_delays_nobody_and_takes_little_memory(kind: str) -> None:
    found = await delays(kind, rounds=2, pushes=12, arms=(ELSEWHERE, HERE))

    here, elsewhere = (statistics.median(found.work[arm]) for arm in (HERE, ELSEWHERE))
    print(f"{kind}: {elsewhere * 1e3:.2f} ms of work, {here * 1e3:.2f} ms; {found.grown:.0f} MiB more")
    assert here <= elsewhere * LONGER + TURNS
    assert found.grown <= MEMORY


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
