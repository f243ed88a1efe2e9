"""Traffic that must not notice: requests one after another, on a connection that is kept and on new ones."""

from __future__ import annotations

import asyncio
import http.client
import ssl
import threading
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.support.https import Https
from tests.support.waiting import eventually

MORE = 20  # requests that have to follow before the end is believed


@dataclass(slots=True)
class Traffic:
    """How often a request was answered as it should be, and every time it was not."""

    answered: int = 0
    failures: list[str] = field(default_factory=list)

    async def flows(self) -> None:
        """Wait until as many requests as prove something were answered since now."""
        count = self.answered
        await eventually(lambda: self.answered >= count + MORE or bool(self.failures))


@asynccontextmanager
async def undisturbed(
    port: int,
    host: str,
    path: str = "/",
    *,
    saying: Collection[str] = ("",),
    pause: float = 0.01,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Traffic]:
    """Ask *path* of *host* all the while: every answer is a 200 with one of the texts of *saying* in it.

    One connection is kept from beginning to end; whoever closes it, or asks us to, is a failure too. With
    *tls* all are HTTPS.
    """
    traffic, done = Traffic(), threading.Event()

    def connect() -> http.client.HTTPConnection:
        return Https(port, host, tls) if tls else http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def ask(connection: http.client.HTTPConnection, kept: bool) -> None:
        try:
            connection.request("GET", path, headers={"Host": host})
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            traffic.failures.append(f"{time.strftime('%X')} {'kept' if kept else 'new'}: {error!r}")
            return
        if answer.status != 200 or not any(word in text for word in saying):
            traffic.failures.append(f"{time.strftime('%X')} {answer.status} {text[:200]}")
        elif kept and connection.sock is None:
            traffic.failures.append(f"{time.strftime('%X')} Envoy asked to close the connection")
        else:
            traffic.answered += 1

    def run() -> None:
        kept = connect()
        while not done.wait(pause):
            ask(kept, kept=True)
            new = connect()
            ask(new, kept=False)
            new.close()
        kept.close()

    running = asyncio.create_task(asyncio.to_thread(run))
    try:
        await traffic.flows()
        yield traffic
        await traffic.flows()
    finally:
        done.set()
        await running
    asked = traffic.answered + len(traffic.failures)
    assert not traffic.failures, f"{len(traffic.failures)} of {asked}: {traffic.failures[:3]}"
