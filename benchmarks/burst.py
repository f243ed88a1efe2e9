"""A burst of writes by others: how long an edit made in the midst of it takes to be live in Envoy.

Five hundred writes within a second, to virtual services and to the route tables they delegate to, while one
more virtual service, the probe, is edited. The null arm has a Consul of its own, with the same burst of
writes, which its chain does not have to look at. Every other sample is taken in quiet, to compare.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson

from benchmarks.propagation import HOST, Arm, NullChain, host, quantile, virtual_service
from shared.consul.client import Consul
from tests.support.stack import Stack, direct, key

WRITES = 500  # in a second; half of them to route tables
OBJECTS = 500  # that are written: virtual services, and as many route tables
EVERY = 1.0 / WRITES
AT = 0.5  # seconds into the burst, when the probe is edited
ROUTES = 10
ROUNDS = 20


async def main(samples: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with (
            Stack(Path(folder) / "ours") as stack,
            NullChain(Path(folder) / "null", ROUTES) as null,
            Consul(stack.consul.config) as ours,
            Consul(null.consul.config) as theirs,
        ):
            await compare(stack, null, ours, theirs, max(1, min(samples, ROUNDS)))


async def compare(stack: Stack, null: NullChain, ours: Consul, theirs: Consul, rounds: int) -> None:
    burst = Burst()
    for consul in (ours, theirs):
        await burst.write_all(consul, OBJECTS)
    await stack.put("VirtualService", "host-0", host(0, ROUTES, "A"))
    await stack.answers("/path-0", host=HOST, saying="A", within=60)
    await stack.answers("/tables", host=f"burst-{OBJECTS - 1}.example.com", within=60)
    await null.start_by_key()

    def edit(number: int) -> tuple[str, bytes]:
        return virtual_service("host-0", host(0, ROUTES, f"{number}"))

    arms = {
        "ours": (Arm(stack.http_port, stack.consul, edit), ours),
        "null": (Arm(null.http_port, null.consul, lambda number: ("/v1/kv/null/in", b"%d" % number)), theirs),
    }
    times: dict[tuple[str, str], list[float]] = {}
    for number in range(1, 2 * rounds + 1):
        for name, (arm, consul) in arms.items():
            when = "burst" if number % 2 else "quiet"
            took = await (burst.beside(consul, arm, number) if number % 2 else arm.measure(number))
            times.setdefault((name, when), []).append(took)
            await asyncio.sleep(2.0 if number % 2 else 0.2)
    print(f"{WRITES} writes in a second, the probe edited among them ({rounds} samples)")
    for (name, when), took in sorted(times.items()):
        shares = "  ".join(f"p{share} {quantile(took, share) * 1e3:7.1f} ms" for share in (50, 90))
        print(f"  {name}  {when}  {shares}  longest {max(took) * 1e3:7.1f} ms")


class Burst:
    """Writes that all differ; each touches a virtual service or a route table, turn by turn."""

    def __init__(self) -> None:
        self.written = 0

    async def beside(self, consul: Consul, arm: Arm, number: int) -> float:
        """What the probe's edit takes in the midst of a burst."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.write(consul))
            await asyncio.sleep(AT)
            return await arm.measure(number)

    async def write(self, consul: Consul) -> None:
        started = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for number in range(WRITES):
                await asyncio.sleep(max(0.0, started + number * EVERY - time.monotonic()))
                tasks.create_task(self._next(consul))

    async def write_all(self, consul: Consul, objects: int) -> None:
        for number in range(2 * objects):
            await self._put(consul, number)

    async def _next(self, consul: Consul) -> None:
        await self._put(consul, self.written % (2 * OBJECTS))

    async def _put(self, consul: Consul, number: int) -> None:
        self.written += 1
        kind, document = table(number, self.written) if number % 2 else service(number, self.written)
        name = f"burst-{number // 2}"
        named = {"metadata": {"name": name, "namespace": "gloo-system"}, **document}
        await consul.kv.put(key(kind, name), orjson.dumps(named))


def service(number: int, version: int) -> tuple[str, dict[str, Any]]:
    table = {"name": f"burst-{number // 2}", "namespace": "gloo-system"}
    routes = [
        direct("/own", f"version {version}"),
        {"matchers": [{"prefix": "/tables"}], "delegateAction": {"ref": table}},
    ]
    hosted = {"domains": [f"burst-{number // 2}.example.com"], "routes": routes}
    return "VirtualService", {"virtualHost": hosted}


def table(number: int, version: int) -> tuple[str, dict[str, Any]]:
    return "RouteTable", {"routes": [direct("/tables", f"version {version}")]}
