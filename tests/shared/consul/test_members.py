"""Membership and the sharing of work on a real Consul."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from shared.consul.blocking import WatchOptions
from shared.consul.client import Consul
from shared.consul.config import ConsulConfig
from shared.consul.members import Members, owner
from tests.support.consul import ConsulServer
from tests.support.waiting import eventually

PREFIX = "gloo/_members/discovery/"
ITEMS = [f"service-{number}" for number in range(200)]


@asynccontextmanager
async def member(config: ConsulConfig, name: str, **options: Any) -> AsyncIterator[Members]:
    async with Consul(config) as consul, asyncio.TaskGroup() as tasks:
        members = Members(consul, PREFIX, name, **options)
        task = tasks.create_task(members.run())
        await eventually(lambda: name in members.current)
        yield members
        task.cancel()


def share(members: Members) -> set[str]:
    return {item for item in ITEMS if members.owns(item)}


async def test_members_agree_on_who_owns_what(consul_server: ConsulServer) -> None:
    config = consul_server.config
    async with member(config, "a") as a, member(config, "b") as b, member(config, "c") as c:
        await eventually(lambda: a.current == b.current == c.current == {"a", "b", "c"})
        await eventually(lambda: sum(len(share(each)) for each in (a, b, c)), until=lambda n: n == len(ITEMS))

        assert share(a) | share(b) | share(c) == set(ITEMS)
        assert all(len(share(each)) > 30 for each in (a, b, c))


async def test_a_member_says_of_itself_what_it_was_told_to(consul_server: ConsulServer) -> None:
    async with Consul(consul_server.config) as consul, member(consul_server.config, "a", value=b"here"):
        row = await consul.kv.get(f"{PREFIX}a")

    assert row is not None
    assert row.value == b"here"


async def test_a_share_is_taken_at_once_and_given_up_after_it_has_settled(
    consul_server: ConsulServer,
) -> None:
    async with member(consul_server.config, "a", settle=0.5) as a:
        assert share(a) == set(ITEMS)
        changed = asyncio.create_task(a.wait_changed())
        async with member(consul_server.config, "b") as b:
            taken = await eventually(lambda: share(b))
            await changed
            assert taken & share(a)
            settled = asyncio.create_task(a.wait_changed())
            await asyncio.wait_for(settled, 5.0)
            assert share(a) == set(ITEMS) - share(b)
        await eventually(lambda: share(a), until=lambda now: now == set(ITEMS))


async def test_a_member_that_crashes_is_gone_within_seconds(consul_server: ConsulServer) -> None:
    async with member(consul_server.config, "a") as a:
        session = await consul_server.call(
            "PUT", "/v1/session/create", {"Behavior": "delete", "LockDelay": "0s"}
        )
        await consul_server.call("PUT", f"/v1/kv/{PREFIX}ghost?acquire={session['ID']}", b"")
        await eventually(lambda: a.current, until=lambda now: now == {"a", "ghost"})

        await consul_server.call("PUT", f"/v1/session/destroy/{session['ID']}")

        await eventually(lambda: a.current, until=lambda now: now == {"a"})


async def test_a_member_whose_event_loop_stalled_joins_again(consul_server: ConsulServer) -> None:
    async with member(consul_server.config, "a", ttl=1.0) as a:
        time.sleep(2.0)  # noqa: ASYNC251 the stall: no heartbeat leaves this process

        async with Consul(consul_server.config) as consul:
            row = await eventually(lambda: consul.kv.get(f"{PREFIX}a"))
        assert row is not None
        assert row.session
        await eventually(lambda: a.current, until=lambda now: now == {"a"})


async def test_members_find_each_other_again_after_consul_forgot_them(tmp_path: Path) -> None:
    options = {"options": WatchOptions(hold=30.0, hold_pause=0.1, max_backoff=0.3)}
    async with ConsulServer(tmp_path) as server, AsyncExitStack() as stack:
        a = await stack.enter_async_context(member(server.config, "a", **options))  # type: ignore[arg-type]
        b = await stack.enter_async_context(member(server.config, "b", **options))  # type: ignore[arg-type]
        await eventually(lambda: len(a.current) + len(b.current), until=lambda n: n == 4)

        await server.restart()

        async def keys() -> object:
            return await server.call("GET", f"/v1/kv/{PREFIX}?keys")

        await eventually(keys, until=lambda now: now == [f"{PREFIX}a", f"{PREFIX}b"], within=15.0)
        await eventually(lambda: a.state.held or b.state.held, until=lambda held: not held)
        assert a.current == b.current == {"a", "b"}


def test_a_member_that_leaves_moves_only_its_own_share() -> None:
    three, two = frozenset("abc"), frozenset("ab")

    assert all(owner(three, item) in ("c", owner(two, item)) for item in ITEMS)
    assert owner(frozenset(), "x") == ""
