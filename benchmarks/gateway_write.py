"""How long the gateway takes from an edit of a virtual service to the Proxy written, on a real Consul.

``python -m benchmarks.gateway_write``: the real process, a Consul in development mode, a long poll on the
Proxy as gloo has one; t0 is before the PUT, t1 when the poll's answer holds the edit.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson

from shared.consul.client import Consul
from shared.consul.operations import Row
from tests.services.gateway.process import PROXY, SERVICE, Objects, running
from tests.support.consul import ConsulServer
from tests.support.waiting import eventually

SAMPLES = 60
SIZES = ((1, 1), (100, 1), (1000, 1), (1, 100), (1, 1000))
"""Virtual services, and routes in each."""


def service(domain: str, routes: int, status: int) -> dict[str, Any]:
    upstream = {"single": {"upstream": {"name": "petstore", "namespace": "gloo-system"}}}
    rest = [{"matchers": [{"prefix": f"/{i}"}], "routeAction": upstream} for i in range(1, routes)]
    edited = {"matchers": [{"prefix": "/edited"}], "directResponseAction": {"status": status}}
    return {"virtualHost": {"domains": [domain], "routes": [edited, *rest]}}


async def measure(objects: Objects, consul: Consul, services: int, routes: int) -> list[float]:
    key = objects.key(PROXY, "gateway-proxy")
    for number in range(services):
        await objects.put(SERVICE, f"vs-{number}", service(f"{number}.com", routes, 200))
    found: list[float] = []
    for sample in range(SAMPLES):
        index = await _quiet(consul, key)
        await asyncio.sleep(random.uniform(0.05, 0.15))
        poll = asyncio.create_task(_changed(consul, key, index))
        await asyncio.sleep(0.02)
        value = orjson.dumps(
            {
                "metadata": {"name": "vs-0", "namespace": "gloo-system"},
                **service("0.com", routes, 300 + sample),
            }
        )
        began = time.perf_counter()
        await consul.kv.put(objects.key(SERVICE, "vs-0"), value)
        found.append((await poll - began) * 1000)
    return found


async def _changed(consul: Consul, key: str, index: int) -> float:
    while True:
        answer = await consul.read(f"/v1/kv/{key}", index=index, wait=10, watching=True)
        if answer.index != index:
            return time.perf_counter()


async def _quiet(consul: Consul, key: str) -> int:
    """The Proxy's index once nobody has written it for a while."""
    seen: Row | None = None
    while True:
        await asyncio.sleep(0.15)
        row = await consul.kv.get(key)
        if row is not None and seen is not None and row.index == seen.index:
            return row.index
        seen = row


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for services, routes in SIZES:
            place = Path(folder) / f"{services}-{routes}"
            async with ConsulServer(place / "consul") as server, Consul(server.config) as consul:
                objects = Objects(server)
                async with running(server, place):
                    await eventually(lambda objects=objects: objects.raw(PROXY, "gateway-proxy"))
                    times = sorted(await measure(objects, consul, services, routes))
            print(
                f"{services:5} virtual services x {routes:4} routes: PUT to Proxy written "
                f"p50 {statistics.median(times):6.1f} ms  p90 {times[int(len(times) * 0.9)]:6.1f} ms  "
                f"max {times[-1]:6.1f} ms"
            )


if __name__ == "__main__":
    asyncio.run(main())
