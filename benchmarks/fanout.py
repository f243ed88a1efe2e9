"""One change to many clients: ours beside a grpclib server that does nothing else, turn by turn."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count

from services.gloo.resources import CLUSTER
from tests.support.xds_clients import xds_clients
from tests.support.xds_process import XdsProcess, xds_process

CLIENTS = (1, 50, 200, 1000)
SIZES = (2_000, 200_000)
OURS, NULL = "tests.support.xds_process", "benchmarks.null_fanout"
CLUSTERS = 5_000


async def main(samples: int) -> None:
    seeds = count(1)
    print("one change to N clients: medians; processor time of the server a client")
    print("  clients    bytes |  wall ms ours  null  ratio |  processor us ours   null  ratio")
    for clients in CLIENTS:
        for size in SIZES:
            await fan_out(clients, size, rounds(samples, clients, size), seeds)
    await idle_memory(seeds)
    await peak_memory(seeds)
    await one_of_many(samples, seeds)


def rounds(samples: int, clients: int, size: int) -> int:
    """Fewer of the long ones."""
    return max(5, min(samples, 40_000_000 // (clients * size), 20_000 // clients))


@asynccontextmanager
async def serving(module: str, clients: int, size: int, seeds: Iterator[int]) -> AsyncIterator[XdsProcess]:
    """A server process with so many clients that have the first version."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(xds_process(module=module))
        await server.put((CLUSTER, "changing", size, next(seeds)))
        await stack.enter_async_context(xds_clients(server.port, clients, CLUSTER))
        yield server


async def fan_out(clients: int, size: int, samples: int, seeds: Iterator[int]) -> None:
    async with serving(OURS, clients, size, seeds) as ours, serving(NULL, clients, size, seeds) as null:
        walls: dict[str, list[float]] = {"ours": [], "null": []}
        processor: dict[str, list[float]] = {"ours": [], "null": []}
        for _ in range(samples):
            for name, server in (("ours", ours), ("null", null)):
                await asyncio.sleep(0.02)
                answer = await server.put((CLUSTER, "changing", size, next(seeds)), acks=clients)
                walls[name].append(answer["seconds"] * 1e3)
                processor[name].append(answer["processor"] * 1e6 / clients)
    wall = {name: statistics.median(values) for name, values in walls.items()}
    used = {name: statistics.median(values) for name, values in processor.items()}
    slower, dearer = wall["ours"] / wall["null"], used["ours"] / used["null"]
    print(
        f"  {clients:7} {size:8} | {wall['ours']:13.2f} {wall['null']:5.2f} {slower:5.2f}x"
        f" | {used['ours']:18.0f} {used['null']:6.0f} {dearer:5.2f}x"
    )


async def idle_memory(seeds: Iterator[int]) -> None:
    """What a stream costs that has all it wants, with a connection of its own."""
    for name, module in (("ours", OURS), ("null", NULL)):
        async with xds_process(module=module) as server:
            await server.put((CLUSTER, "changing", 2_000, next(seeds)))
            async with xds_clients(server.port, 50, CLUSTER):
                before = server.memory()
            async with xds_clients(server.port, 1_000, CLUSTER):
                kib = (server.memory() - before) * 1024 / 1_000
        print(f"  {kib:.0f} KiB an idle stream, {name}")


async def peak_memory(seeds: Iterator[int]) -> None:
    async with serving(OURS, 200, 2_000, seeds) as server:
        server.forget_peak()
        answer = await server.put((CLUSTER, "changing", 5_000_000, next(seeds)), acks=200)
        print(
            f"  {server.memory('VmHWM'):.0f} MiB at most for 5 MB to 200 clients, {answer['seconds']:.2f} s"
        )


async def one_of_many(samples: int, seeds: Iterator[int]) -> None:
    """One cluster changes: what the other clusters make of that."""
    for clusters in (1, CLUSTERS):
        async with xds_process() as server:
            await server.tell(fill=[(CLUSTER, "cluster-", clusters, 300)])
            async with xds_clients(server.port, 50, CLUSTER):
                answers = []
                for _ in range(min(samples, 50)):
                    await asyncio.sleep(0.02)
                    answers.append(await server.put((CLUSTER, "cluster-0", 300, next(seeds)), acks=50))
        used = statistics.median(answer["processor"] for answer in answers) / 50 * 1e6
        sent = statistics.median(answer["sent"] for answer in answers) / 50
        print(f"  one of {clusters} clusters, to each of 50 clients: {sent:.0f} bytes, {used:.0f} us")
