"""The line: who makes little work goes first, and all together leave time to others."""

from __future__ import annotations

import time
from collections.abc import Generator
from functools import partial

from services.gloo.xds.line import OWN_LEAD, OWN_SHARE, REST_AMID_CHANGES, Line, Peer


def work(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


async def test_a_line_begins_at_once_and_goes_on_in_order() -> None:
    line, peer, done = Line(), Peer(), list[int]()
    for number in range(3):
        line.add(peer, partial(done.append, number))
    assert done == [0]

    await line.turn(peer)

    assert done == [0, 1, 2]


async def test_who_made_less_work_goes_first() -> None:
    line, done = Line(), list[str]()
    peers = {name: Peer() for name in ("busy", "less busy", "new")}
    line.add(Peer(), partial(work, 0.002))  # a rest follows, in which all the others come
    for name, seconds in (("busy", 0.1), ("less busy", 0.05)):
        peers[name].charge(seconds, time.monotonic())
    for name, peer in peers.items():
        for _ in range(2):
            line.add(peer, partial(done.append, name))

    await line.turn(peers["busy"])

    assert done == ["new", "new", "less busy", "less busy", "busy", "busy"]


async def test_work_amid_changes_is_followed_by_a_long_rest() -> None:
    line, peer = Line(), Peer()
    peer.charge(0.1, time.monotonic())
    line.changed()
    started = time.monotonic()
    line.add(peer, partial(work, 0.005))
    await line.turn(peer)

    assert time.monotonic() - started > 0.005 * REST_AMID_CHANGES


async def test_a_connection_that_made_very_much_work_waits_and_the_others_do_not() -> None:
    line, heavy, light, done = Line(), Peer(), Peer(), list[str]()
    heavy.charge(OWN_LEAD + 0.2 * OWN_SHARE, started := time.monotonic())
    line.add(heavy, partial(done.append, "heavy"))
    line.add(light, partial(done.append, "light"))
    assert done == ["light"]

    await line.turn(heavy)

    assert done == ["light", "heavy"]
    assert time.monotonic() - started > 0.19


async def test_little_goes_in_passing_until_it_is_much() -> None:
    line, peer = Line(), Peer()
    assert line.passing(peer)

    line.passed(peer, 0.05)
    assert not line.passing(peer)
    assert line.passing(Peer())

    for _ in range(10):
        line.passed(Peer(), 0.05)
    assert not line.passing(Peer())


async def test_steps_are_taken_one_in_a_turn() -> None:
    line, taken = Line(), list[int]()

    def steps() -> Generator[None, None, str]:
        for number in range(3):
            taken.append(number)
            yield
        return "done"

    assert await line.between(Peer(), steps()) == "done"
    assert taken == [0, 1, 2]
