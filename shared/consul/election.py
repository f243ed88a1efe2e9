"""Leadership: one process at a time holds a key with its session, and its writes prove it.

Who leads is what the key says. A holder that stops beating loses it within the session's time to live; one
that stops in order gives it up at once. A former leader that has not noticed yet does no harm, because its
writes begin with ``fence``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass

from shared.consul.blocking import DEFAULTS, WatchOptions, WatchState, watch_query
from shared.consul.client import Consul
from shared.consul.operations import CheckSession, Row
from shared.consul.session import DEFAULT_TTL, Session, SessionLost
from shared.errors import ConsulError
from shared.runtime.latest import Latest

log = logging.getLogger(__name__)

AGAIN = 1.0
RESIGN_WITHIN = 3.0


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the key; an empty *session* is nobody."""

    session: str = ""
    name: str = ""


class Election:
    """A candidate for the leadership that *key* stands for; *name* tells candidates apart.

    ``run`` stands for election until it is cancelled, and then resigns.
    """

    def __init__(
        self,
        consul: Consul,
        key: str,
        name: str,
        *,
        ttl: float = DEFAULT_TTL,
        options: WatchOptions = DEFAULTS,
    ) -> None:
        self.key = key
        self.name = name
        self.state = WatchState(key)
        self._consul = consul
        self._options = options
        self._session = Session(consul, purpose=key, name=name, ttl=ttl)
        self._holder: Latest[Holder | None] = Latest(None)
        self._leading = Latest(False)

    @property
    def leader(self) -> bool:
        """Whether we lead, as far as we can know: a leader that cannot reach Consul stops being one."""
        return self._leading.value and self._session.alive

    @property
    def holder(self) -> str:
        """The leader's name; empty when there is none."""
        return self._holder.value.name if self._holder.value else ""

    @property
    def fence(self) -> CheckSession | None:
        """The first operation of a leader's transactions; None when we do not lead."""
        return CheckSession(self.key, self._session.id) if self.leader else None

    async def wait_changed(self) -> bool:
        """Whether we lead, as soon as that is not what it was when we were asked."""
        return await self._leading.next(self._leading.value)

    async def run(self) -> None:
        """Stand for election; ends only by cancellation, and resigns then."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._observe())
                tasks.create_task(self._stand())
        finally:
            await self._resign()

    async def _observe(self) -> None:
        path = f"/v1/kv/{self.key}"
        async for _, body in watch_query(self._consul, path, options=self._options, state=self.state):
            row = Row.of(body[0]) if body else None
            held = row is not None and row.session
            self._holder.set(
                Holder(row.session, row.value.decode("utf-8", "replace")) if row and held else Holder()
            )

    async def _stand(self) -> None:
        while True:
            holder = self._holder.value
            self._note(holder)
            try:
                pause = await self._act(holder)
            except SessionLost as lost:
                log.warning("leadership lost", extra={"key": self.key, "error": str(lost)})
                pause = None  # the key tells when it is free
            except ConsulError as error:
                log.info("election stalls", extra={"key": self.key, "error": str(error)})
                pause = AGAIN
            self._note(self._holder.value)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._holder.next(holder)

    async def _act(self, holder: Holder | None) -> float | None:
        """Do what *holder* asks of us; how long to wait if nothing changes, None for ever."""
        if holder is None:
            return None
        if not holder.session:
            session = await self._session.open()
            if await self._consul.kv.acquire(self.key, self.name.encode(), session):
                self._holder.set(Holder(session, self.name))
            await self._session.beat()
            return min(AGAIN, self._session.interval)
        if holder.session == self._session.id:
            await self._session.beat()
            return self._session.interval
        await self._session.close()
        return None

    def _note(self, holder: Holder | None) -> None:
        leads = holder is not None and holder.session == self._session.id and self._session.alive
        if self._leading.set(leads):
            log.info(
                "we lead" if leads else "we do not lead", extra={"key": self.key, "candidate": self.name}
            )

    async def _resign(self) -> None:
        session, leads = self._session.id, self._leading.value
        self._leading.set(False)
        if not session:
            return
        with contextlib.suppress(ConsulError, TimeoutError):
            async with asyncio.timeout(RESIGN_WITHIN):
                if leads:
                    await self._consul.kv.release(self.key, session)
                await self._session.close()
