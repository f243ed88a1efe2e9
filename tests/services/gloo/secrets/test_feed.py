"""Following secrets in several places, with answers that come late, change or fail to come."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest

from services.gloo.secrets.feed import NO_PLACE, SecretFeed
from services.gloo.secrets.source import Answer, SecretSource, Unavailable
from shared.ref import Ref
from tests.support.waiting import eventually

A, B = Ref("ns", "a"), Ref("ns", "b")
ABSENT = Answer(problem="not there", absent=True)


class Scripted:
    """A place that has what it is given; ``asked`` is what it was asked for, and with which version."""

    def __init__(self, name: str = "vault", period: float = 0.02) -> None:
        self.name, self.period = name, period
        self.has: dict[Ref, Answer] = {}
        self.trouble = ""
        self.asked: list[tuple[Ref, str]] = []
        self.closed = False

    async def begin(self) -> None:
        if self.trouble:
            raise Unavailable(self.trouble)

    async def read(self, ref: Ref, version: str) -> Answer | None:
        self.asked.append((ref, version))
        found = self.has.get(ref, ABSENT)
        return None if version and found.version == version else found

    async def close(self) -> None:
        self.closed = True


class Told(dict[Ref, Answer]):
    def take(self, answers: Mapping[Ref, Answer]) -> None:
        self.update(answers)


@asynccontextmanager
async def following(
    sources: Sequence[SecretSource], told: Told, **more: frozenset[str]
) -> AsyncIterator[SecretFeed]:
    feed = SecretFeed(sources, told.take, **more)
    running = asyncio.create_task(feed.run())
    try:
        yield feed
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def text(version: str) -> Answer:
    return Answer(problem=f"content {version}", version=version)


async def test_what_is_wanted_is_read_followed_and_left_alone() -> None:
    place, told = Scripted(), Told()
    place.has = {A: text("v1")}
    async with following([place], told) as feed:
        assert feed.unread == frozenset()
        feed.want(frozenset({A}))
        assert feed.unread == {A}
        await feed.settled(5)
        assert told == {A: text("v1")}
        assert place.asked[0] == (A, "")

        place.has[A] = text("v2")
        await eventually(lambda: told[A] == text("v2"))
        assert (A, "v1") in place.asked

        feed.want(frozenset({B}))
        await eventually(lambda: told.get(B) == ABSENT)
        place.asked.clear()
        await eventually(lambda: len(place.asked) > 3)
        assert {ref for ref, _ in place.asked} == {B}
    assert place.closed


async def test_nothing_is_asked_while_nothing_is_wanted() -> None:
    place = Scripted()
    place.trouble = "down"
    async with following([place], Told()) as feed:
        for _ in range(10):
            await asyncio.sleep(0)
        assert feed.troubles == {}
        assert place.asked == []


async def test_a_new_secret_is_read_at_once_between_two_rounds() -> None:
    place, told = Scripted(period=600.0), Told()
    async with following([place], told) as feed:
        feed.want(frozenset({A}))
        await feed.settled(5)
        feed.want(frozenset({A, B}))
        await feed.settled(5)
    assert place.asked == [(A, ""), (B, "")]


async def test_a_place_in_trouble_changes_nothing_and_is_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    place, told = Scripted(), Told()
    place.has = {A: text("v1")}
    async with following([place], told) as feed:
        feed.want(frozenset({A}))
        await feed.settled(5)
        place.trouble = "sealed"
        await eventually(lambda: feed.troubles == {"vault": "sealed"})
        assert told == {A: text("v1")}

        feed.want(frozenset({A, B}))
        await feed.settled(5)
        assert feed.unread == {B}
        assert feed.why_unread == "waiting for 1 secrets: vault: sealed"
        assert feed.state()["unread"] == ["ns.b"]

        place.trouble = ""
        await eventually(lambda: not feed.troubles and not feed.unread)
        assert told[B] == ABSENT
    lines = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert lines == ["a place for secrets does not answer; what was read from it stays"]


async def test_of_several_places_the_first_that_has_it_is_believed() -> None:
    vault, files, told = Scripted(), Scripted("files"), Told()
    vault.trouble = "sealed"
    files.has = {A: text("file"), B: text("file")}
    async with following([vault, files], told) as feed:
        feed.want(frozenset({A, B}))
        await eventually(lambda: (A, "file") in files.asked)
        assert told == {}, "Vault goes before, and has not said that it has none"

        vault.has = {A: text("v1")}
        vault.trouble = ""
        await eventually(lambda: told == {A: text("v1"), B: text("file")})

        vault.has = {}
        del files.has[B]
        await eventually(
            lambda: told == {A: text("file"), B: Answer(problem="not there; not there", absent=True)}
        )


async def test_without_a_place_or_a_namespace_that_is_read_the_answer_says_so() -> None:
    nowhere, told = Told(), Told()
    async with following([], nowhere) as feed:
        feed.want(frozenset({A}))
        assert nowhere == {A: Answer(problem=NO_PLACE, absent=True)}
        assert not feed.unread
    async with following([Scripted()], told, namespaces=frozenset({"other"})) as feed:
        feed.want(frozenset({A}))
        assert told[A].problem == "namespace ns is not among settings.watchNamespaces"
