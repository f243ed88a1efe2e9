import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from services.gloo.endpoints.resolve import Resolver
from tests.support.waiting import eventually


@asynccontextmanager
async def running(resolver: Resolver) -> AsyncIterator[None]:
    task = asyncio.create_task(resolver.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Names:
    """The system's resolver, answering from a table; a name it does not have fails."""

    def __init__(self) -> None:
        self.addresses: dict[str, list[str]] = {}
        self.asked: list[str] = []

    async def getaddrinfo(self, host: str, port: object, *, type: int) -> list[tuple[object, ...]]:
        self.asked.append(host)
        if host not in self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, type, 6, "", (address, 0)) for address in self.addresses[host]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    given = Names()
    with monkeypatch.context() as patch:
        patch.setattr(
            asyncio.BaseEventLoop, "getaddrinfo", lambda _, *args, **more: given.getaddrinfo(*args, **more)
        )
        yield given


async def test_the_systems_resolver_is_asked() -> None:
    seen: dict[str, tuple[str, ...]] = {}
    resolver = Resolver(lambda host, found: seen.update({host: found}))

    async with running(resolver):
        resolver.want({"localhost"})
        await eventually(lambda: seen.get("localhost"))

    assert "127.0.0.1" in seen["localhost"] or "::1" in seen["localhost"]
    assert resolver.settled


async def test_addresses_are_followed_and_an_equal_answer_is_not_news(names: Names) -> None:
    told: list[tuple[str, ...]] = []
    resolver = Resolver(lambda _, found: told.append(found), interval=0.01)
    names.addresses["web"] = ["10.0.0.2", "10.0.0.1", "10.0.0.2"]

    async with running(resolver):
        resolver.want({"web"})
        await eventually(lambda: len(names.asked) > 3)
        names.addresses["web"] = ["10.0.0.3"]
        await eventually(lambda: len(told) > 1)

    assert told == [("10.0.0.1", "10.0.0.2"), ("10.0.0.3",)]


async def test_a_failure_leaves_the_last_good_answer(names: Names) -> None:
    resolver = Resolver(lambda host, found: None, interval=0.01)
    names.addresses["web"] = ["10.0.0.1"]

    async with running(resolver):
        resolver.want({"web", "nowhere"})
        await eventually(lambda: resolver.settled)
        del names.addresses["web"]
        await eventually(lambda: "web" in resolver.failures)

    assert resolver.answers == {"web": ("10.0.0.1",)}
    assert "not known" in resolver.failures["nowhere"]


async def test_a_name_nobody_wants_is_not_asked_for_any_more(names: Names) -> None:
    resolver = Resolver(lambda host, found: None, interval=0.01)
    names.addresses = {"a": ["10.0.0.1"], "b": ["10.0.0.2"]}

    async with running(resolver):
        resolver.want({"a", "b"})
        await eventually(lambda: resolver.settled)
        resolver.want({"b"})
        await eventually(lambda: names.asked[-3:] == ["b", "b", "b"])

    assert resolver.answers == {"b": ("10.0.0.2",)}


@pytest.mark.parametrize("host", ["", ".", "a..b", "x" * 300, "unix:///run/socket", "é" * 70])
async def test_what_is_no_name_at_all_fails_alone(host: str) -> None:
    resolver = Resolver(lambda host, found: None)

    async with running(resolver):
        resolver.want({host, "127.0.0.1"})
        await eventually(lambda: resolver.settled, within=20)

    assert resolver.answers["127.0.0.1"] == ("127.0.0.1",)
