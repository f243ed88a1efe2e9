"""Services of the settings that are asked about requests: they come and go, and nothing slips through."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.asked_services import AuthService, LimitService
from tests.support.backends import Backend
from tests.support.site import Site
from tests.support.stack import Stack, to_upstream
from tests.support.waiting import eventually

pytestmark = pytest.mark.e2e

Document = dict[str, Any]
LISTENERS = "/stats?filter=lds.update_success|listener_modified"


def asked(name: str) -> Document:
    return {"extauthzServerRef": {"name": name, "namespace": "gloo-system"}, "requestTimeout": "5s"}


def upstream(port: int, **fields: Any) -> Document:
    return {"static": {"hosts": [{"addr": "127.0.0.1", "port": port}]}, **fields}


@asynccontextmanager
async def intruders(site: Site, *paths: str) -> AsyncIterator[Counter[int]]:
    """Requests that may never pass, all the while; the statuses of the answers."""
    statuses, done = Counter[int](), asyncio.Event()

    async def knock() -> None:
        while not done.is_set():
            for path in paths:
                statuses[(await site.get(path, **{"x-please": "deny"})).status] += 1

    running = asyncio.create_task(knock())
    try:
        yield statuses
    finally:
        done.set()
        await running


async def test_nothing_passes_while_services_come_and_go(tmp_path: Path) -> None:
    settings = {"extauth": asked("auth"), "namedExtauth": {"second": asked("auth")}}
    async with Stack(tmp_path, settings=settings) as stack, Backend("pets") as pets, AuthService() as auth:
        await stack.put("Upstream", "pets", upstream(pets.port))
        site = Site(stack, "guarded")
        await site.serve(
            to_upstream("/named", "pets", extauth={"customAuth": {"name": "second"}}),
            to_upstream("/", "pets", extauth={"customAuth": {}}),
        )

        async def answered(status: int) -> None:
            for path in ("/", "/named"):
                await eventually(lambda path=path: site.get(path), until=lambda a: a.status == status)

        await answered(403)
        missing = "extauthzServerRef: *v1.Upstream { gloo-system.auth } not found"
        await stack.status_is("Warning", "Gateway", "gateway-proxy", saying=missing)
        async with intruders(site, "/", "/named") as statuses:
            await stack.put("Upstream", "auth", upstream(auth.port, useHttp2=True))
            await answered(200)
            await stack.status_is("Accepted", "Gateway", "gateway-proxy")

            without = {name: stack.settings.pop(name) for name in settings}
            stack.write_settings()
            await answered(403)
            await site.says("Warning", saying="no service to ask (settings.extauth), so requests are refused")

            stack.write_settings(**without)
            await answered(200)
            await stack.delete("Upstream", "auth")
            await answered(403)

        assert statuses.keys() == {401, 403}


async def test_routes_are_guarded_and_limited_without_touching_a_listener(tmp_path: Path) -> None:
    reference = {"name": "limits", "namespace": "gloo-system"}
    settings = {
        "extauth": asked("auth"),
        "ratelimitServer": {"ratelimitServerRef": reference, "requestTimeout": "5s"},
    }
    by_user = {"rateLimits": [{"actions": [{"requestHeaders": {"headerName": "x-a", "descriptorKey": "a"}}]}]}
    async with (
        Stack(tmp_path, settings=settings) as stack,
        Backend("pets") as pets,
        AuthService() as auth,
        LimitService() as limits,
    ):
        await stack.put("Upstream", "pets", upstream(pets.port))
        await stack.put("Upstream", "auth", upstream(auth.port, useHttp2=True))
        await stack.put("Upstream", "limits", upstream(limits.port, useHttp2=True))
        site = Site(stack, "guarded")
        await site.serve(to_upstream("/", "pets"))
        assert (await site.get("/", **{"x-please": "deny", "x-a": "over"})).status == 200
        before = await stack.envoy(LISTENERS)

        for options, please, status in (
            ({"extauth": {"customAuth": {}}}, "deny", 401),
            ({"extauth": {"customAuth": {}}}, "pass", 200),
            ({"ratelimit": by_user}, "deny", 429),
            ({"extauth": {"customAuth": {}}, "ratelimitEarly": by_user}, "deny", 429),
            ({"extauth": {"customAuth": {}}, "ratelimit": by_user}, "deny", 401),
            ({"extauth": {"customAuth": {}}, "ratelimit": by_user}, "pass", 429),
            ({"extauth": {"disable": True}}, "deny", 200),
        ):
            await site.serve(to_upstream("/", "pets", **options))

            answer = await site.get("/", **{"x-please": please, "x-a": "over"})
            assert answer.status == status, options
        await site.says("Accepted")
        assert await stack.envoy(LISTENERS) == before
