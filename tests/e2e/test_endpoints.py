"""Which instances get requests: those that Consul holds for healthy; and no request is lost over it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from tests.support.backends import Backend
from tests.support.site import Site
from tests.support.stack import Stack, to_upstream
from tests.support.traffic import undisturbed
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

SOON = 3.0  # seconds; a quiet machine needs a tenth of one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """One stack for all stories here: each has a service and a domain of its own."""
    async with Stack(tmp_path_factory.mktemp("endpoints")) as running:
        yield running


class Service:
    """A service with instances in this process, and a site that routes to it."""

    def __init__(self, stack: Stack, name: str) -> None:
        self.stack = stack
        self.name = name
        self.site = Site(stack, name)
        self._running = AsyncExitStack()

    async def start(self, name: str, **options: Any) -> Backend:
        """An instance that listens, without Consul knowing of it."""
        return await self._running.enter_async_context(Backend(name, **options))

    async def add(self, name: str, **fields: Any) -> Backend:
        """An instance that listens and is registered."""
        backend = await self.start(name)
        await self.register(backend, **fields)
        return backend

    async def register(self, backend: Backend, **fields: Any) -> None:
        await self.stack.register(self.name, backend.port, ID=f"{self.name}-{backend.name}", **fields)

    async def deregister(self, name: str) -> None:
        await self._agent(f"service/deregister/{self.name}-{name}")

    async def check(self, name: str, state: str) -> None:
        """Let the instance's TTL check pass, warn or fail."""
        await self._agent(f"check/{state}/service:{self.name}-{name}")

    async def maintenance(self, name: str, on: bool) -> None:
        await self._agent(f"service/maintenance/{self.name}-{name}?enable={str(on).lower()}")

    async def answered_by(self, *names: str, within: float = SOON) -> None:
        """Wait until just these instances answer; nobody, when none is named."""
        wanted = set(names) or {"503"}
        await eventually(self.round, until=lambda found: set(found) == wanted, within=within)

    async def round(self, requests: int = 12) -> Counter[str]:
        """Who answered how many of *requests*; the status, where nobody did."""
        answers = [await self.site.get("/") for _ in range(requests)]
        return Counter(answer.headers.get("x-backend", str(answer.status)) for answer in answers)

    async def hosts(self) -> list[dict[str, Any]]:
        """The instances as Envoy has them."""
        clusters = json.loads(await self.stack.envoy("/clusters?format=json"))
        name = f"{self.name}_gloo-system"
        (found,) = (each for each in clusters["cluster_statuses"] if each["name"] == name)
        return list(found.get("host_statuses", ()))

    async def stop(self) -> None:
        for service in await self.stack.consul.call("GET", "/v1/agent/services"):
            if service.startswith(f"{self.name}-"):
                await self._agent(f"service/deregister/{service}")
        await self._running.aclose()

    async def _agent(self, path: str) -> None:
        await self.stack.consul.call("PUT", f"/v1/agent/{path}")


TTL = {"Check": {"TTL": "600s", "Status": "passing"}}


@pytest_asyncio.fixture(loop_scope="module")
async def service(stack: Stack, request: pytest.FixtureRequest) -> AsyncIterator[Service]:
    """A service named after the story, with one instance `a` that answers already."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[-40:].strip("-")
    service = Service(stack, name)
    try:
        await service.add("a", **TTL)
        await stack.status_is("Accepted", "Upstream", name)
        await service.site.serve(to_upstream("/", name))
        await service.answered_by("a")
        yield service
    finally:
        await service.stop()


@asynccontextmanager
async def lossless(service: Service, *names: str) -> AsyncIterator[None]:
    """Requests run all the while; every one is answered by one of the instances named."""
    saying = [f'"backend": "{name}"' for name in names]
    async with undisturbed(service.stack.http_port, service.site.domain, saying=saying):
        yield


async def test_instances_come_and_go_and_no_request_is_lost(service: Service) -> None:
    async with lossless(service, "a", "b", "c"):
        await service.add("b")
        await service.answered_by("a", "b")
        await service.add("c")
        await service.answered_by("a", "b", "c")
        await service.deregister("a")
        await service.answered_by("b", "c")
        await service.deregister("c")
        await service.answered_by("b")


async def test_a_critical_check_takes_an_instance_out_and_passing_brings_it_back(service: Service) -> None:
    await service.add("b", **TTL)
    async with lossless(service, "a", "b"):
        await service.answered_by("a", "b")
        await service.check("b", "fail")
        await service.answered_by("a")
        await service.check("b", "pass")
        await service.answered_by("a", "b")
        await service.check("b", "warn")
        await service.answered_by("a")


async def test_an_instance_registered_critical_gets_nothing_before_it_passes(service: Service) -> None:
    async with lossless(service, "a", "b"):
        critical = {"Check": {"TTL": "600s", "Status": "critical"}}
        backend = await service.add("b", **critical)
        await service.stack.register(f"{service.name}-after", backend.port)
        await service.stack.status_is("Accepted", "Upstream", f"{service.name}-after")
        assert backend.asked == 0
        await service.check("b", "pass")
        await service.answered_by("a", "b")


async def test_maintenance_drains_an_instance(service: Service) -> None:
    backend = await service.add("b")
    await service.answered_by("a", "b")
    async with lossless(service, "a", "b"):
        asked, backend.delay = backend.asked, 1.0
        await eventually(lambda: backend.asked > asked)
        await service.maintenance("b", True)  # what is under way will still be answered
        backend.delay = 0.0
        await service.answered_by("a")
        await service.maintenance("b", False)
        await service.answered_by("a", "b")


async def test_a_node_in_maintenance_takes_all_its_instances_out(service: Service) -> None:
    await service.stack.consul.call("PUT", "/v1/agent/maintenance?enable=true")
    try:
        await service.answered_by()
    finally:
        await service.stack.consul.call("PUT", "/v1/agent/maintenance?enable=false")
    await service.answered_by("a")


async def test_weights_decide_the_share_and_can_be_changed(service: Service) -> None:
    b = await service.add("b", Weights={"Passing": 9, "Warning": 1})
    await service.answered_by("a", "b")
    assert 85 <= (await service.round(100))["b"] <= 95
    async with lossless(service, "a", "b"):
        await service.register(b, Weights={"Passing": 1, "Warning": 1})
        await eventually(
            service.hosts, until=lambda hosts: {host["weight"] for host in hosts} == {1}, within=SOON
        )
    assert 45 <= (await service.round(100))["b"] <= 55


async def test_a_port_move_is_followed(service: Service) -> None:
    """The old instance goes on listening for a while, as one does that is replaced in order."""
    moved = await service.start("moved")
    async with lossless(service, "a", "moved"):
        await service.stack.register(service.name, moved.port, ID=f"{service.name}-a")
        await service.answered_by("moved")


async def test_a_service_without_instances_answers_503_and_recovers(service: Service) -> None:
    b = await service.start("b")
    await service.check("a", "fail")
    await service.answered_by()
    await service.register(b)
    await service.answered_by("b")
    await service.check("a", "pass")
    await service.answered_by("a", "b")


async def test_an_address_that_is_a_host_name_is_resolved(service: Service) -> None:
    named = await service.start("named", host="localhost")
    await service.register(named, Address="localhost")
    await service.answered_by("a", "named")
    addresses = {host["address"]["socket_address"]["address"] for host in await service.hosts()}
    assert addresses <= {"127.0.0.1", "::1"}
    assert (await service.stack.debug("gloo", "gloo"))["endpoints"]["hosts"].keys() == {"localhost"}

    unknown = await service.start("unknown")
    async with lossless(service, "a", "named"):
        await service.register(unknown, Address="no-such-name.invalid")
        await eventually(
            lambda: service.stack.debug("gloo", "gloo"),
            until=lambda page: "no-such-name.invalid" in page["endpoints"]["unresolved"],
        )
        await service.answered_by("a", "named")


async def test_an_edited_upstream_keeps_its_endpoints(service: Service) -> None:
    upstream = {"consul": {"serviceName": service.name}}
    await service.stack.put("Upstream", f"{service.name}-mine", upstream)
    await service.stack.status_is("Accepted", "Upstream", f"{service.name}-mine")
    await service.site.serve(to_upstream("/", f"{service.name}-mine"))
    async with lossless(service, "a"):
        for seconds in (1, 2, 3, 4, 5):
            edited = {**upstream, "connectionConfig": {"connectTimeout": f"{seconds}s"}}
            await service.stack.put("Upstream", f"{service.name}-mine", edited)
            await eventually(
                lambda: connect_timeout(service.stack, f"{service.name}-mine_gloo-system"),
                until=lambda found, seconds=seconds: found == f"{seconds}s",
            )
        limits = {**upstream, "circuitBreakers": {"maxConnections": 5}}
        await service.stack.put("Upstream", f"{service.name}-mine", limits)
        await eventually(
            lambda: connect_timeout(service.stack, f"{service.name}-mine_gloo-system"),
            until=lambda found: found == "5s",
        )


async def connect_timeout(stack: Stack, cluster: str) -> str:
    dump = json.loads(
        await stack.envoy(f"/config_dump?resource=dynamic_active_clusters&name_regex={cluster}")
    )
    (found,) = dump["configs"]
    return str(found["cluster"]["connect_timeout"])


async def test_a_service_that_comes_back_is_routed_to_again(service: Service) -> None:
    await service.deregister("a")
    gone = f"gloo-system.{service.name} }} not found"
    await service.site.says("Warning", gone)
    await service.answered_by(within=10.0)  # the cluster itself goes after a grace of some seconds

    await service.add("again")

    await service.answered_by("again")
    await service.site.says("Accepted")
