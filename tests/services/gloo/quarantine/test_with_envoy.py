"""One poison among a thousand, and a real Envoy: all else is live within a second, and goes on being so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2

from services.gloo.feedback import Feedback
from services.gloo.resources import CLUSTER, LISTENER, ROUTES, Resource, Resources, Snapshot, resource
from services.gloo.xds import Cache, Options, XdsServer
from tests.services.gloo.xds.envoy_resources import http_listener
from tests.support.envoy import Envoy, ads_bootstrap, running_envoy
from tests.support.ports import free_ports
from tests.support.waiting import eventually

ROLE = "ns~proxy"
MANY = 1000
SOON = 1.0  # seconds
NAMES_NOBODY = "Sum of weights in the weighted_cluster must be greater than 0"
NAMES_A_VALUE = "missing ): a(b"


def cluster(name: str, *, poisoned: bool = False) -> Resource:
    made = cluster_pb2.Cluster(name=name, type=cluster_pb2.Cluster.STATIC)
    made.connect_timeout.seconds = 1
    if poisoned:
        made.lb_policy = cluster_pb2.Cluster.CLUSTER_PROVIDED
    return resource(name, made.SerializeToString(deterministic=True))


def host(name: str, content: str) -> route_components_pb2.VirtualHost:
    """A host that answers *content*, or is what Envoy refuses in these words."""
    made = route_components_pb2.VirtualHost(name=name, domains=[f"{name}.com"])
    route = made.routes.add()
    route.match.prefix = "/"
    if content == NAMES_NOBODY:
        route.route.weighted_clusters.clusters.add(name="c0").weight.value = 0
    else:
        route.direct_response.status = 200
        route.direct_response.body.inline_string = content
    if content == NAMES_A_VALUE:
        route.match.safe_regex.regex = "a(b"
    return made


def routes(hosts: Mapping[str, str]) -> Resource:
    made = route_pb2.RouteConfiguration(name="routes")
    made.virtual_hosts.extend(host(name, content) for name, content in hosts.items())
    return resource("routes", made.SerializeToString(deterministic=True))


@dataclass
class Stage:
    """Translation's end: what is wanted is published, Envoy and the quarantine do the rest."""

    feedback: Feedback
    envoy: Envoy
    port: int
    elsewhere: int
    hosts: dict[str, str] = field(default_factory=lambda: {f"h{i}": "old" for i in range(MANY)})
    clusters: dict[str, Resource] = field(
        default_factory=lambda: {f"c{i}": cluster(f"c{i}") for i in range(MANY)}
    )
    more_listeners: list[Resource] = field(default_factory=list)

    def publish(self) -> None:
        listeners = [http_listener("listener", self.port, "routes"), *self.more_listeners]
        wanted = {
            CLUSTER: Resources.of(self.clusters.values()),
            LISTENER: Resources.of(listeners),
            ROUTES: Resources.of([routes(self.hosts)]),
        }
        self.feedback.publish(ROLE, Snapshot(wanted))

    async def get(self, name: str) -> str:
        status, text = await self.envoy.get(self.port, headers={"host": f"{name}.com"})
        return text if status == 200 else str(status)

    async def says(self, name: str, content: str, within: float = SOON) -> None:
        await eventually(
            lambda: self.get(name), until=lambda text: text == content, within=within, every=0.002
        )

    def held(self) -> list[tuple[str, str]]:
        return [(held.place.name, held.part) for held in self.feedback.held(ROLE)]

    async def rejected(self) -> int:
        """How often Envoy has refused an update so far, of any type."""
        stats = await self.envoy.stats("update_rejected")
        return sum(stats.values())

    async def settled(self) -> None:
        """Wait until Envoy has answered everything and nothing is being looked for."""
        await eventually(lambda: self.feedback.good(ROLE), within=5.0)


@pytest.fixture(params=[pytest.param(False, id="sotw"), pytest.param(True, id="delta")])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path, delta=request.param) as made:
        made.publish()
        await made.says("h0", "old", within=10.0)
        yield made


@asynccontextmanager
async def staged(directory: Path, *, delta: bool) -> AsyncIterator[Stage]:
    port, elsewhere, admin = free_ports(3)
    cache = Cache()
    feedback = Feedback(lambda role: None, cache)
    server = XdsServer(cache, Options(), feedback)
    await server.start("127.0.0.1", 0)
    bootstrap = ads_bootstrap(xds_port=server.port, admin_port=admin, role=ROLE, delta=delta)
    async with running_envoy(directory, bootstrap) as envoy:
        yield Stage(feedback, envoy, port, elsewhere)
    await server.stop(1)


async def test_a_poisoned_host_is_held_and_the_changes_that_came_with_it_are_live(stage: Stage) -> None:
    for poison, most in ((NAMES_A_VALUE, 1), (NAMES_NOBODY, 7)):
        before = await stage.rejected()
        stage.hosts |= {f"h{i}": f"new {most}" for i in range(100, 164)} | {"h130": poison}
        stage.publish()

        await stage.says("h163", f"new {most}")
        await stage.says("h100", f"new {most}")

        await stage.settled()
        assert stage.held() == [("routes", "h130")]
        assert poison in str(stage.feedback.refusals(ROLE)[0])
        assert await stage.get("h130") == "old"
        assert await stage.rejected() - before <= most

    rejected = await stage.rejected()
    for edit in range(10):
        stage.hosts["h7"] = f"edit {edit}"
        stage.publish()
        await stage.says("h7", f"edit {edit}")
    await stage.settled()
    assert await stage.rejected() == rejected

    stage.hosts["h130"] = "mended"
    stage.publish()
    await stage.says("h130", "mended")
    await stage.settled()
    assert stage.held() == []
    assert await stage.rejected() == rejected


async def test_a_poisoned_cluster_goes_back_to_its_last_good_version(stage: Stage) -> None:
    stage.clusters |= {"c5": cluster("c5", poisoned=True), "new": cluster("new", poisoned=True)}
    stage.clusters["good"] = cluster("good")
    stage.hosts["h7"] = "with them"
    stage.publish()

    await stage.says("h7", "with them")
    await eventually(lambda: stage.held() == [("c5", ""), ("new", "")])
    assert all("cluster provided LB" in str(refusal) for refusal in stage.feedback.refusals(ROLE))
    await stage.settled()
    rejected = await stage.rejected()
    for edit in range(5):
        stage.hosts["h7"] = f"edit {edit}"
        stage.clusters[f"more-{edit}"] = cluster(f"more-{edit}")
        stage.publish()
        await stage.says("h7", f"edit {edit}")
    await eventually(
        lambda: stage.envoy.stats("cluster_manager.active_clusters"),
        until=lambda stats: stats["cluster_manager.active_clusters"] == 1 + MANY + 1 + 5,
    )
    assert await stage.rejected() == rejected

    stage.clusters |= {"c5": cluster("c5"), "new": cluster("new")}
    stage.publish()
    await eventually(lambda: stage.feedback.refusals(ROLE) == [])
    assert await stage.rejected() == rejected


async def test_a_poisoned_listener_costs_only_itself(stage: Stage) -> None:
    taken = http_listener("taken", stage.elsewhere, "routes")
    poisoned = resource("taken", taken.body.replace(b"127.0.0.1", b"203.0.0.1"))
    stage.more_listeners = [poisoned]
    stage.hosts["h7"] = "with it"
    stage.publish()

    await stage.says("h7", "with it")
    await eventually(lambda: stage.held() == [("taken", "")])
    assert "Cannot assign requested address" in str(stage.feedback.refusals(ROLE)[0])
    await stage.settled()
    rejected = await stage.rejected()
    for edit in range(5):
        stage.hosts["h7"] = f"edit {edit}"
        stage.publish()
        await stage.says("h7", f"edit {edit}")
    assert await stage.rejected() == rejected

    stage.more_listeners = [taken]
    stage.publish()
    await eventually(lambda: stage.held() == [])
    await stage.settled()
    assert await stage.rejected() == rejected


@pytest.mark.parametrize("delta", [False, True], ids=["sotw", "delta"])
async def test_an_envoy_that_begins_with_a_poison_gets_all_the_others(tmp_path: Path, delta: bool) -> None:
    async with staged(tmp_path, delta=delta) as stage:
        stage.hosts |= {"h500": NAMES_NOBODY, "h900": NAMES_NOBODY}
        stage.clusters["c5"] = cluster("c5", poisoned=True)
        stage.publish()

        await stage.says("h0", "old", within=10.0)
        await stage.says("h999", "old", within=10.0)
        await stage.settled()
        assert stage.held() == [("c5", ""), ("routes", "h500"), ("routes", "h900")]
        assert await stage.get("h500") == "404"
        assert await stage.rejected() < 30
