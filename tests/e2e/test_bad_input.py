"""A mistake costs only itself: each gets a clear status at once, and all other routes go on."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import yaml

from tests.support import traffic
from tests.support.stack import Stack, direct, key, to_upstream, virtual_service
from tests.support.traffic import Traffic
from tests.support.waiting import eventually

pytestmark = pytest.mark.e2e

SOON = 2.0  # seconds; one on a quiet machine


def undisturbed(stack: Stack, host: str = "good.example.com") -> AbstractAsyncContextManager[Traffic]:
    """Requests to a good route run all the while, and none of them may fail."""
    return traffic.undisturbed(stack.http_port, host, saying=["good"])


def route(**fields: Any) -> dict[str, Any]:
    return {**direct("/", "bad"), **fields}


MISTAKES = [
    pytest.param(
        route(options={"prefixRewrit": "/x"}),
        "virtualHost.routes[0].options.prefixRewrit: unknown field, did you mean prefixRewrite?",
        id="misspelt option",
    ),
    pytest.param(
        route(options={"csrf": {"additionalOrigins": [{}]}}),
        "virtualHost.routes[0].options.csrf.additionalOrigins[0]: no text to match",
        id="incomplete",
    ),
    pytest.param(
        route(options={"waf": {}}),
        "virtualHost.routes[0].options.waf: enterprise feature",
        id="enterprise only",
    ),
    pytest.param(
        route(matchers=[{"regex": "/(unclosed"}]),
        "virtualHost.routes[0].matchers[0].regex",
        id="broken regex",
    ),
    pytest.param(route(options={"timeout": "soon"}), "expected a duration such as 15s", id="wrong type"),
    pytest.param(
        {**route(), "redirectAction": {}},
        "directResponseAction and redirectAction exclude each other",
        id="two actions",
    ),
    pytest.param(route(matchers=[{"headers": [{"name": "x"}]}]), "path specifier", id="no path"),
]


async def test_a_mistake_in_a_route_is_told_with_its_path_and_costs_only_its_object(stack: Stack) -> None:
    await stack.put(
        "VirtualService", "good", virtual_service(direct("/", "good"), domains=["good.example.com"])
    )
    await stack.answers("/", host="good.example.com")
    async with undisturbed(stack):
        for mistake in MISTAKES:
            bad, says = mistake.values
            assert isinstance(bad, dict)
            assert isinstance(says, str)
            await stack.put("VirtualService", "bad", virtual_service(bad, domains=["bad.example.com"]))
            await stack.status_is("Rejected", "VirtualService", "bad", saying=says, within=SOON)
            await stack.delete("VirtualService", "bad")
        assert (await stack.status("VirtualService", "good"))["state"] == "Accepted"


async def test_a_bad_edit_is_reported_and_the_old_route_goes_on(stack: Stack) -> None:
    await stack.put("VirtualService", "default", virtual_service(direct("/", "good")))
    await stack.answers("/", host="good.example.com")
    async with undisturbed(stack):
        for bad in (route(options={"prefixRewrit": "/x"}), route(options={"waf": {}})):
            await stack.put("VirtualService", "default", virtual_service(bad))
            await stack.status_is("Rejected", "VirtualService", "default", within=SOON)
        for text in ("virtualHost: {domains: [", "- a list", b"\xff\x00\xfe garbage", ""):
            await stack.put("VirtualService", "default", text)
            await stack.put(
                "VirtualService", "other", virtual_service(direct("/", "x"), domains=["other.example.com"])
            )
            await stack.answers("/", host="other.example.com")
            await stack.delete("VirtualService", "other")
    await stack.put("VirtualService", "default", virtual_service(direct("/", "mended")))
    await stack.answers("/", saying="mended")
    await stack.status_is("Accepted", "VirtualService", "default")


async def test_a_missing_upstream_is_a_warning_and_mends_itself(stack: Stack) -> None:
    await stack.put(
        "VirtualService", "default", virtual_service(direct("/ok", "good"), to_upstream("/", "nowhere"))
    )

    await stack.status_is(
        "Warning", "VirtualService", "default", saying="gloo-system.nowhere } not found", within=SOON
    )
    assert (await stack.answers("/ok")).text == "good"
    assert (await stack.get("/")).status == 503
    here = {"static": {"hosts": [{"addr": "127.0.0.1", "port": stack.admin_port}]}}
    await stack.put("Upstream", "nowhere", here)
    await stack.answers("/server_info")
    await stack.status_is("Accepted", "VirtualService", "default")


async def test_a_shared_domain_is_told_to_both_and_the_first_keeps_serving(stack: Stack) -> None:
    await stack.put(
        "VirtualService",
        "a",
        virtual_service(direct("/", "good"), domains=["good.example.com", "a.example.com"]),
    )
    await stack.answers("/", host="good.example.com")
    async with undisturbed(stack):
        shared = virtual_service(direct("/", "thief"), domains=["good.example.com", "b.example.com"])
        await stack.put("VirtualService", "b", shared)
        await stack.status_is("Rejected", "VirtualService", "b", saying="good.example.com", within=SOON)


async def test_garbage_under_any_watched_key_is_logged_with_the_key(stack: Stack) -> None:
    await stack.put(
        "VirtualService", "good", virtual_service(direct("/", "good"), domains=["good.example.com"])
    )
    await stack.answers("/", host="good.example.com")
    async with undisturbed(stack):
        for kind, role in (
            ("Gateway", "gateway"),
            ("VirtualService", "gateway"),
            ("RouteTable", "gateway"),
            ("Upstream", "gloo"),
            ("UpstreamGroup", "gloo"),
            ("Proxy", "gloo"),
        ):
            await stack.put(kind, "garbage", b"\x00\x01\xfe\xff" * 100)
            await eventually(
                lambda role=role, kind=kind: key(kind, "garbage") in stack.processes[role].output(),
                within=5.0,
            )


async def test_a_broken_upstream_is_rejected_and_the_others_serve(stack: Stack) -> None:
    here = {"static": {"hosts": [{"addr": "127.0.0.1", "port": stack.admin_port}]}}
    await stack.put("Upstream", "here", here)
    await stack.put("VirtualService", "default", virtual_service(to_upstream("/", "here")))
    await stack.answers("/server_info")

    for bad, says in (
        ({"static": {"hosts": []}}, "static.hosts: needs at least one host"),
        ({"static": {"hosts": [{"addr": "127.0.0.1"}]}}, "static.hosts[0].port"),
        ({"kube": {"serviceName": "x"}}, "kube"),
        ({"statik": {}}, "did you mean static?"),
        ({}, "no upstream type"),
    ):
        await stack.put("Upstream", "bad", bad)
        await stack.status_is("Rejected", "Upstream", "bad", saying=says, within=SOON)
        assert (await stack.get("/server_info")).status == 200
    assert (await stack.status("Upstream", "here"))["state"] == "Accepted"


async def test_a_value_too_large_for_consul_is_refused_where_it_is_written(stack: Stack) -> None:
    await stack.put(
        "VirtualService", "good", virtual_service(direct("/", "good"), domains=["good.example.com"])
    )
    await stack.answers("/", host="good.example.com")
    large = virtual_service(*(direct(f"/{number}", "x" * 6000) for number in range(100)))
    document = yaml.safe_dump({"metadata": {"name": "large"}, **large})
    async with undisturbed(stack):
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "glooctl", "create", "-f", "-"],
            input=document,
            capture_output=True,
            text=True,
            env={**os.environ, "CONSUL_HTTP_ADDR": stack.consul.address},
            check=False,
        )
    assert done.returncode == 1
    assert "more than Consul takes in one value; move routes into RouteTables" in done.stderr


async def test_what_only_envoy_refuses_is_in_the_status_in_its_words(stack: Stack) -> None:
    """A listener on an address that this machine does not have: only Envoy can know."""
    await stack.put(
        "VirtualService", "good", virtual_service(direct("/", "good"), domains=["good.example.com"])
    )
    await stack.answers("/", host="good.example.com")
    elsewhere = {
        "bindAddress": "203.0.113.1",
        "bindPort": 8080,
        "httpGateway": {},
        "proxyNames": ["gateway-proxy"],
    }
    async with undisturbed(stack):
        await stack.put("Gateway", "elsewhere", elsewhere)

        status = await stack.status_is(
            "Rejected", "Proxy", "gateway-proxy", saying="refused listener", within=10.0
        )
        assert "203.0.113.1" in status["reason"]
        await stack.delete("Gateway", "elsewhere")
        await stack.status_is("Accepted", "Proxy", "gateway-proxy")
