"""What a listener does with connections: limits, filters of the user's own, methods, by a real Envoy."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.services.gloo.features.test_tcp import connected, greeting, hang_up, to, upstream, who
from tests.support.envoy import running_envoy
from tests.support.golden import static_resources, translate_world
from tests.support.ports import free_port, free_ports
from tests.support.waiting import eventually

Document = dict[str, Any]
NEVER_AGAIN = "3600s"


def http(name: str, **fields: Any) -> Document:
    ok = {"matchers": [{"prefix": "/"}], "directResponseAction": {"status": 200, "body": "here"}}
    return {"name": name, "httpListener": {"virtualHosts": [{"name": "a", "routes": [ok]}], **fields}}


def tcp(name: str, **fields: Any) -> Document:
    hosts = [{"name": "all", "destination": {"single": to("greeting")}}]
    return {"name": name, "tcpListener": {"tcpHosts": hosts, **fields}}


@contextlib.asynccontextmanager
async def serving(folder: Path, *listeners: Document, greet: int = 1) -> AsyncIterator[dict[str, int]]:
    """An Envoy with *listeners*; their ports by name. The upstream ``greeting`` is on port *greet*."""
    ports = dict(zip((each["name"] for each in listeners), free_ports(len(listeners)), strict=True))
    placed = [{**each, "bindAddress": "127.0.0.1", "bindPort": ports[each["name"]]} for each in listeners]
    upstreams = [upstream("greeting", greet)]
    world, reports = translate_world({"proxy": {"listeners": placed}, "upstreams": upstreams})
    assert not [str(problem) for report in reports.values() for problem in report.errors]
    resources = static_resources({"": world}, port=1)
    for each in resources["listeners"]:
        each["address"]["socketAddress"]["portValue"] = ports[each["name"]]
    bootstrap = {
        "node": {"id": "envoy", "cluster": "gateway"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": free_port()}}},
        "static_resources": resources,
    }
    async with running_envoy(folder, bootstrap):
        yield ports


async def asked(port: int, method: str = "GET") -> str:
    """The answer to one request on a connection of its own; empty when that is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"{method} / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
        return (await asyncio.wait_for(reader.read(), 10)).decode()
    except ConnectionError:
        return ""
    finally:
        await hang_up(writer)


async def test_connections_are_limited_at_once_and_in_a_time(tmp_path: Path) -> None:
    once: Document = {"maxTokens": 1, "fillInterval": NEVER_AGAIN}
    async with (
        greeting("tcp") as greet,
        serving(
            tmp_path,
            http("at-once", options={"connectionLimit": {"maxActiveConnections": 1}}),
            http("in-a-time", options={"networkLocalRatelimit": once}),
            tcp("tcp-at-once", options={"connectionLimit": {"maxActiveConnections": 1}}),
            tcp("tcp-in-a-time", options={"localRatelimit": once}),
            greet=greet,
        ) as ports,
    ):
        _, held = await asyncio.open_connection("127.0.0.1", ports["at-once"])
        await eventually(lambda: asked(ports["at-once"]), until=lambda answer: answer == "")
        await hang_up(held)
        await eventually(lambda: asked(ports["at-once"]), until=lambda answer: "200 OK" in answer)

        assert "200 OK" in await asked(ports["in-a-time"])
        assert await asked(ports["in-a-time"]) == ""

        async with connected(ports["tcp-at-once"]) as met:
            assert met.said == "tcp"
            assert await who(ports["tcp-at-once"]) == ""
        await eventually(lambda: who(ports["tcp-at-once"]), until=lambda said: said == "tcp")

        assert await who(ports["tcp-in-a-time"]) == "tcp"
        assert await who(ports["tcp-in-a-time"]) == ""


async def test_filters_in_envoys_own_words_take_part(tmp_path: Path) -> None:
    lua = "function envoy_on_response(handle) handle:headers():add('x-own', 'yes') end"
    own = {
        "name": "own",
        "filterStage": {"stage": "RouteStage", "predicate": "After"},
        "config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "defaultSourceCode": {"inlineString": lua},
        },
    }
    everybody = {"permissions": [{"any": True}], "principals": [{"any": True}]}
    closing = {
        "name": "closing",
        "config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC",
            "statPrefix": "closing",
            "rules": {"action": "DENY", "policies": {"everybody": everybody}},
        },
    }
    async with (
        greeting("tcp") as greet,
        serving(
            tmp_path,
            http("http", customHttpFilters=[own]),
            http("closed", customNetworkFilters=[closing]),
            tcp("tcp"),
            tcp("tcp-closed", customNetworkFilters=[closing]),
            greet=greet,
        ) as ports,
    ):
        assert "x-own: yes" in await asked(ports["http"])
        assert await asked(ports["closed"]) == ""
        for name, heard in (("tcp", b"tcp hears hello\n"), ("tcp-closed", b"")):
            async with connected(ports[name]) as met:
                met.writer.write(b"hello\n")
                assert await asyncio.wait_for(met.reader.readline(), 10) == heard


async def test_methods_that_nobody_knows_are_taken_if_wanted(tmp_path: Path) -> None:
    free = {"headerValidationSettings": {"disableHttp1MethodValidation": {}}}
    async with serving(tmp_path, http("strict"), http("free", options=free)) as ports:
        assert "400 Bad Request" in await asked(ports["strict"], "BREW")
        assert "200 OK" in await asked(ports["free"], "BREW")


async def test_open_connections_are_told_of_again_and_again(tmp_path: Path) -> None:
    log = {"fileSink": {"path": str(tmp_path / "log"), "stringFormat": "open\n"}}
    telling = tcp("tcp", options={"tcpProxySettings": {"accessLogFlushInterval": "0.05s"}})
    telling["options"] = {"accessLoggingService": {"accessLog": [log]}}
    async with (
        greeting("tcp") as greet,
        serving(tmp_path, telling, greet=greet) as ports,
        connected(ports["tcp"]),
    ):
        told = lambda: (tmp_path / "log").read_text().splitlines()  # noqa: E731
        await eventually(told, until=lambda lines: len(lines) > 2)
