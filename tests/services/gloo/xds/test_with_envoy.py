"""The server and the real Envoy, in both dialects."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from protos.envoy import cluster as cluster_api
from services.gloo.resources import CLUSTER, ENDPOINTS, ROUTES, Resource, Snapshot, TypeUrl
from services.gloo.xds import Cache, Options, XdsServer
from tests.services.gloo.xds.envoy_resources import (
    eds_cluster,
    endpoints,
    http_listener,
    routes,
    snapshot_of,
)
from tests.support.envoy import Envoy, ads_bootstrap, running_envoy
from tests.support.ports import free_ports
from tests.support.waiting import eventually

ROLE = "ns~proxy"
GRACE = 0.2
NEEDS_AN_LB = cluster_api.ClusterLbPolicy.CLUSTER_PROVIDED


@dataclass
class Watch:
    """An observer that remembers."""

    streams: int = 0
    sent: Counter[TypeUrl] = field(default_factory=Counter)
    acked_versions: set[tuple[TypeUrl, str]] = field(default_factory=set)
    refusals: list[tuple[TypeUrl, tuple[str, ...], str]] = field(default_factory=list)

    def connected(self, client: str, role: str, node: str) -> None:
        self.streams += 1

    def disconnected(self, client: str) -> None:
        self.streams -= 1

    def acked(
        self,
        client: str,
        role: str,
        type_url: TypeUrl,
        version: str,
        resources: tuple[Resource, ...],
        removed: tuple[str, ...],
    ) -> None:
        self.acked_versions.add((type_url, version))

    def nacked(
        self,
        client: str,
        role: str,
        type_url: TypeUrl,
        version: str,
        resources: tuple[Resource, ...],
        message: str,
    ) -> None:
        self.refusals.append((type_url, tuple(r.name for r in resources), message))

    def measure(self, event: str, type_url: TypeUrl, amount: float) -> None:
        if event == "sent":
            self.sent[type_url] += 1


@dataclass
class Stage:
    """A server, an Envoy that follows it, and a backend; ``publish`` sets the snapshot."""

    cache: Cache
    server: XdsServer
    watch: Watch
    envoy: Envoy
    port: int
    backend: int

    def snapshot(
        self,
        by_prefix: dict[str, str],
        clusters: Sequence[str] = (),
        more: Sequence[Resource] = (),
        **changed: str,
    ) -> Snapshot:
        """Routes by prefix; clusters with the backend behind each; *changed* alters a cluster."""
        return snapshot_of(
            clusters=[*(eds_cluster(name, alt_stat_name=changed.get(name, "")) for name in clusters), *more],
            endpoints=[endpoints(name, self.backend) for name in clusters],
            listeners=[http_listener("listener", self.port, "routes")],
            routes=[routes("routes", by_prefix)],
        )

    async def serve(self, content: Snapshot) -> None:
        """Publish, and wait until Envoy has acknowledged all of it."""
        self.cache.set(ROLE, content)
        await eventually(lambda: self.acked(content), every=0.002)

    def acked(self, content: Snapshot) -> bool:
        return all(
            (kind, members.version) in self.watch.acked_versions for kind, members in content.by_type.items()
        )

    async def get(self, path: str = "/") -> int:
        status, _ = await self.envoy.get(self.port, path)
        return status


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


@asynccontextmanager
async def staged(directory: Path, *, delta: bool) -> AsyncIterator[Stage]:
    port, backend, admin = free_ports(3)
    cache, watch = Cache(), Watch()
    server = XdsServer(cache, Options(removal_grace=GRACE), watch, measure=watch.measure)
    await server.start("127.0.0.1", 0)
    bootstrap = ads_bootstrap(xds_port=server.port, admin_port=admin, role=ROLE, delta=delta)
    async with await asyncio.start_server(_answer, "127.0.0.1", backend):
        async with running_envoy(directory, bootstrap) as envoy:
            stage = Stage(cache, server, watch, envoy, port, backend)
            cache.set(ROLE, stage.snapshot({"/": "a"}, ["a"]))
            await eventually(stage.get, until=lambda status: status == 200)
            yield stage
        await stage.server.stop(1)


@pytest.fixture(params=[pytest.param(False, id="sotw"), pytest.param(True, id="delta")])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path, delta=request.param) as made:
        yield made


@asynccontextmanager
async def requests(stage: Stage, *paths: str) -> AsyncIterator[Counter[int]]:
    """A closed loop of requests; the answers are counted by status."""
    answers: Counter[int] = Counter()

    async def loop() -> None:
        while True:
            for path in paths:
                answers[await stage.get(path)] += 1

    async with asyncio.TaskGroup() as tasks:
        clients = [tasks.create_task(loop()) for _ in range(2)]
        try:
            yield answers
        finally:
            for client in clients:
                client.cancel()


async def answered(answers: Counter[int], more: int) -> None:
    """Wait for so many more answers."""
    enough = answers.total() + more
    await eventually(lambda: answers.total() >= enough, every=0.002)


async def test_a_changed_cluster_is_warm_at_once(stage: Stage) -> None:
    for change in ("one", "two", "three"):
        async with asyncio.timeout(2):  # far less than the 15 s that Envoy waits for endpoints
            await stage.serve(stage.snapshot({"/": "a"}, ["a"], a=change))

    assert (await stage.envoy.stats("warming_clusters"))["cluster_manager.warming_clusters"] == 0
    assert await stage.get() == 200
    assert stage.watch.sent[ENDPOINTS] == 4


async def test_a_refused_cluster_costs_itself_and_recovers(stage: Stage) -> None:
    bad = eds_cluster("bad", lb_policy=NEEDS_AN_LB)
    stage.cache.set(ROLE, stage.snapshot({"/b": "b", "/": "a"}, ["a", "b"], more=[bad]))

    await eventually(lambda: stage.watch.refusals)
    await eventually(lambda: stage.get("/b"), until=lambda status: status == 200)
    assert [(kind, names) for kind, names, _ in stage.watch.refusals] == [(CLUSTER, ("bad",))]

    await stage.serve(stage.snapshot({"/c": "bad", "/": "a"}, ["a", "b", "bad"]))
    await eventually(lambda: stage.get("/c"), until=lambda status: status == 200)
    assert len(stage.watch.refusals) == 1


async def test_a_refusal_that_names_nobody_finds_its_cluster(stage: Stage) -> None:
    good = [f"good-{n}" for n in range(20)]
    bad = eds_cluster("bad", connect_timeout=timedelta(seconds=-1))
    stage.cache.set(ROLE, stage.snapshot({"/g": "good-13", "/": "a"}, ["a", *good], more=[bad]))

    await eventually(lambda: stage.get("/g"), until=lambda status: status == 200, within=5)
    await eventually(lambda: any(names for _, names, _ in stage.watch.refusals))

    assert {names for _, names, _ in stage.watch.refusals} == {(), ("bad",)}
    await eventually(
        lambda: stage.envoy.stats("cluster_manager.active_clusters"),
        until=lambda stats: stats["cluster_manager.active_clusters"] == 1 + 21,
    )


async def test_refused_routes_keep_the_old_ones_serving(stage: Stage) -> None:
    content = stage.snapshot({"/": "a"}, ["a"])
    broken = routes("routes", {"/": "a"}, domains=["*", "*"])
    stage.cache.set(ROLE, content.replaced({ROUTES: content.of(ROUTES).patched(put=[broken])}))

    await eventually(lambda: stage.watch.refusals)

    assert stage.watch.refusals[0][:2] == (ROUTES, ("routes",))
    assert await stage.get() == 200
    [client] = stage.server.clients()
    assert client["types"][ROUTES]["refused"] == ["routes"]
    assert "single wildcard domain" in client["types"][ROUTES]["lastRefusal"]["message"]
    await stage.serve(stage.snapshot({"/": "a", "/x": "a"}, ["a"]))


async def test_a_reconnecting_envoy_is_sent_nothing_again(stage: Stage) -> None:
    """As it moves to another replica: the versions are the content's."""
    await stage.serve(stage.snapshot({"/b": "b", "/": "a"}, ["a", "b"]))
    port, watch = stage.server.port, Watch()
    await stage.server.stop(1)
    cache = Cache()
    cache.set(ROLE, stage.snapshot({"/b": "b", "/": "a"}, ["a", "b"]))
    stage.server = XdsServer(cache, Options(), watch, measure=watch.measure)

    await stage.server.start("127.0.0.1", port)
    await eventually(
        lambda: [len(client["types"]) for client in stage.server.clients()],
        until=lambda types: types == [4],
        within=20,
    )
    assert not watch.sent

    cache.set(ROLE, stage.snapshot({"/c": "b", "/": "a"}, ["a", "b"]))
    await eventually(lambda: stage.get("/c"), until=lambda status: status == 200)
    assert watch.sent == {ROUTES: 1}


async def test_a_backend_swap_loses_no_request(stage: Stage) -> None:
    """Each time a cluster, its endpoints and its route come and the old cluster goes, in one snapshot."""
    async with requests(stage, "/") as answers:
        for turn in range(25):
            name = f"backend-{turn}"
            await stage.serve(stage.snapshot({"/": name}, [name]))
            await answered(answers, 4)
        await eventually(
            lambda: stage.envoy.stats("cluster_manager.active_clusters"),
            until=lambda stats: stats["cluster_manager.active_clusters"] == 2,
        )

    assert set(answers) == {200}


async def test_the_probe_sees_a_route_before_its_cluster(stage: Stage) -> None:
    """The control of the test above: wrong on purpose, it must lose requests."""
    async with requests(stage, "/") as answers:
        await stage.serve(stage.snapshot({"/": "missing"}, ["a"]))
        await eventually(lambda: answers[503])
        await stage.serve(stage.snapshot({"/": "a"}, ["a"]))

    assert answers[503]


async def test_cluster_edits_under_load_lose_no_request(stage: Stage) -> None:
    async with requests(stage, "/", "/other") as answers:
        for turn in range(15):
            changed = f"turn-{turn}"
            await stage.serve(stage.snapshot({"/other": "b", "/": "a"}, ["a", "b"], a=changed))
            await answered(answers, 4)

    assert set(answers) == {200}
