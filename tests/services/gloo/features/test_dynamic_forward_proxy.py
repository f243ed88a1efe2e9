"""Requests to whatever host they ask for, through a real Envoy and a DNS server of our own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.backends import Backend
from tests.support.certificates import Authority, server_context
from tests.support.dns import Names, answering
from tests.support.envoy import Envoy, running_envoy
from tests.support.golden import static_resources, translate_world
from tests.support.ports import free_ports
from tests.support.waiting import eventually

TYPES = "type.googleapis.com/envoy.extensions"
ROUTES = [
    ("/fixed", {"hostRewrite": "fixed.test:{red}"}),
    ("/named", {"autoHostRewriteHeader": "x-to"}),
    ("/", {}),
]


@dataclass(slots=True)
class Gateway:
    """A running Envoy; its listeners forward in different ways."""

    envoy: Envoy
    ports: Mapping[str, int]
    names: Names
    backends: Mapping[str, Backend]

    async def ask(self, listener: str, host: str, path: str = "/", **headers: str) -> tuple[int, Any]:
        given = {"Host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
        status, text = await self.envoy.get(self.ports[listener], path, given)
        return status, json.loads(text) if text.startswith("{") else text

    async def answers(self, listener: str, host: str, path: str = "/", **headers: str) -> tuple[str, str]:
        """Which backend was asked, and by which host."""
        status, seen = await self.ask(listener, host, path, **headers)
        assert status == 200, seen
        return seen["backend"], seen["host"]


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with AsyncExitStack() as running:
        authority = await asyncio.to_thread(Authority, tmp_path / "tls")
        pair = await asyncio.to_thread(authority.issue, "secure", "DNS:secure.test")
        names = await running.enter_async_context(answering(unknown={"nowhere.test"}))
        backends = {
            name: await running.enter_async_context(Backend(name, tls=context))
            for name, context in {"red": None, "blue": None, "secure": server_context(pair)}.items()
        }
        resolver = {"socketAddress": {"address": "127.0.0.1", "portValue": names.port}}
        cache = {"caresDns": {"resolvers": [resolver]}, "dnsLookupFamily": "V4_ONLY"}
        red = backends["red"].port
        first = {"address": "first.test", "portValue": red}
        listeners: dict[str, dict[str, Any]] = {
            "plain": {"dnsCacheConfig": cache},
            "early": {"dnsCacheConfig": {**cache, "preresolveHostnames": [first]}},
            "small": {"dnsCacheConfig": {**cache, "maxHosts": 1}},
            "saving": {"dnsCacheConfig": cache, "saveUpstreamAddress": True},
            "forgetting": {"dnsCacheConfig": cache},
            "checked": {
                "dnsCacheConfig": cache,
                "sslConfig": {"sslFiles": {"rootCa": str(authority.cert)}},
            },
            "unchecked": {"dnsCacheConfig": cache, "sslConfig": {}},
        }
        admin, *ports = free_ports(1 + len(listeners))
        found = dict(zip(listeners, ports, strict=True))
        proxy = {"listeners": [listening(name, found[name], given, red) for name, given in listeners.items()]}
        world, reports = translate_world({"proxy": proxy})
        assert all(report.clean for report in reports.values()), reports
        resources = static_resources({"": world}, port=1)
        for listener in resources["listeners"]:
            listener["address"]["socketAddress"]["portValue"] = found[listener["name"]]
        bootstrap = {
            "node": {"id": "envoy", "cluster": "gateway"},
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
            "static_resources": resources,
        }
        envoy = await running.enter_async_context(running_envoy(tmp_path, bootstrap))
        yield Gateway(envoy, found, names, backends)


def refusing_this_machine() -> dict[str, Any]:
    """A filter that looks at the address which was found."""
    address = {
        "@type": f"{TYPES}.rbac.matchers.upstream_ip_port.v3.UpstreamIpPortMatcher",
        "upstreamIp": {"addressPrefix": "127.0.0.0", "prefixLen": 8},
    }
    looking = {"matcher": {"name": "envoy.rbac.matchers.upstream.upstream_ip_port", "typedConfig": address}}
    policy = {"permissions": [looking], "principals": [{"any": True}]}
    config = {
        "@type": f"{TYPES}.filters.http.rbac.v3.RBAC",
        "rules": {"action": "DENY", "policies": {"internal": policy}},
    }
    stage = {"stage": "RouteStage", "predicate": "After"}
    return {"name": "no-internal-addresses", "filterStage": stage, "config": config}


def listening(name: str, port: int, given: Mapping[str, Any], red: int) -> dict[str, Any]:
    routes = [
        {
            "matchers": [{"prefix": prefix}],
            "routeAction": {
                "dynamicForwardProxy": {key: value.format(red=red) for key, value in action.items()}
            },
        }
        for prefix, action in ROUTES
    ]
    return {
        "name": name,
        "bindAddress": "127.0.0.1",
        "bindPort": port,
        "httpListener": {
            "virtualHosts": [{"name": "all", "domains": ["*"], "routes": routes}],
            "options": {"dynamicForwardProxy": dict(given)},
            "customHttpFilters": [refusing_this_machine()] if name in ("saving", "forgetting") else [],
        },
    }


async def test_requests_go_where_they_ask_to(gateway: Gateway) -> None:
    red, blue = (f"{name}.test:{gateway.backends[name].port}" for name in ("red", "blue"))

    assert await gateway.answers("plain", red) == ("red", red)
    assert await gateway.answers("plain", blue) == ("blue", blue)
    fixed = f"fixed.test:{gateway.backends['red'].port}"
    assert await gateway.answers("plain", "any.test", "/fixed") == ("red", fixed)
    assert await gateway.answers("plain", "any.test", "/named", x_to=blue) == ("blue", blue)
    assert (await gateway.ask("plain", "nowhere.test"))[0] == 503
    assert gateway.names.asked["red.test"] == 1  # and remembered
    assert gateway.names.asked["any.test"] == 0


async def test_hosts_are_looked_up_early_and_up_to_a_number(gateway: Gateway) -> None:
    await eventually(lambda: gateway.names.asked["first.test"] > 0)
    red, blue = (f"{name}.test:{gateway.backends[name].port}" for name in ("red", "blue"))

    assert await gateway.answers("small", red) == ("red", red)
    assert (await gateway.ask("small", blue))[0] == 503
    assert await gateway.answers("small", red) == ("red", red)


async def test_hosts_are_spoken_to_by_tls_under_their_own_names(gateway: Gateway) -> None:
    port = gateway.backends["secure"].port

    assert await gateway.answers("checked", f"secure.test:{port}") == ("secure", f"secure.test:{port}")
    assert (await gateway.ask("checked", f"other.test:{port}"))[0] == 503
    assert await gateway.answers("unchecked", f"other.test:{port}") == ("secure", f"other.test:{port}")


async def test_other_filters_can_look_at_the_address_that_was_found(gateway: Gateway) -> None:
    red = f"red.test:{gateway.backends['red'].port}"

    assert (await gateway.ask("saving", red))[0] == 403
    assert await gateway.answers("forgetting", red) == ("red", red)
