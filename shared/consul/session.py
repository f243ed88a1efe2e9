"""A Consul session that ends within seconds of our process, by heartbeats to the local agent.

A session's own time to live is at least 10 s and is honoured only after twice that. So the session hangs on
a check of a few seconds instead, which the local agent turns critical on time. The check belongs to a
service of ours (``OWN_SERVICE``): were it the node's, a crash of ours would take every service of the machine
out of rotation. Where the agent will not have us (ACLs, no agent behind the address) we fall back to the
session's own time to live.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from typing import Literal

from shared.consul.catalog import OWN_SERVICE
from shared.consul.client import Consul
from shared.errors import ConsulDenied, ConsulError, ConsulRefused, ConsulUnavailable

log = logging.getLogger(__name__)

DEFAULT_TTL = 3.0
LEAST_OWN_TTL = 10
REAP_AFTER = "1m"  # the shortest that Consul takes
SYNC_WITHIN = 3.0


class SessionLost(ConsulError):
    """Consul no longer knows the session."""


class Session:
    """One session of this process: ``open`` it, ``beat`` every ``interval`` seconds, ``close`` it in the end.

    *purpose* and *name* together are unique in the cluster. ``id`` is empty while there is no session.
    """

    def __init__(
        self,
        consul: Consul,
        *,
        purpose: str,
        name: str,
        ttl: float = DEFAULT_TTL,
        behavior: Literal["release", "delete"] = "release",
    ) -> None:
        self.id = ""
        self.name = name
        self._consul = consul
        self._purpose = purpose
        self._check = re.sub(r"[^\w.-]+", "-", f"{OWN_SERVICE}-{purpose}-{name}")
        self._check_ttl = ttl
        self._behavior = behavior
        self._by_agent = True
        self._proven = False
        self._beaten = 0.0

    @property
    def ttl(self) -> float:
        return self._check_ttl if self._by_agent else LEAST_OWN_TTL

    @property
    def interval(self) -> float:
        """The pause between two heartbeats: two may get lost."""
        return self.ttl / 3

    @property
    def alive(self) -> bool:
        """Whether the session was proved within its time to live; later others may have taken over."""
        return bool(self.id) and time.monotonic() - self._beaten < self.ttl

    async def open(self) -> str:
        """The session's id, of a new one if there is none or Consul has ended it."""
        if self.id and await self._known():
            return self.id
        began = time.monotonic()
        session = await self._open_by_agent() if self._by_agent else ""
        if not session:
            began = time.monotonic()
            session = await self._create(ttl=LEAST_OWN_TTL)
        self.id, self._beaten, self._proven = session, began, False
        return session

    async def beat(self) -> None:
        """Prove that we live; ``SessionLost`` when that came too late."""
        began = time.monotonic()
        late = not self.alive
        try:
            async with asyncio.timeout(self.ttl):
                if not self._by_agent:
                    await self._consul.session.renew(self.id)
                elif not await self._consul.agent.check.ttl_pass(self._check):
                    raise ConsulRefused("session heartbeat", "there is no such check", status=404)
                # The check may have been critical meanwhile: then it passes again, but the session is gone.
                if late and not await self._known():
                    raise self._lost("it ended while we were late")
        except TimeoutError as error:
            raise ConsulUnavailable("session heartbeat", f"no answer within {self.ttl:.0f} s") from error
        except (ConsulUnavailable, ConsulRefused) as error:
            if not _forgotten(error):
                raise
            if self._by_agent and not self._proven:
                self._fall_back(error)
            raise self._lost("Consul has forgotten it") from error
        self._beaten, self._proven = began, True

    async def close(self) -> None:
        """End the session and take our service out of the registry."""
        session, self.id = self.id, ""
        if session:
            await self._consul.session.destroy(session)
            if self._by_agent:
                await self._consul.agent.service.deregister(self._check)

    async def _known(self) -> bool:
        return bool(await self._consul.get_json(f"/v1/session/info/{self.id}", consistency="consistent"))

    async def _open_by_agent(self) -> str:
        """A session on a check of ours; empty when the agent will not have it."""
        check = {
            "CheckID": self._check,
            "Name": f"{self._purpose} {self.name}",
            "TTL": f"{self._check_ttl:g}s",
            "Status": "passing",
            "DeregisterCriticalServiceAfter": REAP_AFTER,
        }
        try:
            if not await self._consul.agent.service.register(
                OWN_SERVICE, service_id=self._check, check=check
            ):
                raise ConsulRefused("agent service register", "there is no agent here", status=404)
            # A check that the agent knew before kept its state, and may be critical.
            await self._consul.agent.check.ttl_pass(self._check)
        except (ConsulDenied, ConsulRefused) as error:
            self._fall_back(error)
            return ""
        deadline = time.monotonic() + SYNC_WITHIN
        while True:
            try:
                return await self._create(checks=["serfHealth", self._check])
            except ConsulUnavailable as error:
                # The agent tells the servers about the check in its own time.
                if "Missing check" not in error.problem and "critical state" not in error.problem:
                    raise
                if time.monotonic() > deadline:
                    self._fall_back(error)
                    return ""
                await asyncio.sleep(0.05)

    async def _create(self, *, checks: list[str] | None = None, ttl: int | None = None) -> str:
        return str(
            await self._consul.session.create(
                name=f"{self._purpose} {self.name}",
                checks=checks,
                ttl=ttl,
                lock_delay=0,  # writes are fenced, see kv.CheckSession
                behavior=self._behavior,
            )
        )

    def _fall_back(self, error: ConsulError) -> None:
        self._by_agent = False
        log.warning(
            "the Consul agent takes no check of ours: a crash of ours is noticed after 10 to 20 s",
            extra={"purpose": self._purpose, "error": str(error)},
        )

    def _lost(self, problem: str) -> SessionLost:
        self.id = ""
        return SessionLost(f"session {self._purpose}", problem)


def _forgotten(error: ConsulError) -> bool:
    return (
        error.status == 404
        or "does not have associated TTL" in error.problem
        or "Unknown check" in error.problem
    )
