"""Nothing that happens to us, or to Consul, costs a request."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.backends import Backend
from tests.support.ports import free_ports
from tests.support.site import Site
from tests.support.stack import GATEWAY, ROLES, Stack, direct, fetch, to_upstream, virtual_service
from tests.support.traffic import Traffic, undisturbed
from tests.support.waiting import eventually

pytestmark = pytest.mark.e2e

HELD = 10.0  # seconds we watch that nothing is dropped; it is held for 30


@asynccontextmanager
async def shop(stack: Stack) -> AsyncIterator[Site]:
    """A site that a service of Consul's and a static upstream answer for."""
    async with Backend("shop") as backend:
        await stack.register("shop", backend.port)
        await stack.status_is("Accepted", "Upstream", "shop")
        static = {"static": {"hosts": [{"addr": "127.0.0.1", "port": backend.port}]}}
        await stack.put("Upstream", "static-shop", static)
        site = Site(stack, "shop")
        await site.serve(to_upstream("/static", "static-shop"), to_upstream("/", "shop"))
        await site.reaches("/", "shop")
        await site.reaches("/static", "shop")
        yield site


@asynccontextmanager
async def lossless(site: Site) -> AsyncIterator[Traffic]:
    """Requests run all the while, by Consul's service and by the static upstream; none is lost."""
    port, saying = site.stack.http_port, ['"backend": "shop"']
    async with (
        undisturbed(port, site.domain, "/x", saying=saying) as traffic,
        undisturbed(port, site.domain, "/static/x", saying=saying),
    ):
        yield traffic


async def everything_works(stack: Stack, name: str) -> None:
    """Each of the three does its part: a new service becomes an Upstream, a route to it goes live."""
    async with Backend(name) as backend:
        await stack.register(name, backend.port)
        await stack.status_is("Accepted", "Upstream", name, within=30.0)
        site = Site(stack, name)
        await site.serve(to_upstream("/", name))
        await site.reaches("/", name)
        await site.says("Accepted")
        await stack.deregister(name, backend.port)
        await stack.delete("VirtualService", name)


@pytest.mark.parametrize("role", ROLES)
async def test_each_of_the_three_can_be_stopped_and_killed_alone(stack: Stack, role: str) -> None:
    async with shop(stack) as site, lossless(site) as traffic:
        before = await envoy_counts(stack)
        assert await stack.stop_process(role) == 0
        await traffic.flows()
        stack.start_role(role)
        await stack.ready(role)
        await traffic.flows()
        await stack.kill_process(role)
        await traffic.flows()
        stack.start_role(role)
        await stack.ready(role)
        await eventually(lambda: connected(stack))
        await traffic.flows()
        assert await envoy_counts(stack) == before
        await everything_works(stack, "after")


async def connected(stack: Stack) -> bool:
    """Whether Envoy has taken all that gloo has for it."""
    clients = (await stack.debug("gloo", "xds"))["clients"]
    states = [state for client in clients for state in client["types"].values()]
    return len(states) >= 4 and not any(state["pending"] for state in states)


async def envoy_counts(stack: Stack) -> dict[str, int]:
    """How often Envoy has added, changed or removed a cluster or listener, or drained one."""
    stats = json.loads(await stack.envoy("/stats?format=json&filter=cluster_manager|listener_manager"))
    words = (
        *("cluster_added", "cluster_modified", "cluster_removed", "listener_added", "listener_modified"),
        *("listener_removed", "total_listeners_draining"),
    )
    return {
        stat["name"]: stat["value"] for stat in stats["stats"] if str(stat.get("name", "")).endswith(words)
    }


async def test_a_change_made_while_nobody_ran_is_found_at_the_start(stack: Stack) -> None:
    async with shop(stack) as site, lossless(site) as traffic:
        for role in ROLES:
            assert await stack.stop_process(role) == 0
        await traffic.flows()
        new = virtual_service(direct("/", "made meanwhile"), domains=["meanwhile.example.com"])
        await stack.put("VirtualService", "meanwhile", new)
        for role in reversed(ROLES):
            stack.start_role(role)
        await stack.answers("/", host="meanwhile.example.com", saying="made meanwhile", within=30.0)


async def test_an_envoy_that_starts_anew_gets_everything(stack: Stack) -> None:
    async with shop(stack) as site:
        await stack.stop_process("envoy")
        assert (await site.get("/")).status == 0
        stack.start_envoy("envoy", stack.admin_port)
        await site.reaches("/", "shop")
        statuses = {(await site.get("/")).status for _ in range(20)}
        assert statuses == {200}


async def test_new_settings_come_in_force_while_requests_flow(stack: Stack) -> None:
    async with shop(stack) as site, lossless(site):
        broken = virtual_service(to_upstream("/", "nowhere"), domains=["broken.example.com"])
        await stack.put("VirtualService", "broken", broken)
        await stack.answers("/", 503, host="broken.example.com")
        policy: dict[str, Any] = {"replaceInvalidRoutes": True, "invalidRouteResponseCode": 418}
        policy["invalidRouteResponseBody"] = "soon"
        xds = {"xdsBindAddr": f"127.0.0.1:{stack.xds_port}"}

        stack.write_settings(gloo={**xds, "invalidConfigPolicy": policy})
        await stack.answers("/", 418, host="broken.example.com", saying="soon")
        stack.write_settings(
            gloo={**xds, "invalidConfigPolicy": {**policy, "replaceInvalidRoutes": "perhaps"}}
        )
        await eventually(lambda: "perhaps" in stack.processes["gloo"].output())
        assert (await stack.get("/", host="broken.example.com")).status == 418
        stack.write_settings(gloo=xds)
        await stack.answers("/", 503, host="broken.example.com")


async def test_a_durable_consul_may_crash_and_come_back(tmp_path: Path) -> None:
    async with Stack(tmp_path, durable=True) as stack, shop(stack) as site, lossless(site) as traffic:
        stored = await stack.raw("VirtualService", "shop")
        await stack.consul.kill()
        await eventually(lambda: trouble(stack, "gateway"))
        await traffic.flows()
        for role in ROLES:
            assert stack.processes[role].running
        await stack.consul.start()
        await everything_works(stack, "after")
        assert await stack.raw("VirtualService", "shop") == stored


async def trouble(stack: Stack, role: str) -> bool:
    """Whether *role* has noticed that Consul is away."""
    return "keeping the last view" in stack.processes[role].output()


async def held(stack: Stack, role: str) -> set[str]:
    """The kinds whose loss *role* does not believe yet."""
    watches = (await stack.debug(role, role))["watches"]
    return {kind for kind, watch in watches.items() if watch["held"]}


async def test_a_consul_that_lost_everything_is_not_believed_for_a_while(tmp_path: Path) -> None:
    """Consul in memory starts again empty; whoever owns the objects and services brings them back."""
    async with Stack(tmp_path) as stack, shop(stack) as site:
        virtual_host = await stack.raw("VirtualService", "shop")
        static = await stack.raw("Upstream", "static-shop")
        shop_port = next(iter(await stack.consul.call("GET", "/v1/catalog/service/shop")))["ServicePort"]
        assert virtual_host is not None
        assert static is not None

        async with lossless(site) as traffic:
            await stack.consul.restart()
            restarted = time.monotonic()
            await eventually(lambda: held(stack, "gloo"), until=lambda kinds: kinds == {"Proxy", "Upstream"})
            await eventually(lambda: held(stack, "gateway"), until=lambda kinds: "VirtualService" in kinds)
            await eventually(
                lambda: stack.debug("gloo", "gloo"), until=lambda page: page["endpoints"]["held_since"]
            )
            await traffic.flows()
            await asyncio.sleep(max(0.0, restarted + HELD - time.monotonic()))
            await traffic.flows()

            await stack.put("Gateway", "gateway-proxy", GATEWAY | {"bindPort": stack.http_port})
            await stack.put("VirtualService", "shop", virtual_host)
            await stack.put("Upstream", "static-shop", static)
            await stack.register("shop", shop_port)
            await everything_works(stack, "after")


async def test_without_consul_everybody_waits_and_says_so(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    stack.write_settings()
    try:
        for role in ROLES:
            stack.start_role(role)
        stack.start_envoy("envoy", stack.admin_port)
        for role in ROLES:
            unready = await eventually(
                lambda role=role: fetch(f"http://127.0.0.1:{stack.admins[role]}/readyz"),
                until=lambda answer: answer.status == 503 and "starting" not in answer.text,
            )
            assert "Consul" in unready.text
            healthy = await fetch(f"http://127.0.0.1:{stack.admins[role]}/healthz")
            assert healthy.status == 200
        for role in ROLES:
            await eventually(lambda role=role: "watch failed" in stack.processes[role].output())

        await stack.consul.start()
        await stack.put("Gateway", "gateway-proxy", GATEWAY | {"bindPort": stack.http_port})
        for role in ROLES:
            await stack.ready(role)
        await everything_works(stack, "first")
        for role in ROLES:
            assert await stack.stop_process(role) == 0
    finally:
        await stack.stop()


async def test_all_end_in_order_while_consul_is_away(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        await stack.consul.kill()
        for role in ROLES:
            assert await stack.stop_process(role) == 0


async def test_a_gloo_without_consul_serves_a_new_envoy_from_its_last_good_snapshot(
    stack: Stack, tmp_path: Path
) -> None:
    flags = ["--state-dir", str(tmp_path / "state")]
    async with shop(stack) as site:
        await stack.stop_process("gloo")
        stack.start_role("gloo", flags=flags)
        await stack.ready("gloo")
        await eventually(lambda: connected(stack))
        assert await stack.stop_process("gloo") == 0
        await stack.consul.kill()
        await stack.stop_process("envoy")

        stack.start_role("gloo", flags=flags)
        stack.start_envoy("envoy", stack.admin_port)

        await site.reaches("/", "shop")
        await site.reaches("/static", "shop")
        assert (await stack.debug("gloo", "gloo"))["last_good_since"]
        await stack.consul.start()  # it has forgotten everything; nobody takes that for an order
        await eventually(lambda: "Proxy is not in Consul" in stack.processes["gloo"].output(), within=30.0)
        await site.reaches("/", "shop")


HOSTS, ROUTES = 200, 11


def many_routes(host: int, edit: str = "") -> dict[str, Any]:
    domain = f"host-{host}.example.com"
    routes = [direct(f"/{route}/", f"{host} {route}{edit} {'x' * 60}") for route in range(ROUTES)]
    return virtual_service(*routes, domains=[domain])


async def test_thousands_of_routes_are_served_and_one_of_them_edited(stack: Stack) -> None:
    for host in range(HOSTS):
        await stack.put("VirtualService", f"host-{host}", many_routes(host))

    for host in (0, HOSTS // 2, HOSTS - 1):
        for route in (0, ROUTES - 1):
            said = f"{host} {route} x"
            await stack.answers(f"/{route}/", host=f"host-{host}.example.com", saying=said, within=30.0)
    await stack.status_is("Accepted", "Proxy", "gateway-proxy", within=30.0)
    proxy = await stack.raw("Proxy", "gateway-proxy")
    assert proxy is not None
    assert len(proxy) < 256 * 1024
    assert await stack.consul.call("GET", "/v1/kv/gloo/_chunks/?keys")
    for host in range(HOSTS):
        await stack.status_is("Accepted", "VirtualService", f"host-{host}", within=30.0)

    async with undisturbed(stack.http_port, "host-7.example.com", "/3/", saying=["7 3 x"]):
        before = (await stack.debug("gloo", "gloo"))["virtual_hosts_translated"]
        await stack.put("VirtualService", "host-5", many_routes(5, " edited"))
        await stack.answers("/3/", host="host-5.example.com", saying="5 3 edited", within=3.0)
        assert (await stack.debug("gloo", "gloo"))["virtual_hosts_translated"] == before + 1

        assert await stack.stop_process("gloo") == 0
        stack.start_role("gloo")
        await stack.ready("gloo")
        await stack.delete("VirtualService", "host-6")
        await stack.answers("/3/", 404, host="host-6.example.com")


async def test_another_gloo_takes_over_when_the_leader_is_killed(stack: Stack, tmp_path: Path) -> None:
    """Both serve, one writes statuses; with it gone the other one does."""
    (xds, admin) = free_ports(2)
    settings = tmp_path / "data" / "gloo-system" / "default.yaml"
    document = yaml.safe_load(settings.read_text())
    document["gloo"]["xdsBindAddr"] = f"127.0.0.1:{xds}"
    settings.with_name("second.yaml").write_text(yaml.safe_dump(document))
    stack.start_role("gloo", name="gloo-2", admin=admin, flags=["--name", "second"])

    async with shop(stack) as site, lossless(site):
        await eventually(
            lambda: fetch(f"http://127.0.0.1:{admin}/readyz"), until=lambda answer: answer.status == 200
        )
        page = json.loads((await fetch(f"http://127.0.0.1:{admin}/debug/gloo")).text)
        assert page["leading"] is False
        assert (await stack.debug("gloo", "gloo"))["leading"] is True

        await stack.kill_process("gloo")
        broken: dict[str, Any] = {"static": {"hosts": []}}
        await stack.put("Upstream", "broken", broken)

        await stack.status_is("Rejected", "Upstream", "broken", saying="at least one host", within=60.0)
