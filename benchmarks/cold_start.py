"""From nothing to service at full size, and how long event loops are held up on the way.

A start shares the machine with others, so processor time counts: of the whole process, from its exec until
its first work is done. That is gateway's Proxy, discovery's Upstreams, and for gloo a whole snapshot at a raw
xDS client that has waited for it. The null arm is the same process with nothing to read. Event loops are
watched in starts of their own, since watching costs something, too.
"""

from __future__ import annotations

import asyncio
import compileall
import contextlib
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import orjson
from envoy.service.discovery.v3 import discovery_pb2

from benchmarks.idle import memory, processor_seconds
from benchmarks.watched import told
from services.gloo.resources import CLUSTER, LISTENER, ROUTES
from tests.support.consul import REPOSITORY
from tests.support.processes import spawn
from tests.support.stack import GATEWAY, ROLES, Stack, direct, key, to_upstream
from tests.support.waiting import eventually

SIZE = 5_000  # virtual hosts of two routes, and services
BATCH = 64
REST = 4.0  # seconds until statuses are written and the last good is kept
ROLE = "gloo-system~gateway-proxy"
DELTA = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


async def main(samples: int) -> None:
    for folder in ("protos", "shared", "services", "benchmarks"):
        compileall.compile_dir(REPOSITORY / folder, quiet=2)  # as the images have it
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder))
        try:
            stack.write_settings()
            await stack.consul.start()
            await with_nothing_to_read(stack)
            await fill(stack, SIZE)
            print(f"\n{SIZE} virtual hosts of 2 routes, {SIZE} services")
            for watched in (True, False):
                await discovery(stack, watched=watched)
                await gateway(stack, watched=watched)
                await gloo(stack, "gloo", "watched" if watched else "state", watched=watched)
            for watched in (True, False):
                await gloo(stack, "gloo, with its last good", "state", watched=watched)
            await stack.consul.stop()
            await gloo(stack, "gloo, its last good without Consul", "state", ready=False)
        finally:
            await stack.stop()


async def with_nothing_to_read(stack: Stack) -> None:
    for role in ROLES:
        start = Start(stack, role)
        await stack.ready(role)
        await start.report(f"{role}, nothing to read")


async def discovery(stack: Stack, *, watched: bool) -> None:
    await stack.consul.delete(key("Upstream", "") + "?recurse")
    start = Start(stack, "discovery", watched=watched)
    await eventually(lambda: stored(stack, "Upstream", SIZE), within=120)
    await start.report("discovery")


async def gateway(stack: Stack, *, watched: bool) -> None:
    await stack.consul.delete(key("Proxy", "") + "?recurse")
    start = Start(stack, "gateway", watched=watched)
    await eventually(lambda: stored(stack, "Proxy", 1), within=120)
    await start.report("gateway")


async def gloo(stack: Stack, title: str, kept: str, *, watched: bool = False, ready: bool = True) -> None:
    start = Start(stack, "gloo", "--state-dir", str(stack.directory / kept), watched=watched)
    await snapshot(stack.xds_port, SIZE)
    await start.report(title, until=lambda: stack.ready("gloo", within=120) if ready else asyncio.sleep(0))


class Start:
    """A process from its exec on."""

    def __init__(self, stack: Stack, role: str, *flags: str, watched: bool = False) -> None:
        self.stack, self.role = stack, role
        self.watch = stack.directory / f"{role}-{time.monotonic_ns()}.watch" if watched else None
        self.started = time.monotonic()
        if self.watch is None:
            stack.start_role(role, flags=flags)
            return
        command = [sys.executable, "-m", "benchmarks.watched", str(self.watch), role, *flags]
        command += ["--dir", str(stack.directory / "data")]
        command += ["--admin-addr", f"127.0.0.1:{stack.admins[role]}"]
        stack.processes[role] = spawn(command, log=stack.directory / f"{role}.log", cwd=REPOSITORY)

    async def report(self, title: str, *, until: Callable[[], Awaitable[object]] | None = None) -> None:
        """Say what it took so far, what it comes to *until* then and a while later; end the process."""
        pid = self.stack.processes[self.role].pid
        used, elapsed = processor_seconds(pid), time.monotonic() - self.started
        if until is not None:
            await until()
        await asyncio.sleep(REST)
        if self.watch is None:
            print(
                f"{title:36} {used:5.2f} s of processor, {elapsed:5.2f} s;"
                f" at rest {processor_seconds(pid):5.2f} s, {memory(pid):4.0f} MiB",
                flush=True,
            )
        else:
            print(f"{title:36} event loop held up: {told(self.watch)}", flush=True)
        await self.stack.stop_process(self.role)


async def fill(stack: Stack, size: int) -> None:
    """A Gateway, services of a node that no agent looks after, and virtual services that forward to them."""
    await stack.put("Gateway", "gateway-proxy", GATEWAY | {"bindPort": stack.http_port})
    node = {"Verb": "set", "Node": {"Node": "elsewhere", "Address": "127.0.0.1"}}
    await transact(stack, [{"Node": node}])
    await transact(stack, [service(number) for number in range(size)])
    await transact(stack, [virtual_service(number) for number in range(size)])


async def transact(stack: Stack, operations: Sequence[dict[str, Any]]) -> None:
    for start in range(0, len(operations), BATCH):
        await stack.consul.call("PUT", "/v1/txn", operations[start : start + BATCH])


def service(number: int) -> dict[str, Any]:
    name = f"service-{number}"
    instance = {"ID": name, "Service": name, "Address": "127.0.0.1", "Port": 10_000 + number}
    return {"Service": {"Verb": "set", "Node": "elsewhere", "Service": instance}}


def virtual_service(number: int) -> dict[str, Any]:
    name = f"host-{number}"
    routes = [direct("/fixed", f"host {number}"), to_upstream("/", f"service-{number}")]
    document = {
        "metadata": {"name": name, "namespace": "gloo-system"},
        "virtualHost": {"domains": [f"{name}.example.com"], "routes": routes},
    }
    value = b64encode(orjson.dumps(document)).decode()
    return {"KV": {"Verb": "set", "Key": key("VirtualService", name), "Value": value}}


async def stored(stack: Stack, kind: str, count: int) -> bool:
    return len(await stack.consul.call("GET", f"/v1/kv/{key(kind, '')}?keys") or ()) >= count


async def snapshot(port: int, clusters: int) -> None:
    """Return when a client that asks for everything has so many clusters, the listener and its routes."""
    await listening(port)
    options = [("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        stream = channel.stream_stream(
            DELTA,
            request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
        )()
        first = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER, resource_names_subscribe=["*"])
        first.node.id = "raw"
        first.node.metadata["role"] = ROLE
        await stream.write(first)
        await stream.write(
            discovery_pb2.DeltaDiscoveryRequest(type_url=LISTENER, resource_names_subscribe=["*"])
        )
        known = set[str]()
        while True:
            response = await stream.read()
            names = [each.name for each in response.resources]
            answer = discovery_pb2.DeltaDiscoveryRequest(
                type_url=response.type_url, response_nonce=response.nonce
            )
            await stream.write(answer)
            if response.type_url == CLUSTER:
                known.update(names)
            elif response.type_url == LISTENER:
                routes = [f"{name}-routes" for name in names]
                await stream.write(
                    discovery_pb2.DeltaDiscoveryRequest(type_url=ROUTES, resource_names_subscribe=routes)
                )
            elif len(known) >= clusters:
                stream.cancel()
                return


async def listening(port: int) -> None:
    """Return as soon as somebody listens on *port*."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.005)
