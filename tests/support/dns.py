"""A DNS server on this machine: every name is 127.0.0.1, but for those that it is told not to know."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from tests.support.ports import free_port

QUESTION_AT = 12  # the end of the header
NO_SUCH_NAME = 3
FOR_A_MINUTE = struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 4) + bytes([127, 0, 0, 1])


class Names(asyncio.DatagramProtocol):
    """``asked`` counts the questions for addresses of IPv4 by name; *unknown* are names there are not."""

    def __init__(self, unknown: set[str]) -> None:
        self.port = free_port()
        self.asked: Counter[str] = Counter()
        self.unknown = unknown
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        labels, at = [], QUESTION_AT
        while size := data[at]:
            labels.append(data[at + 1 : at + 1 + size].decode())
            at += 1 + size
        name, [kind] = ".".join(labels), struct.unpack_from("!H", data, at + 1)
        question, found = data[QUESTION_AT : at + 5], kind == 1 and name not in self.unknown
        self.asked[name] += kind == 1
        flags = 0x8180 | (NO_SUCH_NAME if name in self.unknown else 0)
        head = data[:2] + struct.pack("!HHHHH", flags, 1, found, 0, 0)
        self._transport.sendto(head + question + (FOR_A_MINUTE if found else b""), address)


@contextlib.asynccontextmanager
async def answering(*, unknown: set[str] | None = None) -> AsyncIterator[Names]:
    """Answer on a port of 127.0.0.1."""
    names = Names(unknown or set())
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: names, local_addr=("127.0.0.1", names.port)
    )
    try:
        yield names
    finally:
        transport.close()
