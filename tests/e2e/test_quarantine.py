"""What only Envoy refuses costs its object, which keeps its last good version, and nobody else."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.backends import Backend
from tests.support.certificates import Authority, server_context
from tests.support.stack import GATEWAY, Answer, Stack, direct, to_upstream, virtual_service
from tests.support.traffic import undisturbed
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

MANY = 1000
SOON = 1.0  # seconds
BIG_REGEX = "/(" + "|".join(f"alpha{i}beta" for i in range(30)) + ")"
STRICT = {"envoy.features.fail_on_any_deprecated_feature": True}
"""An Envoy that refuses large regular expressions, because they need a deprecated field. We cannot know."""


def host(number: int) -> str:
    return f"h{number}.example.com"


def service(number: int, content: str, **route: Any) -> dict[str, Any]:
    return virtual_service({**direct("/", content), **route}, domains=[host(number)])


class Poisoned:
    """A thousand VirtualServices behind a strict Envoy, and gloo with a state directory."""

    def __init__(self, stack: Stack, state: Path) -> None:
        self.stack = stack
        self._state = state

    async def fill(self) -> None:
        await self.restart()
        for first in range(0, MANY, 50):
            numbers = range(first, first + 50)
            await asyncio.gather(*(self.write(number, "old") for number in numbers))
        await self.says(MANY - 1, "old", within=60.0)

    async def restart(self) -> None:
        await self.stack.stop_process("gloo")
        self.stack.start_role("gloo", flags=["--state-dir", str(self._state)])
        await self.stack.ready("gloo")

    async def write(self, number: int, content: str, **route: Any) -> None:
        await self.stack.put("VirtualService", f"vs-{number}", service(number, content, **route))

    async def poison(self, number: int) -> None:
        await self.write(number, "bad", matchers=[{"regex": BIG_REGEX}])

    async def says(self, number: int, content: str, within: float = 10.0) -> None:
        await self.stack.answers("/", host=host(number), saying=content, within=within)

    async def edit(self, number: int, content: str) -> float:
        """Change a VirtualService; the seconds until Envoy serves it."""
        began = time.perf_counter()
        await self.write(number, content)
        await self.says(number, content)
        return time.perf_counter() - began

    async def rejected(self) -> int:
        """How often Envoy has refused an update so far."""
        stats = json.loads(await self.stack.envoy("/stats?format=json&filter=update_rejected"))["stats"]
        return sum(stat.get("value", 0) for stat in stats)


@pytest.fixture
async def poisoned(tmp_path: Path) -> AsyncIterator[Poisoned]:
    async with Stack(tmp_path, runtime=STRICT) as stack:
        made = Poisoned(stack, tmp_path / "state")
        await made.fill()
        yield made


async def test_a_poisoned_virtual_service_among_a_thousand_costs_only_itself(poisoned: Poisoned) -> None:
    stack = poisoned.stack
    async with undisturbed(stack.http_port, host(3), saying=["old"]):
        await poisoned.poison(500)
        assert await poisoned.edit(7, "with the poison") < SOON

        status = await stack.status_is("Rejected", "VirtualService", "vs-500", saying="deprecated option")
        assert "refused virtual host gloo-system_vs-500" in status["reason"]
        assert "virtualHost.routes[0]" in status["reason"]
        assert (await stack.get("/", host(500))).text == "old"
        rejected = await poisoned.rejected()
        assert rejected <= 3

        took = [await poisoned.edit(number, "edited") for number in (1, 2, 499, 501, 999)]
        assert max(took) < SOON, took
        await stack.status_is("Accepted", "VirtualService", "vs-7")
        await stack.status_is("Accepted", "VirtualService", "vs-501")

        await poisoned.restart()
        await poisoned.edit(8, "after the restart")
        assert (await stack.get("/", host(500))).text == "old"
        await stack.status_is("Rejected", "VirtualService", "vs-500", saying="deprecated option")
        assert await poisoned.rejected() == rejected

        await poisoned.write(500, "mended")
        await poisoned.says(500, "mended")
        await stack.status_is("Accepted", "VirtualService", "vs-500")
        await stack.status_is("Accepted", "Proxy", "gateway-proxy")
        assert await poisoned.rejected() == rejected


async def test_a_poisoned_route_table_among_a_thousand_virtual_services_is_told_so(
    poisoned: Poisoned,
) -> None:
    """The VirtualService that delegates to it keeps its last good version, and is not blamed for it."""
    stack = poisoned.stack
    delegate = {"ref": {"name": "table", "namespace": "gloo-system"}}
    routes = [direct("/own", "own"), {"matchers": [{"prefix": "/"}], "delegateAction": delegate}]
    await stack.put("RouteTable", "table", {"routes": [direct("/a", "good")]})
    await stack.put("VirtualService", "vs-500", virtual_service(*routes, domains=[host(500)]))
    await stack.answers("/a", host=host(500), saying="good")

    async with undisturbed(stack.http_port, host(500), "/a", saying=["good"]):
        bad = {**direct("/b", "bad"), "matchers": [{"regex": BIG_REGEX}]}
        await stack.put("RouteTable", "table", {"routes": [direct("/a", "new"), bad]})
        assert await poisoned.edit(7, "with the poison") < SOON

        status = await stack.status_is("Rejected", "RouteTable", "table", saying="deprecated option")
        assert "refused virtual host gloo-system_vs-500" in status["reason"]
        assert "served in its last good version" in status["reason"]
        took = [await poisoned.edit(number, "edited") for number in (1, 499, 501, 999)]
        assert max(took) < SOON, took
        told = await stack.status_is("Warning", "VirtualService", "vs-500", saying="deprecated option")
        assert told["reason"].startswith(
            "warning: virtualHost.routes[1]: RouteTable gloo-system.table: Envoy"
        )
        await stack.status_is("Accepted", "VirtualService", "vs-501")
        assert await poisoned.rejected() <= 3

    await stack.put("RouteTable", "table", {"routes": [direct("/a", "mended")]})
    await stack.answers("/a", host=host(500), saying="mended")
    await stack.status_is("Accepted", "RouteTable", "table")
    await stack.status_is("Accepted", "VirtualService", "vs-500")


async def test_a_poisoned_upstream_among_a_thousand_objects_is_told_so(
    poisoned: Poisoned, tmp_path: Path
) -> None:
    """Its certificates are in files that only Envoy can look for; one is missing."""
    stack, authority = poisoned.stack, Authority(tmp_path / "authority")
    pets = server_context(authority.issue("pets", "IP:127.0.0.1"))
    async with Backend("pets", tls=pets) as backend, Backend("other") as other:

        async def upstream(root: Path, port: int = backend.port) -> None:
            hosts = [{"addr": "127.0.0.1", "port": port}]
            files = {"sslFiles": {"rootCa": str(root)}}
            await stack.put("Upstream", "pets", {"static": {"hosts": hosts}, "sslConfig": files})

        await upstream(authority.cert)
        await stack.register("other", other.port)
        await stack.put(
            "VirtualService", "vs-500", virtual_service(to_upstream("/", "pets"), domains=[host(500)])
        )
        await stack.put(
            "VirtualService", "vs-501", virtual_service(to_upstream("/", "other"), domains=[host(501)])
        )
        await poisoned.says(500, '"pets"')
        await poisoned.says(501, '"other"')

        async with undisturbed(stack.http_port, host(500), saying=['"pets"']):
            await upstream(tmp_path / "missing.pem")
            assert await poisoned.edit(7, "with the poison") < SOON

            status = await stack.status_is("Rejected", "Upstream", "pets", saying="missing.pem")
            assert "refused cluster pets_gloo-system, served in its last good version" in status["reason"]
            took = [await poisoned.edit(number, "edited") for number in (1, 499, 502, 999)]
            assert max(took) < SOON, took
            await stack.register("another", other.port)
            await stack.status_is("Accepted", "Upstream", "another")
            for number in (500, 501):
                await stack.status_is("Accepted", "VirtualService", f"vs-{number}")

            renewed = authority.cert.with_name("renewed.pem")
            renewed.write_bytes(authority.cert.read_bytes())
            await upstream(renewed)
            await stack.status_is("Accepted", "Upstream", "pets")
            await stack.status_is("Accepted", "Proxy", "gateway-proxy")
        await eventually(
            lambda: stack.envoy("/clusters"), until=lambda clusters: "trial:" not in clusters, within=30.0
        )


async def test_a_gateway_only_envoy_refuses_is_told_so_and_heals(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        await stack.put("VirtualService", "good", virtual_service(direct("/", "good")))
        await stack.answers("/", saying="good")
        async with undisturbed(stack.http_port, "example.com", saying=["good"]):
            elsewhere = GATEWAY | {"bindPort": 8080}
            await stack.put("Gateway", "elsewhere", elsewhere | {"bindAddress": "203.0.113.1"})
            words = "not served: Error adding/updating listener"
            await stack.status_is("Rejected", "Gateway", "elsewhere", saying=words)
            assert (await stack.status("Gateway", "gateway-proxy")).get("state") == "Accepted"

            await stack.put("Gateway", "elsewhere", elsewhere | {"bindPort": stack.xds_port + 1})
            await stack.status_is("Accepted", "Gateway", "elsewhere")
            await stack.status_is("Accepted", "Proxy", "gateway-proxy")


async def test_a_broken_virtual_service_outlives_a_restart_of_gloo(tmp_path: Path) -> None:
    """gloo finds fault with the regex, so it would serve what is left of the VirtualService."""
    async with Stack(tmp_path) as stack:
        poisoned = Poisoned(stack, tmp_path / "state")
        await poisoned.restart()
        await poisoned.write(1, "old")
        await poisoned.says(1, "old")
        await poisoned.write(1, "bad", matchers=[{"regex": "/(unclosed"}])
        await stack.status_is("Rejected", "VirtualService", "vs-1", saying="matchers[0].regex")

        async with undisturbed(stack.http_port, host(1), saying=["old"]):
            await poisoned.restart()
            assert await poisoned.edit(2, "new") < 10.0
            await stack.status_is("Rejected", "VirtualService", "vs-1", saying="matchers[0].regex")
        await poisoned.edit(1, "mended")


async def test_an_invalid_route_is_answered_as_the_settings_say(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        policy = {
            "replaceInvalidRoutes": True,
            "invalidRouteResponseCode": 418,
            "invalidRouteResponseBody": "this route is being mended",
        }
        address = f"127.0.0.1:{stack.xds_port}"
        stack.write_settings(gloo={"xdsBindAddr": address, "invalidConfigPolicy": policy})
        await stack.put(
            "VirtualService",
            "default",
            virtual_service(
                direct("/good", "good"),
                {**direct("/unsupported", "never"), "options": {"waf": {}}},
                to_upstream("/", "nowhere"),
            ),
        )

        for path in ("/", "/unsupported"):
            answer = await stack.answers(path, 418)
            assert answer.text == "this route is being mended"
        assert (await stack.get("/good")).text == "good"
        await stack.status_is("Rejected", "VirtualService", "default", saying="waf")

        # Another answer holds for the connections that Envoy has open, too.
        for code in (451, 410):
            stack.write_settings(
                gloo={
                    "xdsBindAddr": address,
                    "invalidConfigPolicy": policy | {"invalidRouteResponseCode": code},
                }
            )
            await stack.answers("/", code, within=5.0)

        here = {"static": {"hosts": [{"addr": "127.0.0.1", "port": stack.admin_port}]}}
        await stack.put("Upstream", "nowhere", here)
        answer = await eventually(lambda: stack.get("/server_info"), until=_ok)
        assert "version" in answer.text


def _ok(answer: Answer) -> bool:
    return answer.status == 200
