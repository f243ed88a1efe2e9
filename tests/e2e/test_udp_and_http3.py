"""UDP, HTTP/3 and IPv6 through the whole system: what edits do not disturb, whom mistakes are told to."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.services.gloo.features.test_tcp import greeting, hang_up
from tests.support.certificates import Authority
from tests.support.datagrams import Client, echoing
from tests.support.http3 import http3_client
from tests.support.https import https_get
from tests.support.ports import free_port
from tests.support.stack import GATEWAY, Stack, direct, virtual_service
from tests.support.waiting import eventually

pytestmark = pytest.mark.e2e

NOT_HTTP = {name: value for name, value in GATEWAY.items() if name != "httpGateway"}
ASKING = b"GET / HTTP/1.1\r\nhost: example.com\r\n\r\n"
DRAINING = "/stats?filter=listener_manager.total_(listeners|filter_chains)_draining"


def static(port: int) -> dict[str, Any]:
    return {"static": {"hosts": [{"addr": "127.0.0.1", "port": port}]}}


async def edit_routes(stack: Stack, times: int) -> None:
    for i in range(times):
        await stack.put("VirtualService", "web", virtual_service(direct("/", f"version {i}")))
        await stack.answers("/", saying=f"version {i}")


async def heard(client: Client, text: bytes) -> bytes:
    """The answer to *text*; nothing when none comes soon."""
    try:
        return await client.ask(text, within=0.2)
    except (TimeoutError, ConnectionError):
        return b""


def has_ipv6() -> bool:
    try:
        with closing(socket.socket(socket.AF_INET6)) as found:
            found.bind(("::1", 0))
    except OSError:
        return False
    return True


async def test_a_session_of_datagrams_survives_edits_and_a_mistake_keeps_what_was(stack: Stack) -> None:
    port = free_port()

    async def serve(**fields: Any) -> None:
        await stack.put("Gateway", "udp", NOT_HTTP | {"bindPort": port, "udpGateway": fields})

    to = {"destination": {"upstream": {"name": "echo"}}}
    async with echoing("one") as one, Client.to(port) as client:
        await stack.put("Upstream", "echo", static(one.port))
        await serve(**to)
        await eventually(lambda: heard(client, b"hello"), until=lambda said: said == b"one hears hello")
        one.clients.clear()

        await edit_routes(stack, 5)
        await stack.put("Upstream", "other", static(port))
        await serve(**to, options={"idleTimeout": "0s"})
        await stack.status_is("Rejected", "Gateway", "udp", saying="udpGateway.options.idleTimeout: must be")

        assert await client.ask(b"again") == b"one hears again"
        assert len(one.clients) == 1
        assert "total_listeners_draining: 0" in await stack.envoy(DRAINING)

        await serve(destination={"upstream": {"name": "missing"}})
        missing = "udpGateway.destination.upstream: *v1.Upstream { gloo-system.missing } not found"
        await stack.status_is("Warning", "Gateway", "udp", saying=missing)
        await eventually(lambda: heard(client, b"anybody"), until=lambda said: not said)


async def test_a_port_that_is_taken_costs_what_needs_it_alone(stack: Stack, tmp_path: Path) -> None:
    server = Authority(tmp_path / "ca").issue("server", "DNS:a.example.com")
    with datagrams() as taken, datagrams() as too:
        gateway = {
            "bindPort": port_of(taken),
            "udpGateway": {"destination": {"consul": {"serviceName": "a"}}},
        }
        await stack.put("Gateway", "udp", NOT_HTTP | gateway)
        secure = {"bindPort": port_of(too), "ssl": True, "httpGateway": {"options": {"http3": {}}}}
        await stack.put("Gateway", "secure", GATEWAY | secure)
        tls = {"sslFiles": {"tlsCert": str(server.cert), "tlsKey": str(server.key)}}
        host = virtual_service(direct("/", "by TCP"), domains=["a.example.com"])
        await stack.put("VirtualService", "secure", {**host, "sslConfig": tls})

        for name in ("udp", "secure"):
            await stack.status_is("Rejected", "Gateway", name, saying="Address already in use")
        await stack.status_is("Accepted", "Gateway", "gateway-proxy")
        assert (await https_get(port_of(too), "a.example.com")).text == "by TCP"
        await edit_routes(stack, 1)


def datagrams() -> closing[socket.socket]:
    """A port of UDP that is taken."""
    found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    found.bind(("127.0.0.1", 0))
    return closing(found)


def port_of(taken: socket.socket) -> int:
    port: int = taken.getsockname()[1]
    return port


async def test_a_connection_of_http3_survives_edits(stack: Stack, tmp_path: Path) -> None:
    port, authority = free_port(), Authority(tmp_path / "ca")
    server = authority.issue("server", "DNS:a.example.com")
    tls = {"sslFiles": {"tlsCert": str(server.cert), "tlsKey": str(server.key)}}
    gateway = {"bindPort": port, "ssl": True, "httpGateway": {"options": {"http3": {}}}}

    async def serve(text: str) -> None:
        document = virtual_service(direct("/", text), domains=["a.example.com", f"127.0.0.1:{at}"])
        await stack.put("VirtualService", "secure", {**document, "sslConfig": tls})
        await eventually(lambda: client.get(at), until=lambda answer: answer == (200, text))

    async with http3_client(tmp_path, port, "a.example.com", authority) as (client, at):
        await stack.put("Gateway", "secure", GATEWAY | gateway)
        await serve("first")
        before = await client.stats("cluster.http3.upstream_cx_total")

        for i in range(5):
            await serve(f"version {i}")
        await edit_routes(stack, 2)

        assert await client.stats("cluster.http3.upstream_cx_total") == before
        assert "total_listeners_draining: 0" in await stack.envoy(DRAINING)
        await stack.status_is("Accepted", "Gateway", "secure")

        plain = {"bindPort": stack.http_port, "httpGateway": gateway["httpGateway"]}
        await stack.put("Gateway", "gateway-proxy", GATEWAY | plain)
        told = "httpGateway.options.http3: needs TLS"
        await stack.status_is("Rejected", "Gateway", "gateway-proxy", saying=told)
        await edit_routes(stack, 1)


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_addresses_of_ipv6_are_served_and_that_of_all_with_ipv4(stack: Stack) -> None:
    await stack.put("VirtualService", "web", virtual_service(direct("/", "here")))
    async with greeting("tcp") as greet, echoing("udp") as echo:
        await stack.put("Upstream", "tcp", static(greet))
        await stack.put("Upstream", "udp", static(echo.port))
        hosts = [{"name": "all", "destination": {"single": {"upstream": {"name": "tcp"}}}}]
        for bound, reached in (("::1", ["::1"]), ("::", ["::1", "127.0.0.1"])):
            ports = {}
            for kind, fields in (
                ("http", {"statPrefix": "six"}),
                ("tcp", {"tcpHosts": hosts}),
                ("udp", {"destination": {"upstream": {"name": "udp"}}}),
            ):
                ports[kind] = free_port()
                there = {"bindAddress": bound, "bindPort": ports[kind], f"{kind}Gateway": fields}
                await stack.put("Gateway", f"{kind}-{len(reached)}", NOT_HTTP | there)
            for address in reached:
                await eventually(lambda a=address, p=ports: said(a, p["http"], ASKING), until=ok)
                await eventually(lambda a=address, p=ports: said(a, p["tcp"]), until=b"tcp\n".__eq__)
                async with Client.to(ports["udp"], address) as client:
                    await eventually(lambda c=client: heard(c, b"hello"), until=bool)
    assert "http.six.downstream_rq_2xx" in await stack.envoy("/stats?filter=http.six")


def ok(text: bytes) -> bool:
    return text.startswith(b"HTTP/1.1 200 OK")


async def said(address: str, port: int, text: bytes = b"") -> bytes:
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(text)
        return await asyncio.wait_for(reader.readline(), 10)
    finally:
        await hang_up(writer)
