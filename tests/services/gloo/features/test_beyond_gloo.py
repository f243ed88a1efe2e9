"""Options beyond Gloo, asked for by real requests: brotli, Zstandard, mirrors, session affinity,
redirects followed within, retry budgets."""

from __future__ import annotations

import contextlib
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.support.backends import Backend
from tests.support.envoy import running_envoy
from tests.support.golden import static_resources, translate_world
from tests.support.ports import free_ports
from tests.support.waiting import eventually

Document = dict[str, Any]
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd"}  # brotli has none
BROWSER = "gzip, deflate, br, zstd"


def route(path: str, upstream: str = "both", /, **options: Any) -> Document:
    to = {"upstream": {"name": upstream, "namespace": "ns"}}
    return {"matchers": [{"prefix": path}], "routeAction": {"single": to}, "options": options}


@contextlib.asynccontextmanager
async def serving(
    folder: Path,
    routes: list[Document],
    upstreams: Mapping[str, Sequence[Backend | int]],
    *,
    fields: Mapping[str, Document] | None = None,
    **options: Any,
) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of an Envoy with these *routes*; it leaves answers compressed and keeps no cookies. *fields*
    are more of the upstreams, whose members may be given by their port."""
    port, admin = free_ports(2)
    static = [
        {
            "metadata": {"name": name, "namespace": "ns"},
            "static": {"hosts": [{"addr": "127.0.0.1", "port": port_of(each)} for each in members]},
            **(fields or {}).get(name, {}),
        }
        for name, members in upstreams.items()
    ]
    world, reports = translate_world({"routes": routes, "upstreams": static, "listenerOptions": options})
    assert all(report.clean for report in reports.values()), reports
    bootstrap = {
        "node": {"id": "envoy", "cluster": "gateway"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "static_resources": static_resources({"": world}, port=port),
    }
    client = aiohttp.ClientSession(
        f"http://127.0.0.1:{port}", auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
    )
    async with running_envoy(folder, bootstrap), client:
        yield client


def port_of(member: Backend | int) -> int:
    return member if isinstance(member, int) else member.port


async def encoding(client: aiohttp.ClientSession, path: str, accepted: str) -> str:
    """How an answer was compressed; of gzip and Zstandard the content must begin as it should."""
    async with client.get(path, headers={"accept-encoding": accepted}) as answer:
        told, body = answer.headers.get("content-encoding", ""), await answer.read()
        assert MAGIC.get(body[:2], told if told == "br" else "") == told
        return told


async def test_answers_are_compressed_as_the_client_likes_best(tmp_path: Path) -> None:
    low = {"contentLength": 1}
    text = {"directResponseAction": {"status": 200, "body": "a" * 500}}
    routes = [
        {**text, "matchers": [{"prefix": "/off"}], "options": {"compression": {"disabled": True}}},
        text,
    ]
    async with serving(tmp_path, routes, {}, gzip=low, brotli=low, zstd=low) as client:
        assert await encoding(client, "/", "br") == "br"
        assert await encoding(client, "/", "zstd") == "zstd"
        assert await encoding(client, "/", "gzip") == "gzip"
        assert await encoding(client, "/", "identity") == ""
        assert await encoding(client, "/", BROWSER) == "zstd"
        assert await encoding(client, "/", "gzip, br") == "br"
        assert await encoding(client, "/", "gzip, br;q=0.5") == "gzip"
        assert await encoding(client, "/off", BROWSER) == ""


async def test_an_upstream_need_not_know_what_the_client_accepts(tmp_path: Path) -> None:
    hiding = {"contentLength": 1, "removeAcceptEncodingHeader": True}
    async with (
        Backend("here") as here,
        serving(
            tmp_path, [route("/", "here")], {"here": [here]}, gzip=hiding, brotli={"contentLength": 1}
        ) as client,
    ):
        assert await encoding(client, "/", "br") == "br"
        assert "accept-encoding" not in here.last["headers"]


async def test_copies_go_to_all_mirrors(tmp_path: Path) -> None:
    names = ("here", "shadow", "always", "never")
    async with contextlib.AsyncExitStack() as stack:
        backends = {name: await stack.enter_async_context(Backend(name)) for name in names}
        to = {name: {"upstream": {"name": name, "namespace": "ns"}} for name in names}
        routes = [
            route(
                "/",
                "here",
                shadowing={**to["shadow"], "percentage": 100},
                mirrors=[{**to["always"], "percentage": 100}, {**to["never"], "percentage": 0}],
            )
        ]
        upstreams = {name: [backend] for name, backend in backends.items()}
        client = await stack.enter_async_context(serving(tmp_path, routes, upstreams))
        for _ in range(5):
            async with client.get("/a") as answer:
                assert answer.headers["x-backend"] == "here"

        await eventually(lambda: [backends[name].asked for name in names], until=lambda n: n == [5, 5, 5, 0])


@pytest.mark.parametrize("kind", ["cookie", "header"])
async def test_a_session_stays_with_its_instance(tmp_path: Path, kind: str) -> None:
    affinity = {"cookie": {"name": "at"}} if kind == "cookie" else {"header": "x-at"}
    routes = [
        route("/off", sessionAffinity={"disabled": True}),
        route("/strict", sessionAffinity={**affinity, "strict": True}),
        route("/", sessionAffinity=affinity),
    ]
    async with (
        Backend("a") as a,
        Backend("b") as b,
        serving(tmp_path, routes, {"both": [a, b]}) as client,
    ):
        async with client.get("/") as answer:
            first = answer.headers["x-backend"]
            told = {"x-at": answer.headers.get("x-at", "")}
            if kind == "cookie":
                told = {"cookie": f"at={answer.cookies['at'].value}"}

        async def met(path: str, headers: Mapping[str, str] | None = None) -> str:
            async with client.get(path, headers=headers) as answer:
                return answer.headers.get("x-backend", str(answer.status))

        assert {await met("/", told) for _ in range(10)} == {first}
        assert {await met("/") for _ in range(10)} == {"a", "b"}
        assert {await met("/off", told) for _ in range(10)} == {"a", "b"}

        if kind == "header":
            gone = {"x-at": b64encode(b"127.0.0.1:1").decode()}
            assert await met("/strict", gone) == "503"
            assert await met("/", gone) in ("a", "b")


@contextlib.asynccontextmanager
async def redirecting() -> AsyncIterator[int]:
    """The port of a server that sends whoever asks for /old to /new, with a note."""

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/old":
            return web.Response(
                status=307, headers={"location": f"http://{request.host}/new", "x-note": "moved"}
            )
        return web.Response(text=f"{request.path} {request.headers.get('x-note', '')}")

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    [port] = free_ports(1)
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield port
    finally:
        await runner.cleanup()


async def test_redirects_are_followed_within(tmp_path: Path) -> None:
    following = {"codes": [307], "headersToCopy": ["x-note"]}
    routes = [
        route("/old", "moving", internalRedirects=following)
        | {"matchers": [{"exact": "/old", "methods": ["GET"]}]},
        route("/old", "moving", internalRedirects={}),
        route("/", "moving"),
    ]
    async with (
        redirecting() as port,
        serving(tmp_path, routes, {"moving": [port]}) as client,
    ):
        async with client.get("/old", allow_redirects=False) as answer:
            assert (answer.status, await answer.text()) == (200, "/new moved")
        async with client.head("/old", allow_redirects=False) as answer:
            assert answer.status == 307, "only 302 is followed when nothing else is said"


async def test_a_retry_budget_bounds_retries(tmp_path: Path) -> None:
    again = {"retryOn": "5xx", "numRetries": 3}
    routes = [route("/free", "free", retries=again), route("/bound", "bound", retries=again)]
    none = {"circuitBreakers": {"retryBudget": {"budgetPercent": 0, "minRetryConcurrency": 0}}}
    async with (
        Backend("here") as here,
        serving(tmp_path, routes, {"free": [here], "bound": [here]}, fields={"bound": none}) as client,
    ):
        for path, status in (("/free", 200), ("/bound", 503)):
            here.failures = 1
            async with client.get(path) as answer:
                assert answer.status == status, path
            here.failures = 0
