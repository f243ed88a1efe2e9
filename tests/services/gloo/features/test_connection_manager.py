"""What settings of connection managers do to real connections and requests, through a real Envoy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.backends import Backend, repeating
from tests.support.envoy import running_envoy
from tests.support.golden import static_resources, translate_world
from tests.support.ports import free_ports

LISTENERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "edge": {
        "useRemoteAddress": True,
        "xffNumTrustedHops": 1,
        "appendXForwardedPort": True,
        "preserveExternalRequestId": True,
        "via": "edge",
        "serverName": "gloo",
        "headersWithUnderscoresAction": "DROP_HEADER",
        "mergeSlashes": True,
        "pathWithEscapedSlashesAction": "UNESCAPE_AND_FORWARD",
        "stripAnyHostPort": True,
        "acceptHttp10": True,
        "defaultHostForHttp10": "old.example.com",
        "properCaseHeaderKeyFormat": True,
        "forwardClientCertDetails": "ALWAYS_FORWARD_ONLY",
        "earlyHeaderManipulation": {
            "headersToAdd": [{"header": {"key": "x-early", "value": "yes"}}],
            "headersToRemove": ["x-debug"],
        },
    },
    "strict": {
        "useRemoteAddress": True,
        "skipXffAppend": True,
        "generateRequestId": False,
        "serverHeaderTransformation": "PASS_THROUGH",
        "normalizePath": False,
        "headersWithUnderscoresAction": "REJECT_CLIENT_REQUEST",
        "pathWithEscapedSlashesAction": "REJECT_REQUEST",
        "maxHeadersCount": 10,
        "maxRequestHeadersKb": 1,
        "maxRequestsPerConnection": 2,
        "drainTimeout": "0.1s",
        "delayedCloseTimeout": "0.1s",
        "upgrades": [{"websocket": {"enabled": False}}],
    },
    "inside": {
        "appendXForwardedPort": True,
        "internalAddressConfig": {"cidrRanges": [{"addressPrefix": "10.0.0.0", "prefixLen": 8}]},
    },
    "idle": {"idleTimeout": "0.1s", "drainTimeout": "0.1s"},
    "slow_headers": {"requestHeadersTimeout": "0.1s"},
    "slow_requests": {"requestTimeout": "0.1s"},
    "silent": {"streamIdleTimeout": "0.1s"},
    "short": {"maxStreamDuration": "0.1s"},
    "short_lived": {"maxConnectionDuration": "0.1s", "drainTimeout": "0.1s"},
    "http2": {
        "codecType": "HTTP2",
        "http2ProtocolOptions": {
            "maxConcurrentStreams": 7,
            "initialStreamWindowSize": 70000,
            "initialConnectionWindowSize": 80000,
        },
    },
}
MAX_STREAMS, WINDOW = 3, 4  # of the settings of HTTP/2
GET = "GET / HTTP/1.1\r\nhost: a.com\r\n"


class Gateway:
    """An Envoy with a listener for each of the settings above."""

    def __init__(self, ports: Mapping[str, int]) -> None:
        self.ports = ports

    async def says(self, listener: str, request: str) -> str:
        """What comes back of *request*, until the connection is closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[listener])
        with closing(writer):
            writer.write(request.encode())
            return (await asyncio.wait_for(reader.read(-1), 10)).decode()

    async def get(self, listener: str, path: str = "/", *headers: str) -> str:
        lines = [f"GET {path} HTTP/1.1", "host: a.com:8443", "connection: close", *headers]
        return await self.says(listener, "\r\n".join([*lines, "", ""]))

    async def status(self, listener: str, path: str = "/", *headers: str) -> int:
        return int((await self.get(listener, path, *headers)).split(" ")[1])

    async def seen(self, listener: str, path: str = "/", *headers: str) -> Mapping[str, Any]:
        """What the backend saw of a request."""
        found: dict[str, Any] = json.loads((await self.get(listener, path, *headers)).split("\r\n\r\n")[1])
        return found


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    async with Backend("here") as running:
        yield running


@pytest.fixture
async def gateway(backend: Backend, tmp_path: Path) -> AsyncIterator[Gateway]:
    async with repeating() as repeater:
        upstreams = [
            {"metadata": {"name": name, "namespace": "ns"}, "static": {"hosts": [host]}}
            for name, port in (("here", backend.port), ("repeater", repeater))
            for host in [{"addr": "127.0.0.1", "port": port}]
        ]
        hosts = [{"name": "all", "domains": ["a.com", "a.com:8443", "old.example.com"]}]
        hosts[0]["routes"] = [to("repeater", "/socket"), to("here", "/")]  # type: ignore[assignment]
        listeners = [
            {
                "name": name,
                "bindAddress": "127.0.0.1",
                "bindPort": i + 1,
                "httpListener": {"virtualHosts": hosts, "options": {"httpConnectionManagerSettings": given}},
            }
            for i, (name, given) in enumerate(LISTENERS.items())
        ]
        world, reports = translate_world({"proxy": {"listeners": listeners}, "upstreams": upstreams})
        assert all(report.clean for report in reports.values()), reports
        admin, *ports = free_ports(len(LISTENERS) + 1)
        resources = static_resources({"": world})
        for listener in resources["listeners"]:
            listener["address"]["socketAddress"]["portValue"] = dict(zip(LISTENERS, ports, strict=True))[
                listener["name"]
            ]
            listener["bindToPort"] = True
        at = {"socket_address": {"address": "127.0.0.1", "port_value": admin}}
        bootstrap = {"admin": {"address": at}, "static_resources": resources}
        async with running_envoy(tmp_path, bootstrap):
            yield Gateway(dict(zip(LISTENERS, ports, strict=True)))


def to(upstream: str, prefix: str) -> dict[str, Any]:
    single = {"upstream": {"name": upstream, "namespace": "ns"}}
    return {"matchers": [{"prefix": prefix}], "routeAction": {"single": single}}


async def test_settings_change_what_clients_and_upstreams_see(gateway: Gateway, backend: Backend) -> None:
    headers = ("x_y: 1", "x-debug: 1", "x-forwarded-for: 10.1.2.3", "x-request-id: mine")
    told = ("x-forwarded-client-cert: Hash=1",)

    edge = await gateway.seen("edge", "/a//b%2Fc", *headers, *told)
    plain = await gateway.seen("plain", "/a//b%2Fc/../d", *headers, *told)
    strict = await gateway.seen("strict", "/a/../b")
    inside = await gateway.seen("inside", "/", "x-forwarded-for: 10.1.2.3")
    answers = {name: await gateway.get(name) for name in ("edge", "plain", "strict")}

    assert (edge["path"], plain["path"], strict["path"]) == ("/a/b/c", "/a//d", "/a/../b")
    assert (edge["host"], plain["host"]) == ("a.com", "a.com:8443")
    of_edge, of_plain = edge["headers"], plain["headers"]
    assert "x-early" in of_edge.keys() - of_plain.keys()
    assert {"x_y", "x-debug"} <= of_plain.keys() - of_edge.keys()
    assert of_edge["x-forwarded-port"] == str(gateway.ports["edge"])
    assert of_edge["x-forwarded-for"].startswith("10.1.2.3,")
    assert of_plain["x-forwarded-for"] == "10.1.2.3"
    assert "x-forwarded-for" not in strict["headers"]
    assert of_edge["x-envoy-external-address"] == "10.1.2.3"
    assert (of_edge["x-request-id"], of_edge["via"]) == ("mine", "edge")
    assert "x-request-id" not in strict["headers"]
    assert of_edge["x-forwarded-client-cert"] == "Hash=1"
    assert "x-forwarded-client-cert" not in of_plain
    assert inside["headers"]["x-envoy-internal"] == "true"
    assert "x-envoy-internal" not in of_plain
    assert inside["headers"]["x-forwarded-port"] == str(gateway.ports["inside"])
    assert "\r\nServer: gloo\r\n" in answers["edge"]
    assert "\r\nserver: envoy\r\n" in answers["plain"]
    assert "\r\nserver: Python" in answers["strict"]


async def test_settings_refuse_requests(gateway: Gateway) -> None:
    websocket = ("connection: upgrade", "upgrade: websocket")
    many = [f"x-{i}: 1" for i in range(10)]

    assert await gateway.status("strict") == 200
    assert await gateway.status("strict", "/", "x_y: 1") == 400
    assert await gateway.status("strict", "/a%2Fb") == 400
    assert await gateway.status("strict", "/", f"x-long: {'a' * 1000}") == 431
    assert await gateway.status("strict", "/", *many) == 431
    assert await gateway.status("strict", "/socket", *websocket) == 403
    assert await gateway.status("plain", "/", f"x-long: {'a' * 1000}", *many) == 200
    assert "426" in await gateway.says("strict", "GET / HTTP/1.0\r\n\r\n")
    old = await gateway.says("edge", "GET / HTTP/1.0\r\n\r\n")
    assert '"host": "old.example.com"' in old
    assert (await gateway.says("strict", 3 * f"{GET}\r\n")).count("HTTP/1.1 200") == 2, "then it is closed"


async def test_settings_limit_time(gateway: Gateway, backend: Backend) -> None:
    assert "200 OK" in await gateway.says("idle", f"{GET}\r\n"), "and the connection is closed"
    assert "408" in await gateway.says("slow_headers", GET)
    assert await gateway.says("short_lived", "") == ""
    backend.delay = 0.5
    assert "408" in await gateway.says("slow_requests", f"{GET}content-length: 5\r\n\r\na")
    assert await gateway.status("silent") == 504
    assert await gateway.status("short") == 504
    assert await gateway.status("plain") == 200


async def test_http2_is_spoken_as_said(gateway: Gateway) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.ports["http2"])
    with closing(writer):
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        head = await reader.readexactly(9)
        settings = await reader.readexactly(int.from_bytes(head[:3]))

    found = {int.from_bytes(part[:2]): int.from_bytes(part[2:]) for part in batched(settings, 6)}
    assert (found[MAX_STREAMS], found[WINDOW]) == (7, 70000)


def batched(text: bytes, size: int) -> list[bytes]:
    return [text[i : i + size] for i in range(0, len(text), size)]
