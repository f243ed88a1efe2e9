"""UDP for tests: a server that says who it is and what it heard, and a client that waits for an answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

Address = tuple[Any, ...]


class Echo(asyncio.DatagramProtocol):
    """Answers each datagram with *name* and what it was; ``clients`` are all who sent one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self.clients: set[Address] = set()
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.clients.add(addr)
        self._transport.sendto(f"{self.name} hears ".encode() + data, addr)


@contextlib.asynccontextmanager
async def echoing(name: str, port: int = 0) -> AsyncIterator[Echo]:
    loop = asyncio.get_running_loop()
    transport, echo = await loop.create_datagram_endpoint(lambda: Echo(name), local_addr=("127.0.0.1", port))
    try:
        yield echo
    finally:
        transport.close()


class Client(asyncio.DatagramProtocol):
    """A client with a port of its own."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self._transport: asyncio.DatagramTransport

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, port: int, host: str = "127.0.0.1") -> AsyncIterator[Client]:
        loop = asyncio.get_running_loop()
        transport, client = await loop.create_datagram_endpoint(cls, remote_addr=(host, port))
        try:
            yield client
        finally:
            transport.close()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.heard.put_nowait(data)

    def send(self, text: bytes) -> None:
        self._transport.sendto(text)

    async def ask(self, text: bytes, within: float = 10.0) -> bytes:
        """Send *text*; the answer to it, or TimeoutError."""
        self.send(text)
        async with asyncio.timeout(within):
            while not (answer := await self.heard.get()).endswith(text):
                pass  # to something said before
        return answer
