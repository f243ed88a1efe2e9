"""Host names that stand as addresses in Consul: looked up, and looked up again while they are needed."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Set

log = logging.getLogger(__name__)

LOOKUPS = 4
"""Look-ups at a time; each holds a thread until the system's resolver answers or gives up."""


class Resolver:
    """Tells *publish* the addresses of each wanted host: all of its A and AAAA records, when they change.

    A look-up that fails leaves the last good answer standing; ``failures`` says why.
    """

    def __init__(self, publish: Callable[[str, tuple[str, ...]], None], *, interval: float = 5.0) -> None:
        self.failures: dict[str, str] = {}
        self.answers: dict[str, tuple[str, ...]] = {}
        self._publish = publish
        self._interval = interval
        self._wanted: Set[str] = frozenset()
        self._changed = asyncio.Event()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._limit = asyncio.Semaphore(LOOKUPS)

    def want(self, hosts: Set[str]) -> None:
        """From now on these hosts are needed, and no others."""
        if hosts == self._wanted:
            return
        self._wanted = hosts
        for unneeded in (self.answers.keys() | self.failures.keys()) - hosts:
            self.answers.pop(unneeded, None)
            self.failures.pop(unneeded, None)
        self._changed.set()

    @property
    def settled(self) -> bool:
        """Whether each wanted host was looked up, with or without success."""
        return self._wanted <= self.answers.keys() | self.failures.keys()

    async def run(self) -> None:
        """Follow the wanted hosts for ever."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._changed.clear()
                for host in self._running.keys() - self._wanted:
                    self._running.pop(host).cancel()
                for host in sorted(self._wanted - self._running.keys()):
                    self._running[host] = tasks.create_task(self._follow(host), name=f"resolve {host}")
                await self._changed.wait()

    async def _follow(self, host: str) -> None:
        while True:
            async with self._limit:
                await self._look_up(host)
            await asyncio.sleep(self._interval)

    async def _look_up(self, host: str) -> None:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # UnicodeError: not a name at all, as "a..b" is not
            if host not in self.failures:
                log.warning(
                    "a host name in Consul does not resolve", extra={"host": host, "error": str(error)}
                )
            self.failures[host] = str(error)
            return
        self.failures.pop(host, None)
        addresses = tuple(sorted({str(address[0]) for *_, address in found}))
        if host in self._wanted and self.answers.get(host) != addresses:
            self.answers[host] = addresses
            self._publish(host, addresses)
