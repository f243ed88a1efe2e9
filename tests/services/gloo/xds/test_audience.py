"""Who hears of a change first."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from services.gloo.resources import Snapshot
from services.gloo.xds.audience import FEW, Audience, Audiences
from services.gloo.xds.cache import Cache
from services.gloo.xds.line import Line, Peer
from tests.support.waiting import eventually


@dataclass(eq=False)
class Ear:
    """A stream that notes when it was its turn."""

    name: str
    heard: list[tuple[str, int, bool]]

    def look(self, changes: int, *, first: bool) -> bool:
        self.heard.append((self.name, changes, first))
        return "late" in self.name


async def all_heard(audience: Audience) -> None:
    await eventually(lambda: not audience.turning)


async def test_the_one_stream_of_a_connection_comes_before_the_second_of_another() -> None:
    audience, heard, many = Audience(), list[tuple[str, int, bool]](), Peer()
    for number in range(FEW + 100):
        audience.join(many, Ear(f"{number} of many", heard))
    audience.join(Peer(), Ear("the only one", heard))

    audience.changed()
    at_once = len(heard)
    await all_heard(audience)

    assert heard[:2] == [("0 of many", 1, True), ("the only one", 1, True)]
    assert at_once == 1
    assert len(heard) == FEW + 101
    assert [first for _, _, first in heard].count(False) == 100


async def test_connections_that_make_little_work_come_first() -> None:
    audience, heard, busy = Audience(), list[tuple[str, int, bool]](), Peer()
    busy.charge(1, time.monotonic())
    audience.join(busy, Ear("busy", heard))
    audience.join(Peer(), Ear("quiet", heard))

    audience.changed()
    await all_heard(audience)

    assert [name for name, *_ in heard] == ["quiet", "busy"]


async def test_who_was_late_comes_last() -> None:
    audience, heard = Audience(), list[tuple[str, int, bool]]()
    for name in ("late", "prompt"):
        audience.join(Peer(), Ear(name, heard))

    for _ in range(2):
        audience.changed()
        await all_heard(audience)

    assert [name for name, *_ in heard] == ["late", "prompt", "prompt", "late"]


async def test_who_comes_late_is_told_of_all_changes_at_once() -> None:
    audience, heard, peer = Audience(), list[tuple[str, int, bool]](), Peer()
    for number in range(20):
        audience.join(peer, Ear(str(number), heard))

    for _ in range(3):
        audience.changed()
    await all_heard(audience)

    assert [changes for name, changes, _ in heard if name == "19"] == [3]
    assert sum(changes for name, changes, _ in heard if name == "0") == 3


async def test_who_leaves_meanwhile_hears_nothing() -> None:
    cache, heard, peer = Cache(), list[tuple[str, int, bool]](), Peer()
    audiences = Audiences(cache, Line())
    leaves = [audiences.join("role", peer, Ear(str(number), heard)) for number in range(20)]

    cache.set("role", Snapshot())
    at_once = len(heard)
    for leave in leaves:
        leave()
    await asyncio.sleep(0)
    cache.set("role", Snapshot())
    await asyncio.sleep(0)

    assert len(heard) == at_once
