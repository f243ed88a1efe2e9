"""Membership: the processes of one kind know each other, and agree on who does what.

Each holds a key under a common prefix with a session that deletes it, so a key lives as long as its process.
Work is shared by rendezvous hashing: an item belongs to the member whose name hashes highest with it, so one
that comes or goes moves only its own share.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from hashlib import blake2b

from shared.consul.blocking import DEFAULTS, WatchOptions, WatchState, watch_prefix
from shared.consul.client import Consul
from shared.consul.session import DEFAULT_TTL, Session, SessionLost
from shared.errors import ConsulError
from shared.runtime.latest import Latest

log = logging.getLogger(__name__)

AGAIN = 1.0
SETTLE = 1.0
LEAVE_WITHIN = 3.0


class Members:
    """The members under *prefix* (it ends with ``/``), of which we are *name* while ``run`` runs.

    *value* is what our key says of us, to people and their tools; members do not read it of each other.

    A share that moves to another is kept for *settle* seconds more: doing a thing twice is harmless, since
    writes are check-and-set, while leaving it undone is not.
    """

    def __init__(
        self,
        consul: Consul,
        prefix: str,
        name: str,
        *,
        value: bytes = b"",
        ttl: float = DEFAULT_TTL,
        settle: float = SETTLE,
        options: WatchOptions = DEFAULTS,
    ) -> None:
        self.prefix = prefix
        self.name = name
        self.state = WatchState(prefix)
        self._consul = consul
        self._value = value
        self._options = options
        self._settle = settle
        self._session = Session(consul, purpose=prefix, name=name, ttl=ttl, behavior="delete")
        self._holders: Latest[Mapping[str, str] | None] = Latest(None)
        self._current: frozenset[str] = frozenset()
        self._former: list[tuple[frozenset[str], float]] = []
        self._news = Latest(0)

    @property
    def current(self) -> frozenset[str]:
        """The names of all members; empty until the first listing."""
        return self._current

    def owns(self, item: str) -> bool:
        """Whether *item* is ours to look after."""
        now = time.monotonic()
        return owner(self._current, item) == self.name or any(
            owner(members, item) == self.name for members, until in self._former if until > now
        )

    async def wait_changed(self) -> None:
        """Return when ``owns`` may answer otherwise: a member came or went, or a share has settled."""
        await self._news.next(self._news.value)

    async def run(self) -> None:
        """Be a member; ends only by cancellation, and leaves then."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._observe())
                tasks.create_task(self._belong())
                tasks.create_task(self._settle_shares())
        finally:
            await self._leave()

    async def _observe(self) -> None:
        holders: dict[str, str] = {}
        async for change in watch_prefix(
            self._consul.kv, self.prefix, options=self._options, state=self.state
        ):
            for key in change.gone:
                holders.pop(key.removeprefix(self.prefix), None)
            for row in change.changed:
                holders[row.key.removeprefix(self.prefix)] = row.session
            self._holders.set(dict(holders))
            self._take(frozenset(name for name, session in holders.items() if session))

    def _take(self, members: frozenset[str]) -> None:
        if members == self._current:
            return
        now = time.monotonic()
        self._former = [(former, until) for former, until in self._former if until > now]
        self._former.append((self._current, now + self._settle))
        self._current = members
        self._news.set(self._news.value + 1)
        log.info("members changed", extra={"prefix": self.prefix, "members": sorted(members)})

    async def _settle_shares(self) -> None:
        async for _ in self._news.values():
            while self._former:
                await asyncio.sleep(max(0.0, self._former[-1][1] - time.monotonic()))
                now = time.monotonic()
                if self._former[-1][1] <= now:
                    self._former.clear()
                    self._news.set(self._news.value + 1)

    async def _belong(self) -> None:
        while True:
            holders = self._holders.value
            try:
                pause = await self._act(holders)
            except SessionLost as lost:
                log.warning("membership lost", extra={"prefix": self.prefix, "error": str(lost)})
                pause = 0.0
            except ConsulError as error:
                log.info("membership stalls", extra={"prefix": self.prefix, "error": str(error)})
                pause = AGAIN
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._holders.next(holders)

    async def _act(self, holders: Mapping[str, str] | None) -> float | None:
        """Join, or prove that we are still here; how long to wait if nothing changes."""
        if holders is None:
            return None
        session = self._session.id
        if session and holders.get(self.name) == session:
            await self._session.beat()
            return self._session.interval
        session = await self._session.open()
        await self._consul.kv.acquire(f"{self.prefix}{self.name}", self._value, session)
        await self._session.beat()
        return min(AGAIN, self._session.interval)

    async def _leave(self) -> None:
        with contextlib.suppress(ConsulError, TimeoutError):
            async with asyncio.timeout(LEAVE_WITHIN):
                await self._session.close()


def owner(members: frozenset[str], item: str) -> str:
    """The member that *item* belongs to; empty when there are none."""
    return max(members, key=lambda member: (_weight(member, item), member), default="")


def _weight(member: str, item: str) -> bytes:
    return blake2b(f"{member}|{item}".encode(), digest_size=8).digest()
