"""JSON to gRPC with descriptors from an Artifact, and requests to any host, through the whole system."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession, TCPConnector

from tests.support.backends import Backend
from tests.support.bookstore import BOOKSTORE, Bookstore, base64_of, bookstore, serving
from tests.support.site import Site
from tests.support.stack import GATEWAY, Stack, direct, to_upstream
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

TRANSCODER = {
    "protoDescriptorConfigMap": {"configMapRef": {"name": "books", "namespace": "gloo-system"}},
    "services": [BOOKSTORE],
    "matchIncomingRequestRoute": True,
}
ARTIFACT = {"data": {"books.pb": base64_of(bookstore())}}
EDITS = 40
PAUSE = 0.004  # seconds
V4_ONLY = {"dnsLookupFamily": "V4_ONLY"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with Stack(tmp_path_factory.mktemp("grpc")) as running:
        yield running


@pytest.fixture
def site(stack: Stack, request: pytest.FixtureRequest) -> Site:
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())
    return Site(stack, words[-60:].strip("-"))


async def watched(stack: Stack) -> set[str]:
    return set((await stack.debug("gloo", "gloo"))["watches"])


def books(port: int) -> dict[str, Any]:
    spec = {"serviceSpec": {"grpcJsonTranscoder": TRANSCODER}}
    return {"useHttp2": True, "static": {"hosts": [{"addr": "127.0.0.1", "port": port}], **spec}}


async def test_an_artifact_is_read_when_something_refers_to_it(stack: Stack, site: Site) -> None:
    await stack.put("Artifact", "books", "no object [")
    assert "Artifact" not in await watched(stack)
    async with serving(Bookstore("red")) as port:
        await stack.put("Upstream", "books", books(port))
        await stack.status_is(
            "Rejected", "Upstream", "books", saying="Artifact gloo-system.books: cannot be read"
        )
        assert "Artifact" in await watched(stack)
        await stack.delete("Artifact", "books")
        await stack.status_is(
            "Rejected", "Upstream", "books", saying="configMapRef: Artifact gloo-system.books: not"
        )

        await stack.put("Artifact", "books", ARTIFACT)
        await stack.status_is("Accepted", "Upstream", "books")
        await site.serve(to_upstream("/v1/", "books"))
        await site.says("Accepted")
        answer = await site.get("/v1/books/7?main_title=x")
        assert json.loads(answer.text) == {"id": 7, "mainTitle": "GetBook of red: x"}

        await stack.put("Artifact", "books", {"data": {"books.pb": "no base64!"}})
        await site.says(
            "Rejected", "routes[1].routeAction.single.upstream: Upstream gloo-system.books: static."
        )
        assert (await site.get("/v1/books/7")).status == 200
        raw = bookstore().replace(b"/v1/books", b"/v1/novel")
        await stack.put("Artifact", "books", {"data": {"books.pb": base64_of(raw)}})
        await eventually(lambda: site.get("/v1/novel/7"), until=lambda answer: answer.status == 200)
        await site.says("Accepted")

        await stack.kill_process("gloo")
        stack.start_role("gloo")
        await stack.ready("gloo")
        await site.serve(to_upstream("/v1/", "books"), direct("/", "after"))
        assert (await site.get("/v1/novel/7")).status == 200
        await stack.status_is("Accepted", "Upstream", "books")
    await stack.delete("VirtualService", site.name)
    await stack.delete("Upstream", "books")


async def test_settings_of_the_forward_proxy_change_under_traffic(stack: Stack, site: Site) -> None:
    """On connections that are kept as long as Envoy lets them, and on new ones; the last Envoy refuses."""

    async def forward(**options: Any) -> None:
        gateway = {"options": {"dynamicForwardProxy": {"dnsCacheConfig": V4_ONLY | options}}}
        await stack.put(
            "Gateway", "gateway-proxy", GATEWAY | {"bindPort": stack.http_port, "httpGateway": gateway}
        )

    async with Backend("any") as backend:
        to_it = {"dynamicForwardProxy": {"hostRewrite": f"localhost:{backend.port}"}}
        route = {"matchers": [{"prefix": "/any"}], "routeAction": to_it}
        await site.serve(direct("/", "none"))
        await forward()
        await site.serve(route, direct("/", "some"))
        await site.reaches("/any", "any")

        answers, url = list[tuple[int, str]](), f"http://127.0.0.1:{stack.http_port}/any"

        async def ask(client: ClientSession) -> None:
            async with client.get(url, headers={"Host": site.domain}) as answer:
                answers.append((answer.status, await answer.text()))

        async def flow() -> None:
            count = len(answers)
            await eventually(lambda: len(answers), until=lambda now: now > count + 50)

        async with (
            ClientSession() as kept,
            ClientSession(connector=TCPConnector(force_close=True)) as new,
            asyncio.TaskGroup() as tasks,
        ):
            asking = tasks.create_task(ask_on(tasks, partial(ask, kept), partial(ask, new)))
            for seconds in range(10, 10 + EDITS):
                await forward(dnsRefreshRate=f"{seconds}s")
                await eventually(
                    lambda: stack.envoy("/config_dump?resource=dynamic_listeners"),
                    until=lambda dump, seconds=seconds: f'"dns_refresh_rate": "{seconds}s"' in dump,
                )
            names = [{"address": "localhost", "portValue": port} for port in (1, 2)]
            await forward(maxHosts=1, preresolveHostnames=names)
            await stack.status_is("Rejected", "Gateway", "gateway-proxy", saying="preresolve_hostnames")
            await flow()
            asking.cancel()

        assert [answer for answer in answers if answer[0] != 200] == []


async def ask_on(tasks: asyncio.TaskGroup, *ways: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Ask in each way, again and again, whether answers have come or not."""
    while True:
        for ask in ways:
            tasks.create_task(ask())
        await asyncio.sleep(PAUSE)


async def test_a_route_without_the_listeners_option_is_told_what_it_lacks(stack: Stack, site: Site) -> None:
    await stack.put("Gateway", "gateway-proxy", GATEWAY | {"bindPort": stack.http_port})
    await stack.put(
        "VirtualService",
        site.name,
        {"virtualHost": {"domains": [site.domain], "routes": [{"routeAction": {"dynamicForwardProxy": {}}}]}},
    )

    await site.says(
        "Rejected", "virtualHost.routes[0].routeAction.dynamicForwardProxy: needs dynamicForwardProxy"
    )


@pytest.mark.parametrize(
    "source", [{"consulKvArtifactSource": {"rootKey": "elsewhere"}}, {"directoryArtifactSource": {}}]
)
async def test_artifacts_are_where_the_settings_say(
    tmp_path: Path, source: dict[str, dict[str, Any]]
) -> None:
    """Settings name another root in Consul, or a directory."""
    path = tmp_path / "files" / "artifacts" / "gloo-system" / "books.yaml"
    if "directoryArtifactSource" in source:
        source["directoryArtifactSource"]["directory"] = str(tmp_path / "files")
    async with Stack(tmp_path, settings=source) as stack, serving(Bookstore("red")) as port:
        await stack.put("Artifact", "books", ARTIFACT)
        await stack.put("Upstream", "books", books(port))
        await stack.status_is("Rejected", "Upstream", "books", saying="Artifact gloo-system.books: not found")

        if "directoryArtifactSource" in source:
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(ARTIFACT))
        else:
            await stack.consul.put(
                "elsewhere/gloo.solo.io/v1/Artifact/gloo-system/books", json.dumps(ARTIFACT)
            )

        await stack.status_is("Accepted", "Upstream", "books")
        assert ("Artifact" in await watched(stack)) is ("consulKvArtifactSource" in source)
