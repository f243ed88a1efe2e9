"""Write to live: from a write in Consul to the first answer of the new configuration, ours beside null.

Both arms have an Envoy and a Consul of their own, on one machine, and are sampled in turns, so that noise
hits both. The null arm of a route edit is KV, relay, KV, null control plane (N2); that of an endpoint change
is health, null control plane. Ratios are medians of the ratios of neighbouring samples. The CPU that an edit
costs our processes and their Consul, all that follows it included, hardly depends on what else runs.
"""

from __future__ import annotations

import asyncio
import base64
import os
import random
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.support.consul import ConsulServer
from tests.support.ports import free_ports
from tests.support.processes import Process, spawn
from tests.support.stack import BIN, REPOSITORY, Stack, direct, key, to_upstream
from tests.support.waiting import eventually

SIZES = (1, 100, 1000, 5000)
ROUTES_PER_HOST = 10
WRITTEN_TOGETHER = 50
WARM_UP = 5
AFTERMATH = 0.5  # seconds in which all that follows the last edit is done
HOST = "host-0.example.com"
Edit = Callable[[int], tuple[str, Any]]
"""The path and the body of a PUT to Consul."""


async def main(samples: int) -> None:
    for kind in (route_edit, endpoint_change):
        for routes in SIZES:
            await compare(kind, routes, samples)


async def compare(kind: Kind, routes: int, samples: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with Stack(Path(folder) / "ours") as stack, NullChain(Path(folder) / "null", routes) as null:
            arms = await kind(stack, null, routes)
            await sample(range(1, WARM_UP + 1), *arms)
            before = processor_times(stack)
            times = await sample(range(WARM_UP + 1, WARM_UP + 1 + samples), *arms)
            await asyncio.sleep(AFTERMATH)
            spent = {name: at - before[name] for name, at in processor_times(stack).items()}
    print(f"{kind.__name__.replace('_', ' ')}, {routes} routes ({samples} samples)")
    report(*times)
    each = "  ".join(f"{name} {seconds / samples * 1e3:.1f}" for name, seconds in spent.items())
    print(f"  CPU ms an edit: {each}", flush=True)


async def route_edit(stack: Stack, null: NullChain, routes: int) -> tuple[Arm, Arm]:
    """Edit the answer of one route among *routes*, in virtual hosts of ten."""
    hosts = max(1, routes // ROUTES_PER_HOST)
    await put_hosts(stack, {number: host(number, routes, "A") for number in range(hosts)})

    def edit(number: int) -> tuple[str, bytes]:
        return virtual_service("host-0", host(0, routes, f"{number}"))

    await null.start_by_key()
    return (
        Arm(stack.http_port, stack.consul, edit),
        Arm(null.http_port, null.consul, lambda number: ("/v1/kv/null/in", str(number).encode())),
    )


def host(number: int, routes: int, answer: str) -> dict[str, Any]:
    listed = [
        direct(f"/path-{i}", answer if number == i == 0 else "fixed")
        for i in range(min(routes, ROUTES_PER_HOST))
    ]
    return {"virtualHost": {"domains": [f"host-{number}.example.com"], "routes": listed}}


async def endpoint_change(stack: Stack, null: NullChain, routes: int) -> tuple[Arm, Arm]:
    """Move the one instance of a service from one backend to another, beside *routes*."""
    ports = [(await backend(letter)).sockets[0].getsockname()[1] for letter in "AB"]

    def edit(number: int) -> tuple[str, Any]:
        body = {"ID": "web", "Name": "web", "Address": "127.0.0.1", "Port": ports[number % 2]}
        return "/v1/agent/service/register", body

    for consul in (stack.consul, null.consul):
        await consul.call("PUT", *edit(0))
    hosts = {number: host(number, routes, "A") for number in range(max(1, routes // ROUTES_PER_HOST))}
    hosts[0] = {"virtualHost": {"domains": [HOST], "routes": [to_upstream("/", "web")]}}
    await put_hosts(stack, hosts)
    await null.start_by_service(ports)
    return Arm(stack.http_port, stack.consul, edit), Arm(null.http_port, null.consul, edit)


async def put_hosts(stack: Stack, hosts: Mapping[int, Mapping[str, Any]]) -> None:
    """Write virtual services and wait until all is told, statuses too."""
    operations = []
    for number, document in hosts.items():
        path, text = virtual_service(f"host-{number}", document)
        value = base64.b64encode(text).decode()
        operations.append({"KV": {"Verb": "set", "Key": path.removeprefix("/v1/kv/"), "Value": value}})
    for start in range(0, len(operations), WRITTEN_TOGETHER):
        await stack.consul.call("PUT", "/v1/txn", operations[start : start + WRITTEN_TOGETHER])
    for number in (0, len(hosts) - 1):
        await stack.answers("/path-0", host=f"host-{number}.example.com", within=120)
    for number in (0, len(hosts) - 1):
        await stack.status_is("Accepted", "VirtualService", f"host-{number}", within=60)
    await asyncio.sleep(AFTERMATH + len(hosts) / 100)


def virtual_service(name: str, document: Mapping[str, Any]) -> tuple[str, bytes]:
    """Where it is written, and its text as a person would write it."""
    text = yaml.safe_dump({"metadata": {"name": name, "namespace": "gloo-system"}, **document})
    return f"/v1/kv/{key('VirtualService', name)}", text.encode()


def processor_times(stack: Stack) -> dict[str, float]:
    """Seconds of processor time by process, since its start."""
    processes = {**stack.processes, "consul": stack.consul.process}
    return {name: processor_time(process.pid) for name, process in processes.items()}


def processor_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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

    def __init__(self, port: int, consul: ConsulServer, edit: Edit) -> None:
        self.port = port
        self.consul = consul
        self.edit = edit

    async def measure(self, number: int) -> float:
        """Seconds from the beginning of the write to the first answer that differs."""
        probing = asyncio.get_running_loop().run_in_executor(None, probe, self.port)
        before, changed = await probing
        path, body = self.edit(number)
        started = time.perf_counter()
        waiting = asyncio.get_running_loop().run_in_executor(None, changed, before)
        await self.consul.call("PUT", path, body)
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


Kind = Callable[[Stack, "NullChain", int], Awaitable[tuple[Arm, Arm]]]


async def sample(numbers: range, *arms: Arm) -> list[list[float]]:
    """Measure the arms in turns, with a random pause before each."""
    times: list[list[float]] = [[] for _ in arms]
    for number in numbers:
        for arm, measured in zip(arms, times, strict=True):
            await asyncio.sleep(random.uniform(0.05, 0.3))
            measured.append(await arm.measure(number))
    return times


def report(ours: Sequence[float], null: Sequence[float]) -> None:
    for name, times in (("ours", ours), ("null", null)):
        shares = "  ".join(f"p{share} {quantile(times, share) * 1e3:7.2f} ms" for share in (50, 90, 99))
        print(f"  {name}  {shares}")
    ratio = statistics.median(mine / floor for mine, floor in zip(ours, null, strict=True))
    at = {share: quantile(ours, share) / quantile(null, share) for share in (50, 99)}
    print(f"  ratio p50 {at[50]:.2f}, p99 {at[99]:.2f}, median of pairs {ratio:.2f}")


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
