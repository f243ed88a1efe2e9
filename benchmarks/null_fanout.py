"""The null fan-out server: grpclib, one pre-encoded delta response to every stream, acknowledgements counted.

It keeps no state of its clients and no order of types, so it is the floor for what serving them costs.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import uvloop
from envoy.service.discovery.v3 import discovery_pb2
from grpclib.const import Cardinality, Handler
from grpclib.encoding.base import CodecBase
from grpclib.server import Server, Stream

from tests.support.xds_process import Acks, commands, say, text_of


class Bytes(CodecBase):
    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> bytes:
        return data


class NullFanout:
    def __init__(self, acks: Acks) -> None:
        self.acks = acks
        self.streams: set[asyncio.Queue[bytes]] = set()
        self.response = b""

    async def delta(self, stream: Stream[bytes, bytes]) -> None:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.streams.add(queue)

        async def write() -> None:
            while True:
                await stream.send_message(await queue.get())

        writer = asyncio.create_task(write())
        try:
            while data := await stream.recv_message():
                if discovery_pb2.DeltaDiscoveryRequest.FromString(data).response_nonce:
                    self.acks.take("acked", "", 0)
                else:
                    queue.put_nowait(self.response)
        finally:
            self.streams.discard(queue)
            writer.cancel()

    def put(self, type_url: str, name: str, size: int, seed: int) -> None:
        answer = discovery_pb2.DeltaDiscoveryResponse(type_url=type_url, nonce=str(seed))
        entry = answer.resources.add(name=name, version=str(seed))
        entry.resource.type_url, entry.resource.value = type_url, text_of(size, seed)
        self.response = answer.SerializeToString()

    def push(self) -> None:
        for queue in self.streams:
            queue.put_nowait(self.response)

    def __mapping__(self) -> dict[str, Handler]:
        path = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
        return {path: Handler(self.delta, Cardinality.STREAM_STREAM, bytes, bytes)}


async def main() -> None:
    acks = Acks()
    null = NullFanout(acks)
    server = Server([null], codec=Bytes())
    await server.start("127.0.0.1", 0, backlog=1024)
    [listening] = server._server.sockets  # type: ignore[union-attr]
    say(port=listening.getsockname()[1])
    async for command in commands():
        for put in command.get("put", ()):
            null.put(*put)
        acks.expect(command.get("acks", 0))
        started, processor = time.perf_counter(), time.process_time()
        null.push()
        if command.get("acks"):
            await acks.enough.wait()
        say(
            seconds=time.perf_counter() - started,
            processor=time.process_time() - processor,
            clients=len(null.streams),
        )


if __name__ == "__main__":
    uvloop.run(main())
