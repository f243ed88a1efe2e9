"""xDS clients that do harm, in a process of their own, and how long they keep others waiting.

``python -m tests.support.hostile_clients KIND`` takes ports on standard input, one a line, and turns to the
last until it is killed; 0 is nobody's.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import uvloop
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamReset, TrailersReceived
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from services.gloo.resources import CLUSTER, ENDPOINTS, ROUTES
from tests.support.waiting import eventually
from tests.support.xds_clients import fake_client
from tests.support.xds_process import REPOSITORY, ROLE, xds_process

PATH = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
STATUS = "/envoy.service.status.v3.ClientStatusDiscoveryService/StreamClientStatus"
HEADERS = [
    *((":method", "POST"), (":scheme", "http"), (":authority", "test")),
    *(("content-type", "application/grpc"), ("te", "trailers")),
]


class Connection:
    """One connection by hand; ``data`` is what came, where that is kept."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.ended = False
        self.data: bytearray | None = None
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.h2.initiate_connection()
        self.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**30})
        self.h2.increment_flow_control_window(2**30)

    def open(self, data: bytes, path: str = PATH) -> int:
        """A new stream, and what it says first."""
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, [(":path", path), *HEADERS])
        self.say(stream, data)
        return stream

    def say(self, stream: int, data: bytes) -> None:
        self.h2.send_data(stream, data)
        self.flush()

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    async def read(self) -> None:
        read = await self._reader.read(2**16)
        if not read:
            raise ConnectionError
        for event in self.h2.receive_data(read):
            if isinstance(event, DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if self.data is not None:
                    self.data += event.data
            self.ended |= isinstance(event, TrailersReceived | StreamReset)
        self.flush()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.transport.abort()


def request(type_url: str = CLUSTER, **more: Any) -> bytes:
    made = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, node=base_pb2.Node(id="hostile"), **more)
    made.node.metadata["role"] = ROLE
    return framed(made.SerializeToString())


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


async def never_reads(port: int) -> None:
    async with connected(port) as connection:
        connection.open(request())
        await asyncio.Event().wait()


async def never_answers(port: int) -> None:
    async with connected(port) as connection:
        connection.open(request())
        while True:
            await connection.read()


async def refuses_everything(port: int) -> None:
    async with connected(port) as connection:
        stream, data = connection.open(request()), bytearray()
        connection.data = data
        while True:
            await connection.read()
            while len(data) > 5 and len(data) >= (size := 5 + int.from_bytes(data[1:5], "big")):
                response = discovery_pb2.DeltaDiscoveryResponse.FromString(bytes(data[5:size]))
                del data[:size]
                refusal = discovery_pb2.DeltaDiscoveryRequest(
                    type_url=response.type_url, response_nonce=response.nonce
                )
                refusal.error_detail.code, refusal.error_detail.message = 13, "no " * 10_000
                await write(connection, stream, framed(refusal.SerializeToString()))


async def reconnects(port: int) -> None:
    while True:
        with contextlib.suppress(OSError):
            async with connected(port) as connection:
                connection.open(request())
                await connection.read()
        await asyncio.sleep(0.005)


async def sends_garbage(port: int) -> None:
    """In messages, and on the connection."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.1), connected(port) as connection:
            connection.open(framed(os.urandom(2_000)))
            await connection.read()
            connection.writer.write(os.urandom(20_000))
            while True:
                await connection.read()


async def asks_for_names(port: int) -> None:
    """100,000 names, at once and by and by, until that is refused."""
    names = [f"name-{number}" for number in range(100_000)]
    for chunk in (len(names), 1_000):
        async with connected(port) as connection:
            await connection.read()
            stream = connection.open(b"")
            for start in range(0, len(names), chunk):
                await write(
                    connection, stream, request(ROUTES, resource_names_subscribe=names[start:][:chunk])
                )
            while not connection.ended:
                await connection.read()


async def write(connection: Connection, stream: int, data: bytes) -> None:
    """As the window allows, until the server ends the stream."""
    while data and not connection.ended:
        window = min(connection.h2.local_flow_control_window(stream), 16_384)
        if window > 0:
            connection.say(stream, data[:window])
            data = data[window:]
        else:
            await connection.read()


async def opens_streams(port: int) -> None:
    async with connected(port) as connection:
        for _ in range(500):
            connection.open(request())
            await connection.writer.drain()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    await connection.read()
        while True:
            await connection.read()


async def never_ends_its_requests(port: int) -> None:
    """Streams that announce 8 MB and send most of it."""
    async with connected(port) as connection:
        await connection.read()
        stream = connection.open(b"\0" + (8_000_000).to_bytes(4, "big"))
        left = 7_900_000
        while True:
            window = min(connection.h2.local_flow_control_window(stream), 16_384, left)
            if window > 0:
                connection.say(stream, bytes(window))
                left -= window
            else:
                await connection.read()


async def changes_its_names(port: int) -> None:
    """40,000 names, which it may ask for, given up and asked for again."""
    names = [f"name-{number}" for number in range(40_000)]
    async with connected(port) as connection:
        stream = connection.open(request(ROUTES))
        while not connection.ended:
            for field in ("resource_names_subscribe", "resource_names_unsubscribe"):
                await write(connection, stream, request(ROUTES, **{field: names}))


async def asks_for_status(port: int) -> None:
    async with connected(port) as connection:
        stream = connection.open(framed(b""), STATUS)
        while not connection.ended:
            await write(connection, stream, framed(b"") * 100)
            await connection.read()


async def pings(port: int) -> None:
    """Without reading what comes back."""
    async with connected(port) as connection:
        while True:
            for _ in range(1_000):
                connection.h2.ping(bytes(8))
            connection.flush()
            await connection.writer.drain()


async def opens_and_resets(port: int) -> None:
    async with connected(port) as connection:
        while True:
            for _ in range(50):
                connection.h2.reset_stream(connection.open(request()))
            connection.flush()
            await connection.writer.drain()
            await asyncio.sleep(0.001)


KINDS: dict[str, tuple[int, Callable[[int], Awaitable[None]]]] = {
    "never reads": (50, never_reads),
    "never answers": (50, never_answers),
    "refuses everything": (50, refuses_everything),
    "reconnects in a loop": (10, reconnects),
    "sends garbage": (10, sends_garbage),
    "asks for 100,000 names": (2, asks_for_names),
    "opens 2,000 streams": (4, opens_streams),
    "never ends its requests": (50, never_ends_its_requests),
    "changes 40,000 names": (4, changes_its_names),
    "asks for status": (20, asks_for_status),
    "pings": (4, pings),
    "opens and resets streams": (4, opens_and_resets),
}


async def main(kind: str) -> None:
    os.nice(19)  # it is the server's way with them that is to be seen, not the machine's
    count, behave = KINDS[kind]
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )

    async def keep_on(port: int) -> None:
        while True:
            with contextlib.suppress(OSError, ProtocolError):
                await behave(port)
            await asyncio.sleep(0.05)

    async def all_keep_on(port: int) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(count if port else 0):
                tasks.create_task(keep_on(port))

    attack = asyncio.create_task(all_keep_on(0))
    async for line in reader:
        attack.cancel()
        await asyncio.wait([attack])
        attack = asyncio.create_task(all_keep_on(int(line)))
        attack.add_done_callback(lambda done: done.cancelled() or done.result())
        print("turned", flush=True)


class Hostile:
    """The process as its starter sees it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def turn_to(self, port: int) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{port}\n".encode())
        assert await self._process.stdout.readline() == b"turned\n"


@asynccontextmanager
async def hostile_clients(kind: str) -> AsyncIterator[Hostile]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, kind),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
    )
    try:
        yield Hostile(process)
        assert process.returncode is None
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


ALONE, ELSEWHERE, HERE = "alone", "elsewhere", "here"  # whom the harm is done to


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """How long a change takes to a client that does no harm, in seconds, while others do theirs to nobody, to
    another server, and to this one. ``waits`` are from the change being given to the server until the client
    has it; ``work`` is the server's processor time meanwhile, until that is written."""

    waits: dict[str, list[float]]
    work: dict[str, list[float]]
    grown: float  # MiB of this server, at most


async def delays(
    kind: str, *, rounds: int, pushes: int, arms: Sequence[str] = (ALONE, ELSEWHERE, HERE)
) -> Delays:
    """Turn by turn, so that all have the same of whatever else the machine does."""
    found = Delays(waits={arm: [] for arm in arms}, work={arm: [] for arm in arms}, grown=0)
    seeds, random = itertools.count(1), Random(0)
    async with (
        xds_process(send_timeout=3.0) as here,
        xds_process(send_timeout=3.0) as elsewhere,
        hostile_clients(kind) as hostile,
        asyncio.timeout(rounds * len(arms) * (30 + pushes)),
    ):
        ports = {ALONE: 0, ELSEWHERE: elsewhere.port, HERE: here.port}
        for server in (here, elsewhere):
            await server.put((CLUSTER, "large", 100_000, 0), (ENDPOINTS, "probe", 500, 0))
        async with fake_client(here.port, ENDPOINTS) as got:
            before = here.memory()
            here.forget_peak()
            for arm in itertools.chain(*itertools.repeat(arms, rounds)):
                await hostile.turn_to(ports[arm])
                await asyncio.sleep(0.7)
                for seed in itertools.islice(seeds, pushes):
                    for server in (here, elsewhere):
                        await server.put((CLUSTER, "large", 100_000, seed))
                    await asyncio.sleep(random.uniform(0.02, 0.08))
                    got.clear()
                    started = time.perf_counter()
                    pushed = asyncio.create_task(here.put((ENDPOINTS, "probe", 500, seed), writes=1))
                    await got.wait()
                    found.waits[arm].append(time.perf_counter() - started)
                    found.work[arm].append((await pushed)["work"])
                await hostile.turn_to(0)
                for server in (here, elsewhere):
                    await eventually(server.clients, until=lambda count: count <= 1)
        return replace(found, grown=here.memory("VmHWM") - before)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
