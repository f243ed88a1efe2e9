"""Discovery as a process, against a real Consul."""

from __future__ import annotations

import asyncio
import base64
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from shared.codec import text
from tests.support.consul import REPOSITORY, ConsulServer
from tests.support.ports import free_port
from tests.support.processes import Process, spawn
from tests.support.waiting import eventually

pytestmark = pytest.mark.consul

UPSTREAMS = "gloo/gloo.solo.io/v1/Upstream/gloo-system/"


class Discovery:
    """One replica, and the store as it sees it."""

    def __init__(self, consul: ConsulServer, directory: Path, name: str, settings: Mapping[str, Any]) -> None:
        self.consul = consul
        self.admin_port = free_port()
        self._directory = directory / name
        self.write_settings(settings)
        self.process: Process | None = None

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        folder = self._directory / "gloo-system"
        folder.mkdir(parents=True, exist_ok=True)
        consul = {"address": self.consul.address, "serviceDiscovery": {}}
        document = {"consul": consul, "consulKvSource": {}, **settings}
        (folder / "default.yaml").write_bytes(orjson.dumps(document))

    def start(self) -> None:
        self.process = spawn(
            [
                *(sys.executable, "-m", "services.discovery", "--dir", self._directory),
                *("--admin-addr", f"127.0.0.1:{self.admin_port}"),
            ],
            log=self._directory / "log",
            cwd=REPOSITORY,
        )

    async def ready(self) -> None:
        await eventually(lambda: self.admin("/readyz"), until=lambda page: page["ready"], within=20)

    async def admin(self, path: str) -> Any:
        return await asyncio.to_thread(self._admin, path)

    def _admin(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=5) as response:
            return orjson.loads(response.read())

    async def stop(self) -> int | None:
        if self.process is None or not self.process.running:
            return None
        return await self.process.stop()


@asynccontextmanager
async def discovering(
    consul: ConsulServer, directory: Path, *, replicas: int = 1, **settings: Any
) -> AsyncIterator[list[Discovery]]:
    all = [Discovery(consul, directory, f"discovery-{number}", settings) for number in range(replicas)]
    try:
        for one in all:
            one.start()
        for one in all:
            await one.ready()
        yield all
    finally:
        for one in all:
            await one.stop()
            print(one.process.output() if one.process else "")


async def register(consul: ConsulServer, name: str, *tags: str) -> None:
    service = {"ID": name, "Name": name, "Tags": tags, "Port": 8090, "Address": "127.0.0.1"}
    await consul.call("PUT", "/v1/agent/service/register", service)


async def deregister(consul: ConsulServer, name: str) -> None:
    await consul.call("PUT", f"/v1/agent/service/deregister/{name}")


async def names(consul: ConsulServer) -> set[str]:
    keys = await consul.call("GET", f"/v1/kv/{UPSTREAMS}?keys&consistent") or ()
    return {key.removeprefix(UPSTREAMS) for key in keys}


async def value(consul: ConsulServer, name: str) -> bytes:
    rows = await consul.call("GET", f"/v1/kv/{UPSTREAMS}{name}?consistent")
    assert rows, f"there is no upstream {name}"
    return base64.b64decode(rows[0]["Value"])


async def written_at(consul: ConsulServer) -> dict[str, int]:
    """By name, when each upstream was created."""
    rows = await consul.call("GET", f"/v1/kv/{UPSTREAMS}?recurse&consistent") or ()
    return {row["Key"].removeprefix(UPSTREAMS): row["CreateIndex"] for row in rows}


async def register_many(consul: ConsulServer, count: int) -> None:
    await consul.call("PUT", "/v1/catalog/register", {"Node": "elsewhere", "Address": "10.0.0.1"})
    for first in range(0, count, 64):
        await consul.call(
            "PUT",
            "/v1/txn",
            [
                {"Service": {"Verb": "set", "Node": "elsewhere", "Service": {"ID": name, "Service": name}}}
                for name in (f"many-{number}" for number in range(first, min(first + 64, count)))
            ],
        )


async def test_services_come_and_go_as_upstreams(consul_server: ConsulServer, tmp_path: Path) -> None:
    async with discovering(consul_server, tmp_path):
        await register(consul_server, "petstore", "v2", "v1")
        await eventually(lambda: names(consul_server), until=lambda there: there == {"consul", "petstore"})
        document = text.parse(await value(consul_server, "petstore"))
        await deregister(consul_server, "petstore")
        await eventually(lambda: names(consul_server), until=lambda there: there == {"consul"}, within=2)

    assert document == {
        "metadata": {
            "name": "petstore",
            "namespace": "gloo-system",
            "labels": {"discovered_by": "consulplugin"},
        },
        "consul": {"serviceName": "petstore", "serviceTags": ["v1", "v2"], "dataCenters": ["dc1"]},
    }


async def test_names_that_no_object_can_have_are_made_fit(
    consul_server: ConsulServer, tmp_path: Path
) -> None:
    for name in ("Pet_Store", "pet-store", "UPPER"):
        await register(consul_server, name)

    async with discovering(consul_server, tmp_path) as (discovery,):
        there = await eventually(lambda: names(consul_server), until=lambda there: len(there) == 4)
        upper = text.parse(await value(consul_server, "upper"))
        state = await discovery.admin("/debug/discovery")

    (odd,) = there - {"consul", "pet-store", "upper"}
    assert odd.startswith("pet-store-")
    assert upper["consul"]["serviceName"] == "UPPER"
    assert state["renamed"] == {f"gloo-system.{odd}": "Pet_Store", "gloo-system.upper": "UPPER"}


async def test_what_people_wrote_is_never_touched_and_costs_nobody_else(
    consul_server: ConsulServer, tmp_path: Path
) -> None:
    own = b"metadata: {name: mine, namespace: gloo-system}\nstatic: {hosts: [{addr: h, port: 1}]}\n"
    garbage = b"\xff\xfe{{{"
    await consul_server.put(f"{UPSTREAMS}mine", own)
    await consul_server.put(f"{UPSTREAMS}broken", garbage)

    async with discovering(consul_server, tmp_path) as (discovery,):
        for name in ("mine", "broken", "zebra"):
            await register(consul_server, name)
        await eventually(lambda: names(consul_server), until=lambda there: "zebra" in there)
        state = await discovery.admin("/debug/discovery")
        for name in ("mine", "broken", "zebra"):
            await deregister(consul_server, name)
        await eventually(lambda: names(consul_server), until=lambda there: "zebra" not in there)

    assert set(state["left_alone"]) == {"gloo-system.mine", "gloo-system.broken"}
    assert await value(consul_server, "mine") == own
    assert await value(consul_server, "broken") == garbage


async def test_edits_survive_what_happens_to_the_service(consul_server: ConsulServer, tmp_path: Path) -> None:
    await register(consul_server, "petstore", "v1")

    async with discovering(consul_server, tmp_path):
        await eventually(lambda: names(consul_server), until=lambda there: "petstore" in there)
        edited = b"# mine\n" + await value(consul_server, "petstore") + b"useHttp2: true  # they speak it\n"
        edited = edited.replace(b"  labels:\n", b"  labels:\n    team: blue\n")
        await consul_server.put(f"{UPSTREAMS}petstore", edited)
        await register(consul_server, "petstore", "v1", "v2")
        after = await eventually(lambda: value(consul_server, "petstore"), until=lambda raw: b"v2" in raw)

    assert after == edited.replace(b"  - v1\n", b"  - v1\n  - v2\n")


async def test_a_discovered_upstream_that_was_deleted_comes_back(
    consul_server: ConsulServer, tmp_path: Path
) -> None:
    async with discovering(consul_server, tmp_path):
        await eventually(lambda: names(consul_server), until=lambda there: "consul" in there)
        await consul_server.delete(f"{UPSTREAMS}consul")
        await eventually(lambda: names(consul_server), until=lambda there: "consul" in there)


async def test_a_thousand_services_at_once(consul_server: ConsulServer, tmp_path: Path) -> None:
    async def count() -> int:
        return len(await names(consul_server))

    async with discovering(consul_server, tmp_path):
        await register_many(consul_server, 1000)
        registered = time.monotonic()
        await eventually(count, until=lambda there: there == 1001, within=20)

    print(f"all there {time.monotonic() - registered:.2f} s after the last was registered")


async def test_replicas_share_the_work_and_take_over_from_one_that_dies(
    consul_server: ConsulServer, tmp_path: Path
) -> None:
    async with discovering(consul_server, tmp_path, replicas=3) as replicas:

        async def shares() -> list[int]:
            return [(await replica.admin("/debug/discovery"))["own"] for replica in replicas]

        async def count() -> int:
            return len(await names(consul_server))

        async def delete_all() -> None:
            for name in await names(consul_server):
                await consul_server.delete(f"{UPSTREAMS}{name}")

        await register_many(consul_server, 60)
        await eventually(count, until=lambda there: there == 61)
        own = await eventually(shares, until=lambda own: sum(own) == 61)
        before = [written_by(replica) for replica in replicas]
        expected = [then + share for then, share in zip(before, own, strict=True)]
        await delete_all()
        await eventually(
            lambda: [written_by(replica) for replica in replicas], until=lambda now: now == expected
        )
        assert replicas[0].process
        await replicas[0].process.kill()
        await delete_all()
        await eventually(count, until=lambda there: there == 61, within=20)

    assert min(own) > 5


def written_by(replica: Discovery) -> int:
    """How many upstreams *replica* created."""
    return sum(
        line["count"]
        for line in map(orjson.loads, (replica.process.output() if replica.process else "").splitlines())
        if line.get("verb") == "create"
    )


async def test_a_restart_of_consul_costs_no_upstream(tmp_path: Path) -> None:
    async with (
        ConsulServer(tmp_path / "consul", durable=True) as consul,
        discovering(consul, tmp_path) as (discovery,),
    ):
        await register_many(consul, 20)
        await eventually(lambda: written_at(consul), until=lambda there: len(there) == 21)
        before = await written_at(consul)
        await consul.restart()
        await register(consul, "new")
        await eventually(lambda: names(consul), until=lambda there: "new" in there, within=30)
        after = await written_at(consul)
        await discovery.ready()

    assert {name: after.get(name) for name in before} == before


async def test_a_catalog_that_lost_its_services_deletes_nothing_at_once(tmp_path: Path) -> None:
    async with ConsulServer(tmp_path / "consul") as consul, discovering(consul, tmp_path) as (discovery,):
        await register(consul, "petstore")
        await eventually(lambda: names(consul), until=lambda there: "petstore" in there)
        backup = await value(consul, "petstore")
        await consul.wipe()
        await consul.put(f"{UPSTREAMS}petstore", backup)
        state = await eventually(
            lambda: discovery.admin("/debug/discovery"), until=lambda state: state["held"], within=30
        )
        there = await names(consul)
        await register(consul, "petstore")
        await eventually(lambda: discovery.admin("/debug/discovery"), until=lambda state: not state["held"])

    assert state["held"] == ["gloo-system.petstore"]
    assert "petstore" in there


async def test_consul_may_come_later_than_discovery(tmp_path: Path) -> None:
    consul = ConsulServer(tmp_path / "consul")
    discovery = Discovery(consul, tmp_path, "discovery", {})
    discovery.start()
    try:
        await eventually(lambda: discovery.admin("/healthz"), within=20)
        await consul.start()
        await discovery.ready()
        await eventually(lambda: names(consul), until=lambda there: there == {"consul"})

        code = await discovery.stop()
    finally:
        await discovery.stop()
        await consul.stop()

    assert code == 0


async def test_settings_are_followed_without_a_restart(consul_server: ConsulServer, tmp_path: Path) -> None:
    await register(consul_server, "petstore", "public")
    off = {"discovery": {"udsOptions": {"enabled": False}}}

    async with discovering(consul_server, tmp_path, **off) as (discovery,):
        before = await names(consul_server)
        state = await discovery.admin("/debug/discovery")
        discovery.write_settings({"consulDiscovery": {"serviceTagsAllowlist": ["public"]}})
        there = await eventually(lambda: names(consul_server), within=20)

    assert before == set()
    assert "udsOptions" in state["off"]
    assert there == {"petstore"}


async def test_settings_that_make_no_sense_end_it_with_one_line(
    consul_server: ConsulServer, tmp_path: Path
) -> None:
    discovery = Discovery(consul_server, tmp_path, "d", {"consulDiscovery": {"useTlsTagging": True}})
    discovery.start()
    assert discovery.process

    code = await discovery.process.wait()

    assert code == 2
    assert discovery.process.output().splitlines()[-1] == (
        "discovery: consulDiscovery.useTlsTagging needs consulDiscovery.rootCa"
    )
