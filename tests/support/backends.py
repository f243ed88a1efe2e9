"""Services to route to, in the test's own process: each answers with its name and what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.support.ports import free_port
from tests.support.stack import Answer


@dataclass(frozen=True, slots=True)
class Echo:
    """What a backend saw, as it told in its answer."""

    backend: str
    method: str
    path: str
    host: str
    headers: Mapping[str, str]

    @classmethod
    def of(cls, answer: Answer) -> Echo:
        assert answer.status == 200, answer
        return cls(**json.loads(answer.text))


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; *echo* is what the backend saw of the request."""

    status: int
    headers: Any
    text: str

    @property
    def echo(self) -> Any:
        assert self.status == 200, self
        return json.loads(self.text)


class Backend:
    """One service on this machine; *host* ``localhost`` listens on every address of that name, *tls* is asked
    for HTTPS.

    ``delay`` seconds pass before it answers; the next ``failures`` requests are answered with 503;
    ``asked`` counts all requests, ``last`` is what it told of the last one.
    """

    def __init__(
        self, name: str, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.name = name
        self.tls = tls
        self.host = host
        self.port = port or free_port()
        self.asked = 0
        self.last: Mapping[str, Any] = {}
        self.delay = 0.0
        self.failures = 0
        self._running = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.5)
        await runner.setup()
        self._running.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, self.host, self.port, reuse_address=True, ssl_context=self.tls).start()

    async def stop(self) -> None:
        await self._running.aclose()

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.failures:
            self.failures -= 1
            return web.Response(status=503, text=f"{self.name} fails")
        seen: dict[str, Any] = {
            "backend": self.name,
            "method": request.method,
            "path": request.path_qs,
            "host": request.host,
            "headers": {name.lower(): value for name, value in request.headers.items()},
        }
        self.last = seen
        return web.json_response(seen, headers={"x-backend": self.name})


@contextlib.asynccontextmanager
async def repeating() -> AsyncIterator[int]:
    """A server that agrees to become a WebSocket, and says again whatever else it hears; its port."""
    agreed = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while said := await reader.read(4096):
                writer.write(agreed if b"upgrade: websocket" in said else said)
        writer.close()

    port = free_port()
    async with await asyncio.start_server(answer, "127.0.0.1", port):
        yield port
