"""Write to live: from a write in Consul to the first answer of the new configuration, ours beside null.

Both arms have an Envoy and a Consul of their own, on one machine, and are sampled in turns, so that noise
hits both. The null arm of a route edit is KV, relay, KV, null control plane (N2); that of an endpoint change
is health, null control plane. Ratios are medians of the ratios of neighbouring samples.
"""

from __future__ import annotations

import asyncio
import random
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.support.consul import ConsulServer
from tests.support.ports import free_ports
from tests.support.processes import Process, spawn
from tests.support.stack import BIN, REPOSITORY, Stack, direct, to_upstream
from tests.support.waiting import eventually

ROUTES_PER_HOST = 10
WARM_UP = 5
HOST = "host-0.example.com"
Write = Callable[[int], Awaitable[None]]


async def main(samples: int) -> None:
    for routes in (1, 100, 1000):
        await compare(f"route edit, {routes} routes", samples, route_edit, routes)
    await compare("endpoint change", samples, endpoint_change, 1)


async def compare(title: str, samples: int, kind: Any, routes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with Stack(Path(folder) / "ours") as stack, NullChain(Path(folder) / "null", routes) as null:
            ours, floor = await kind(stack, null, routes)
            times = await sample(samples, ours, floor)
    report(title, *times)


async def route_edit(stack: Stack, null: NullChain, routes: int) -> tuple[Arm, Arm]:
    """Edit the answer of one route among *routes*, in virtual hosts of ten."""
    for number in range(max(1, routes // ROUTES_PER_HOST)):
        await stack.put("VirtualService", f"host-{number}", host(number, routes, "A"))
    await stack.answers("/path-0", host=HOST, saying="A", within=60)
    if routes >= ROUTES_PER_HOST:
        last = f"host-{routes // ROUTES_PER_HOST - 1}.example.com"
        await stack.answers("/path-0", host=last, within=60)

    async def write(number: int) -> None:
        await stack.put("VirtualService", "host-0", host(0, routes, "BA"[number % 2] + f" {number}"))

    async def write_null(number: int) -> None:
        await null.consul.put("null/in", str(number))

    await null.start_by_key()
    return Arm(stack.http_port, write), Arm(null.http_port, write_null)


def host(number: int, routes: int, answer: str) -> dict[str, Any]:
    listed = [
        direct(f"/path-{i}", answer if number == i == 0 else "fixed")
        for i in range(min(routes, ROUTES_PER_HOST))
    ]
    return {"virtualHost": {"domains": [f"host-{number}.example.com"], "routes": listed}}


async def endpoint_change(stack: Stack, null: NullChain, routes: int) -> tuple[Arm, Arm]:
    """Move the one instance of a service from one backend to another."""
    backends = [await backend(letter) for letter in "AB"]
    ports = [server.sockets[0].getsockname()[1] for server in backends]

    def mover(consul: ConsulServer) -> Write:
        async def write(number: int) -> None:
            body = {"ID": "web", "Name": "web", "Address": "127.0.0.1", "Port": ports[number % 2]}
            await consul.call("PUT", "/v1/agent/service/register", body)

        return write

    await mover(stack.consul)(0)
    await stack.put(
        "VirtualService", "web", {"virtualHost": {"domains": ["*"], "routes": [to_upstream("/", "web")]}}
    )
    await stack.answers("/path-0", host=HOST, saying="A", within=30)
    await mover(null.consul)(0)
    await null.start_by_service(ports)
    return Arm(stack.http_port, mover(stack.consul)), Arm(null.http_port, mover(null.consul))


async def backend(letter: str) -> asyncio.Server:
    """A server that answers every request with *letter*."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n" + letter.encode())
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", 0)


class Arm:
    """One way from a write to traffic: the write, and a probe that asks Envoy without pause."""

    def __init__(self, port: int, write: Write) -> None:
        self.port = port
        self.write = write

    async def measure(self, number: int) -> float:
        """Seconds from the beginning of the write to the first answer that differs."""
        probing = asyncio.get_running_loop().run_in_executor(None, probe, self.port)
        before, changed = await probing
        started = time.perf_counter()
        waiting = asyncio.get_running_loop().run_in_executor(None, changed, before)
        await self.write(number)
        return await waiting - started


def probe(port: int) -> tuple[bytes, Callable[[bytes], float]]:
    """The answer now, and a function that waits for another one and gives its time."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    request = f"GET /path-0 HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode()

    def ask() -> bytes:
        connection.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(65536)
        head, _, body = answer.partition(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        while len(body) < int(length.partition(b":")[2]):
            body += connection.recv(65536)
        return body

    def changed(before: bytes) -> float:
        deadline = time.perf_counter() + 20
        with connection:
            while time.perf_counter() < deadline:
                if ask() != before:
                    return time.perf_counter()
                time.sleep(0.0002)
        raise TimeoutError("the change never became live")

    return ask(), changed


async def sample(samples: int, ours: Arm, null: Arm) -> tuple[list[float], list[float]]:
    """Measure both arms in turns, with a random pause before each."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(1, samples + WARM_UP + 1):
        for arm, measured in zip((ours, null), times, strict=True):
            await asyncio.sleep(random.uniform(0.05, 0.3))
            measured.append(await arm.measure(number))
    return times[0][WARM_UP:], times[1][WARM_UP:]


def report(title: str, ours: Sequence[float], null: Sequence[float]) -> None:
    print(f"{title} ({len(ours)} samples)")
    for name, times in (("ours", ours), ("null", null)):
        shares = "  ".join(f"p{share} {quantile(times, share) * 1e3:7.2f} ms" for share in (50, 90, 99))
        print(f"  {name}  {shares}")
    ratio = statistics.median(mine / floor for mine, floor in zip(ours, null, strict=True))
    at = {share: quantile(ours, share) / quantile(null, share) for share in (50, 99)}
    print(f"  ratio p50 {at[50]:.2f}, p99 {at[99]:.2f}, median of pairs {ratio:.2f}", flush=True)


def quantile(times: Sequence[float], share: int) -> float:
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, len(ordered) * share // 100)]


class NullChain:
    """Consul, relay, null control plane and Envoy."""

    def __init__(self, directory: Path, routes: int) -> None:
        self.directory = directory
        self.routes = routes
        self.consul = ConsulServer(directory / "consul")
        self.http_port, self.xds_port, self.admin_port = free_ports(3)
        self.processes: list[Process] = []

    async def __aenter__(self) -> NullChain:
        await self.consul.start()
        return self

    async def __aexit__(self, *ignored: object) -> None:
        for process in self.processes:
            await process.kill()
        await self.consul.stop()

    async def start_by_key(self) -> None:
        await self.consul.put("null/in", "0")
        await self.consul.put("null/out", "0")
        self.run("null_relay", "--consul", self.consul.url, "--from-key", "null/in", "--to-key", "null/out")
        await self.start("--key", "null/out")

    async def start_by_service(self, ports: Sequence[int]) -> None:
        await self.start("--service", "web", "--backend-a", str(ports[0]), "--backend-b", str(ports[1]))

    async def start(self, *flags: str) -> None:
        addresses = ["--port", str(self.xds_port), "--listener-port", str(self.http_port)]
        self.run(
            "null_control_plane",
            *addresses,
            "--consul",
            self.consul.url,
            "--routes",
            str(self.routes),
            *flags,
        )
        bootstrap = yaml.safe_load((REPOSITORY / "examples/data/envoy.yaml").read_text())
        (endpoint,) = bootstrap["static_resources"]["clusters"][0]["load_assignment"]["endpoints"][0][
            "lb_endpoints"
        ]
        where = {"address": "127.0.0.1", "port_value": self.xds_port}
        endpoint["endpoint"]["address"]["socket_address"] = where
        bootstrap["admin"]["address"]["socket_address"]["port_value"] = self.admin_port
        path = self.directory / "envoy.yaml"
        path.write_text(yaml.safe_dump(bootstrap))
        command = [BIN / "envoy", "-c", path, "--concurrency", "1", "-l", "warning", "--use-dynamic-base-id"]
        self.processes.append(spawn(command, log=self.directory / "envoy.log"))
        await eventually(lambda: asyncio.to_thread(probe, self.http_port), within=30)

    def run(self, module: str, *flags: str) -> None:
        command = [sys.executable, "-m", f"benchmarks.{module}", *flags]
        self.processes.append(spawn(command, log=self.directory / f"{module}.log", cwd=REPOSITORY))
