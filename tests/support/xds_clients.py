"""Many xDS clients in one process, cheap enough to let the server be what is measured.

``python -m tests.support.xds_clients PORT COUNT TYPE`` opens COUNT connections with a delta ADS stream each,
subscribes to all of TYPE, acknowledges what comes, and says when each has had its first response.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvloop
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived
from h2.settings import SettingCodes

from tests.support.xds_process import REPOSITORY, ROLE

PATH = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
STREAM_WINDOW, CONNECTION_WINDOW = 16 * 2**20, 24 * 2**20  # Envoy's


class FakeClient(asyncio.Protocol):
    """One connection, one stream; answers every response with its nonce."""

    def __init__(self, type_url: str, node: str, first: asyncio.Event) -> None:
        self._type_url = type_url
        self._node = node
        self._first = first
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._buffer = bytearray()
        self.received = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._h2.initiate_connection()
        self._h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW})
        self._h2.increment_flow_control_window(CONNECTION_WINDOW - 65_535)
        headers = [(":method", "POST"), (":scheme", "http"), (":path", PATH), (":authority", "test")]
        self._h2.send_headers(1, [*headers, ("content-type", "application/grpc"), ("te", "trailers")])
        node = base_pb2.Node(id=self._node)
        node.metadata["role"] = ROLE
        names = ["*"]  # as not every type means all by naming none
        self._ask(
            discovery_pb2.DeltaDiscoveryRequest(
                type_url=self._type_url, node=node, resource_names_subscribe=names
            )
        )

    def data_received(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            if isinstance(event, DataReceived):
                self._h2.acknowledge_received_data(event.flow_controlled_length, 1)
                self._buffer += event.data
                self.received += len(event.data)
        while len(self._buffer) >= 5 and len(self._buffer) >= (size := _size(self._buffer)):
            nonce = _nonce(bytes(self._buffer[5:size]))
            del self._buffer[:size]
            self._ask(discovery_pb2.DeltaDiscoveryRequest(type_url=self._type_url, response_nonce=nonce))
            self._first.set()
        self._flush()

    def _ask(self, request: discovery_pb2.DeltaDiscoveryRequest) -> None:
        message = request.SerializeToString()
        self._h2.send_data(1, b"\0" + len(message).to_bytes(4, "big") + message)
        self._flush()

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self._transport.write(data)


def _size(buffer: bytearray) -> int:
    return 5 + int.from_bytes(buffer[1:5], "big")


def _nonce(message: bytes) -> str:
    """The nonce of a response, its field 5, without decoding the resources."""
    at = 0
    while at < len(message):
        field = message[at] >> 3
        size, shift, at = 0, 0, at + 1
        while message[at] & 0x80:
            size, shift, at = size | (message[at] & 0x7F) << shift, shift + 7, at + 1
        size, at = size | message[at] << shift, at + 1
        if field == 5:
            return message[at : at + size].decode()
        at += size
    raise AssertionError("a response without a nonce")


async def main(port: int, count: int, type_url: str) -> None:
    loop, firsts = asyncio.get_running_loop(), [asyncio.Event() for _ in range(count)]

    async def connect(number: int) -> None:
        make = lambda: FakeClient(type_url, f"fake-{number}", firsts[number])  # noqa: E731
        await loop.create_connection(make, "127.0.0.1", port)

    for start in range(0, count, 200):
        await asyncio.gather(*(connect(number) for number in range(start, min(start + 200, count))))
    await asyncio.gather(*(first.wait() for first in firsts))
    print("ready", flush=True)
    await asyncio.Event().wait()


@asynccontextmanager
async def fake_client(port: int, type_url: str) -> AsyncIterator[asyncio.Event]:
    """One client in this process; the event is set with each response it has."""
    got = asyncio.Event()
    make = lambda: FakeClient(type_url, "fake", got)  # noqa: E731
    transport, _ = await asyncio.get_running_loop().create_connection(make, "127.0.0.1", port)
    try:
        async with asyncio.timeout(60):
            await got.wait()
        yield got
    finally:
        transport.abort()


@asynccontextmanager
async def xds_clients(port: int, count: int, type_url: str) -> AsyncIterator[None]:
    """So many clients of the server at *port*, each with its first response."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, str(port), str(count), type_url),
        stdout=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
    )
    try:
        assert process.stdout
        async with asyncio.timeout(60):
            line = await process.stdout.readline()
        assert line == b"ready\n", line
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
