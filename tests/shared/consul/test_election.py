"""Leadership among candidates on a real Consul."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from shared.consul.client import Consul
from shared.consul.config import ConsulConfig
from shared.consul.election import Election
from shared.consul.operations import Put
from shared.errors import ConsulConflict
from tests.support.consul import ConsulServer
from tests.support.processes import spawn
from tests.support.waiting import eventually

KEY = "gloo/_leaders/gateway"

CANDIDATE = """
import asyncio, sys
from shared.consul.client import Consul
from shared.consul.config import ConsulConfig
from shared.consul.election import Election

async def main() -> None:
    async with Consul(ConsulConfig(port=int(sys.argv[1]))) as consul:
        await Election(consul, sys.argv[2], "process").run()

asyncio.run(main())
"""


@asynccontextmanager
async def candidate(config: ConsulConfig, name: str, *, ttl: float = 3.0) -> AsyncIterator[Election]:
    async with Consul(config) as consul, asyncio.TaskGroup() as tasks:
        election = Election(consul, KEY, name, ttl=ttl)
        task = tasks.create_task(election.run())
        yield election
        task.cancel()


async def test_one_leads_and_the_other_follows_at_once_when_it_resigns(consul_server: ConsulServer) -> None:
    # Nothing but the resignation can end a lead of this length within the test.
    async with AsyncExitStack() as later:
        async with candidate(consul_server.config, "first", ttl=120.0) as first:
            await eventually(lambda: first.leader)
            second = await later.enter_async_context(candidate(consul_server.config, "second", ttl=120.0))
            await eventually(lambda: second.holder, until=lambda name: name == "first")
            assert not second.leader
            assert second.fence is None
            led = asyncio.create_task(second.wait_changed())
        assert await asyncio.wait_for(led, 10.0)
        assert second.leader
        assert not first.leader


async def test_a_killed_leader_is_followed_within_seconds(
    consul_server: ConsulServer, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", CANDIDATE, str(consul_server.http_port), KEY]
    process = spawn(command, log=tmp_path / "candidate.log", cwd=Path(__file__).parents[3])
    try:
        async with Consul(consul_server.config) as consul:
            await eventually(lambda: consul.kv.get(KEY))
        async with candidate(consul_server.config, "survivor") as survivor:
            await eventually(lambda: survivor.holder, until=lambda name: name == "process")
            await process.kill()
            began = time.monotonic()
            await eventually(lambda: survivor.leader)
            assert (
                time.monotonic() - began < 8.0
            )  # 3 s by the check; a session's own time would take 10 to 20
    finally:
        if process.running:
            await process.kill()


async def test_a_session_ended_by_somebody_else_is_noticed_at_once(consul_server: ConsulServer) -> None:
    async with candidate(consul_server.config, "one", ttl=120.0) as election:
        await eventually(lambda: election.leader)
        fence = election.fence
        assert fence is not None

        await consul_server.call("PUT", f"/v1/session/destroy/{fence.session}")

        await eventually(lambda: election.fence, until=lambda now: now not in (None, fence))


async def test_the_late_writes_of_a_former_leader_are_refused(consul_server: ConsulServer) -> None:
    async with candidate(consul_server.config, "former") as former:
        await eventually(lambda: former.leader)
        stale = former.fence
        assert stale is not None
    async with candidate(consul_server.config, "next") as following, Consul(consul_server.config) as consul:
        await eventually(lambda: following.leader)
        fence = following.fence
        assert fence is not None
        await consul.kv.txn([fence, Put("gloo/status", b"in time")])
        with pytest.raises(ConsulConflict) as refused:
            await consul.kv.txn([stale, Put("gloo/status", b"late")])
        assert refused.value.failed == (0,)


async def test_a_stalled_process_loses_the_lead_and_competes_again(consul_server: ConsulServer) -> None:
    async with candidate(consul_server.config, "stalled", ttl=1.0) as stalled:
        await eventually(lambda: stalled.leader)
        first = stalled.fence
        time.sleep(2.0)  # noqa: ASYNC251 the stall: no heartbeat leaves this process

        assert not stalled.leader
        await eventually(lambda: stalled.leader)
        assert stalled.fence != first


async def test_a_restarted_server_is_led_again(tmp_path: Path) -> None:
    async with ConsulServer(tmp_path) as server, candidate(server.config, "one") as election:
        await eventually(lambda: election.leader)
        await server.kill()
        assert await asyncio.wait_for(election.wait_changed(), 20.0) is False
        await server.start()
        await eventually(lambda: election.leader, within=30.0)
        assert election.fence is not None


ACLS = {
    "primary_datacenter": "dc1",
    "acl": {
        "enabled": True,
        "default_policy": "deny",
        "tokens": {"master": "root-token", "agent": "root-token"},
    },
}


async def test_where_the_agent_takes_no_check_the_session_lives_by_itself(tmp_path: Path) -> None:
    rules = 'key_prefix "" { policy = "write" } session_prefix "" { policy = "write" }'
    async with ConsulServer(tmp_path, extra=ACLS) as server:
        await eventually(
            lambda: server.call("PUT", "/v1/acl/policy", {"Name": "ours", "Rules": rules}, token="root-token")
        )
        made = await server.call("PUT", "/v1/acl/token", {"Policies": [{"Name": "ours"}]}, token="root-token")
        async with candidate(replace(server.config, token=made["SecretID"]), "one") as election:
            await eventually(lambda: election.leader)
            sessions = await server.call("GET", "/v1/session/list", token="root-token")
            assert [session["TTL"] for session in sessions] == ["10s"]
        assert not await server.call("GET", "/v1/session/list", token="root-token")


async def test_nothing_is_left_behind_in_the_registry(consul_server: ConsulServer) -> None:
    async with candidate(consul_server.config, "one") as election:
        await eventually(lambda: election.leader)
        assert len(await consul_server.call("GET", "/v1/agent/services")) == 1

    assert await consul_server.call("GET", "/v1/agent/services") == {}
    assert await consul_server.call("GET", "/v1/session/list") == []
