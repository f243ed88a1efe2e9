"""Every status that was ever seen in Consul, and those that nothing but a flaw explains."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import yaml

from shared.consul.blocking import watch_prefix
from shared.consul.client import Consul
from shared.consul.operations import Row
from shared.store.spec import fingerprint, observed, spec_of, status_in
from tests.support.consul import ConsulServer

GROUPS = ("gloo/gateway.solo.io/", "gloo/gloo.solo.io/")
ACCEPTED, REJECTED = "Accepted", "Rejected"


class Seen(NamedTuple):
    """A version of an object and what its status said then; *current* when it was about that version."""

    spec: str
    state: str
    reason: str
    current: bool


class Statuses:
    """What a watch of all objects has seen of each, in order."""

    def __init__(self) -> None:
        self.seen: dict[str, list[Seen]] = {}
        self.gone: set[str] = set()

    async def follow(self, consul: Consul, prefix: str) -> None:
        async for change in watch_prefix(consul.kv, prefix):
            self.gone |= change.gone
            for row in change.changed:
                self._take(row)

    def _take(self, row: Row) -> None:
        document = yaml.load(row.value, yaml.CSafeLoader)
        status = status_in(document, "gloo-system")
        spec = fingerprint(spec_of(document))
        state, reason = str(status.get("state") or ""), str(status.get("reason") or "")
        self.gone.discard(row.key)
        self.seen.setdefault(row.key, []).append(Seen(spec, state, reason, observed(status) == spec))

    def flaps(self) -> Iterator[str]:
        """Each time that the status of a version which had been judged came to be another, or none."""
        for key, seen in self.seen.items():
            judged: Seen | None = None
            for each in seen:
                if judged and each.spec == judged.spec and each[1:3] != judged[1:3]:
                    yield f"{key}: {judged.state} {judged.reason!r}, then {each.state} {each.reason!r}"
                judged = each if each.current else None

    def unsettled(self, *rejected: str) -> list[str]:
        """Objects whose newest version is not Accepted, or whose status is about another one; those whose
        keys end as *rejected* are to be Rejected."""

        def expected(key: str) -> str:
            return REJECTED if key.endswith(rejected) else ACCEPTED

        return [
            f"{key}: {last.state or 'nothing'} {last.reason}"
            for key, seen in self.seen.items()
            if key not in self.gone and not ((last := seen[-1]).current and last.state == expected(key))
        ]


@asynccontextmanager
async def watched_statuses(server: ConsulServer) -> AsyncIterator[Statuses]:
    """Watches from beginning to end, and then fails if any status flapped."""
    statuses = Statuses()
    async with Consul(server.config) as consul, asyncio.TaskGroup() as tasks:
        watching = [tasks.create_task(statuses.follow(consul, prefix)) for prefix in GROUPS]
        yield statuses
        for task in watching:
            task.cancel()
    assert list(statuses.flaps()) == []
