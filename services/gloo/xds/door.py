"""The way in: connections accepted at a pace, over TLS where it is wanted; who fails at that is told of.

asyncio's own servers take in all that wait at once, whoever is served meanwhile, and say nothing of a TLS
handshake that fails: to an operator, an Envoy whose certificate has expired would not be there.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from functools import partial
from ssl import SSLCertVerificationError, SSLContext, SSLError

from services.gloo.xds.line import Line, Peer

log = logging.getLogger(__name__)

BACKLOG = 1_024  # connections not accepted yet: all Envoys may come at once
EXHAUSTED_PAUSE = 1.0
HANDSHAKE_TIMEOUT = 10.0
MAX_HANDSHAKES = 500  # at a time; the one that takes longest makes room

Failed = Callable[[str, str], None]
"""Called with the host of who did not get in, and why."""

_ALERTS = ("ALERT_UNKNOWN_CA", "ALERT_BAD_CERTIFICATE", "ALERT_CERTIFICATE", "ALERT_UNSUPPORTED_CERTIFICATE")
_NOT_TLS = ("HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL")


class Door:
    """Listens, and hands connections to the protocols that *make* makes, each in its turn of *line*."""

    def __init__(self, make: Callable[[Peer], asyncio.BaseProtocol], failed: Failed, line: Line) -> None:
        self._make = make
        self._failed = failed
        self._line = line
        self._ssl: SSLContext | None = None
        self._entering: set[asyncio.Task[None]] = set()
        self._handshakes: dict[asyncio.Task[None], socket.socket] = {}  # the first has been at it the longest
        self.sockets: list[socket.socket] = []

    async def open(self, host: str, port: int, ssl: SSLContext | None) -> None:
        """Listen on every address of *host*; ``OSError`` when that cannot be."""
        self._ssl = ssl
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, *_, address in dict.fromkeys(found):
                listening = socket.create_server(address[:2], family=family, backlog=BACKLOG)
                listening.setblocking(False)
                self.sockets.append(listening)
        except OSError:
            self.close()
            raise
        for listening in self.sockets:
            self._watch(listening)

    def renew(self, ssl: SSLContext) -> None:
        """Meet new connections with *ssl*; those that stand, stand."""
        self._ssl = ssl

    def close(self) -> None:
        """Let nobody in any more; ``wait_closed`` until those on the threshold are gone."""
        for listening in self.sockets:
            asyncio.get_running_loop().remove_reader(listening)
            listening.close()
        self.sockets.clear()
        for task in self._handshakes:
            task.cancel()

    async def wait_closed(self) -> None:
        if self._entering:
            await asyncio.wait(self._entering)

    def _watch(self, listening: socket.socket) -> None:
        if listening in self.sockets:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        """Somebody is there."""
        asyncio.get_running_loop().remove_reader(listening)
        peer = Peer()
        self._line.add(peer, partial(self._take_in, listening, peer))

    def _take_in(self, listening: socket.socket, peer: Peer) -> None:
        loop = asyncio.get_running_loop()
        if listening not in self.sockets:
            return
        try:
            connection, address = listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            self._watch(listening)
            return
        except OSError as error:  # no file descriptors, no memory
            log.error("no connection can be accepted", extra={"error": str(error)})
            loop.call_later(EXHAUSTED_PAUSE, self._watch, listening)
            return
        self._watch(listening)
        connection.setblocking(False)
        make = partial(self._make, peer)
        if self._ssl is None:
            task = loop.create_task(self._let_in(connection, make))
        else:
            if len(self._handshakes) >= MAX_HANDSHAKES:
                next(iter(self._handshakes)).cancel()
            task = loop.create_task(self._shake_hands(connection, str(address[0]), make, self._ssl))
            self._handshakes[task] = connection
        self._entering.add(task)
        task.add_done_callback(self._entered)

    async def _let_in(self, connection: socket.socket, make: Callable[[], asyncio.BaseProtocol]) -> None:
        """Never cancelled: uvloop would close a connection that its protocol has, and not tell it."""
        try:
            await asyncio.get_running_loop().connect_accepted_socket(make, connection)
        except OSError:
            connection.close()

    async def _shake_hands(
        self, connection: socket.socket, host: str, make: Callable[[], asyncio.BaseProtocol], ssl: SSLContext
    ) -> None:
        try:
            if await _speaks(connection):
                await asyncio.get_running_loop().connect_accepted_socket(
                    make, connection, ssl=ssl, ssl_handshake_timeout=HANDSHAKE_TIMEOUT
                )
            else:  # it only looked whether somebody listens
                connection.close()
        except OSError as error:
            connection.close()
            self._failed(host, reason(error))

    def _entered(self, task: asyncio.Task[None]) -> None:
        self._entering.discard(task)
        connection = self._handshakes.pop(task, None)
        if connection is not None and task.cancelled():
            connection.close()


async def _speaks(connection: socket.socket) -> bool:
    """Whether anything comes before the end."""
    loop, news = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(connection, news.set)
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT):
            await news.wait()
    finally:
        loop.remove_reader(connection)
    return bool(connection.recv(1, socket.MSG_PEEK))


def reason(error: OSError) -> str:
    """Why a handshake failed, in words for an operator."""
    if isinstance(error, SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "it says nothing"
    if not isinstance(error, SSLError):
        return "the connection ended before the TLS handshake did"
    code = error.reason or "unknown"
    words = code.lower().replace("_", " ")
    if code == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "it shows no certificate"
    if code.endswith(_NOT_TLS):
        return "it does not speak TLS"
    if any(alert in code for alert in _ALERTS):
        return f"it does not accept our certificate: {words.partition('alert ')[2]}"
    return words
