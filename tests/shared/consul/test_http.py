"""The HTTP layer: what goes out with every request, and what each kind of answer becomes."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from shared.consul.client import Consul
from shared.consul.config import ConsulConfig
from shared.errors import (
    ConsulConflict,
    ConsulDenied,
    ConsulError,
    ConsulRefused,
    ConsulUnavailable,
)
from tests.support.ports import free_port

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Respond], Awaitable[ConsulConfig]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start an HTTP server that answers by the given function."""
    runners: list[web.ServerRunner] = []

    async def start(respond: Respond) -> ConsulConfig:
        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            return await respond(request)  # type: ignore[arg-type]

        runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0)
        runners.append(runner)
        await runner.setup()
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        return ConsulConfig(port=port)

    yield start
    for runner in runners:
        await runner.cleanup()


def answering(status: int, body: bytes = b"", **headers: str) -> Respond:
    async def respond(_: web.Request) -> web.StreamResponse:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, headers=given)

    return respond


async def test_every_request_carries_who_we_are_and_asks_for_plain_bytes(serve: Serve) -> None:
    seen: list[web.Request] = []

    async def respond(request: web.Request) -> web.StreamResponse:
        seen.append(request)
        return web.json_response({"Results": [], "Errors": None, "ID": "s"}, headers={"X-Consul-Index": "1"})

    port = (await serve(respond)).port
    config = ConsulConfig(
        port=port, token="secret", datacenter="dc2", namespace="team", username="ann", password="pass"
    )
    async with Consul(config) as consul:
        await consul.kv.read("a/", index=3)
        await consul.kv.put("a", b"")
        await consul.kv.txn([])
        await consul.txn.put([])
        await consul.session.create()
        await consul.catalog.nodes()

    assert [request.path for request in seen] == [
        "/v1/kv/a/",
        "/v1/kv/a",
        "/v1/txn",
        "/v1/txn",
        "/v1/session/create",
        "/v1/catalog/nodes",
    ]
    for request in seen:
        assert request.headers["X-Consul-Token"] == "secret"
        assert request.headers["Accept-Encoding"] == "identity"
        assert base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")) == b"ann:pass"
        assert request.query.getall("dc") == ["dc2"]
        assert request.query["ns"] == "team"
    assert (seen[0].query["index"], seen[0].query["wait"]) == ("3", "30000ms")


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (400, ConsulRefused, "HTTP 400: why"),
        (401, ConsulDenied, "HTTP 401: why"),
        (403, ConsulDenied, "HTTP 403: why"),
        (413, ConsulRefused, "HTTP 413: why"),
        (429, ConsulUnavailable, "HTTP 429: why"),
        (500, ConsulUnavailable, "HTTP 500: why"),
        (301, ConsulRefused, "HTTP 301: why"),
    ],
)
async def test_each_refusal_has_its_error(
    serve: Serve, status: int, kind: type[ConsulError], text: str
) -> None:
    async with Consul(await serve(answering(status, b"why\n", Location="/elsewhere"))) as consul:
        for call in (consul.kv.get("a"), consul.kv.put("a", b""), consul.agent.self()):
            with pytest.raises(kind, match=text) as failure:
                await call
            assert failure.value.status == status


async def test_what_py_consul_would_raise_is_ours_too(serve: Serve) -> None:
    async with Consul(await serve(answering(404, b"no such session"))) as consul:
        with pytest.raises(ConsulRefused, match="no such session"):
            await consul.session.renew("x")
    async with Consul(await serve(answering(409, b"taken"))) as consul:
        with pytest.raises(ConsulConflict, match="taken"):
            await consul.txn.put([])
    async with Consul(await serve(answering(200, b"<html>"))) as consul:
        with pytest.raises(ConsulUnavailable):
            await consul.agent.self()


async def test_an_answer_that_cannot_be_trusted_is_no_answer(serve: Serve) -> None:
    async with Consul(await serve(answering(200, b"[]", X_Consul_Knownleader="false"))) as consul:
        with pytest.raises(ConsulUnavailable, match="no cluster leader"):
            await consul.kv.list("a/")
    async with Consul(await serve(answering(200, b"<html>"))) as consul:
        with pytest.raises(ConsulUnavailable, match="not JSON"):
            await consul.kv.list("a/")


async def test_a_connection_closed_without_an_answer_says_so(serve: Serve) -> None:
    async def hang_up(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async with Consul(await serve(hang_up)) as consul:
        with pytest.raises(ConsulUnavailable, match="closed without an answer"):
            await consul.kv.put("a", b"")


async def test_nobody_there_says_so() -> None:
    async with Consul(ConsulConfig(port=free_port())) as consul:
        with pytest.raises(ConsulUnavailable, match=r"kv get a: Cannot connect"):
            await consul.kv.get("a")


async def test_a_silent_server_meets_the_deadline() -> None:
    port = free_port()

    async def listen(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stopping.wait()
        writer.close()

    stopping = asyncio.Event()
    async with (
        await asyncio.start_server(listen, "127.0.0.1", port),
        Consul(ConsulConfig(port=port)) as consul,
    ):
        with pytest.raises(ConsulUnavailable, match="no answer within"):
            await consul.http.request("GET", "/v1/status/leader", deadline=0.1)
        stopping.set()


def test_a_client_can_be_built_without_a_loop_and_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "theirs")
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "nowhere")
    monkeypatch.setenv("CONSUL_HTTP_SSL", "true")

    consul = Consul(ConsulConfig(host="consul"))

    assert consul.prepare_headers() == {}
    assert consul.scheme == "http"
