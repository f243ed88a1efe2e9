"""TCP hosts by a real Envoy: who gets a connection, with which TLS, and how long it may be silent."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.certificates import Authority, Certificate, server_context
from tests.support.envoy import Envoy, running_envoy
from tests.support.golden import static_resources, translate_world
from tests.support.http_proxy import http_proxy
from tests.support.https import client_context
from tests.support.ports import free_port, free_ports
from tests.support.waiting import eventually

Document = dict[str, Any]


@contextlib.asynccontextmanager
async def greeting(name: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that says its name, and again after all it hears; its port."""
    talks: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            writer.write(f"{name}\n".encode())
            while said := await reader.readline():
                writer.write(f"{name} hears {said.decode()}".encode())
        await hang_up(writer)

    def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks[writer] = asyncio.create_task(answer(reader, writer))

    port = free_port()
    async with await asyncio.start_server(take, "127.0.0.1", port, ssl=tls):
        yield port
        for writer in talks:
            writer.close()
        await asyncio.gather(*talks.values())


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()


@dataclass(slots=True)
class Met:
    """A connection that was made: what was said first, and by whose certificate."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    said: str

    def shows(self, certificate: Certificate) -> bool:
        shown = self.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return bool(shown == ssl.PEM_cert_to_DER_cert(certificate.cert.read_text()))


@contextlib.asynccontextmanager
async def connected(port: int, name: str | None = None) -> AsyncIterator[Met]:
    """A connection, with TLS when it asks for a *name*, empty for none."""
    tls = None if name is None else client_context()
    opened = asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
    reader, writer = await asyncio.wait_for(opened, 10)
    try:
        yield Met(reader, writer, (await asyncio.wait_for(reader.readline(), 10)).decode().strip())
    finally:
        await hang_up(writer)


async def who(port: int, name: str | None = None) -> str:
    """Who answers; nobody when the connection is closed."""
    try:
        async with connected(port, name) as met:
            return met.said
    except (ConnectionError, ssl.SSLError):
        return ""


def upstream(name: str, port: int, **fields: Any) -> Document:
    hosts = [{"addr": "127.0.0.1", "port": port}]
    return {"metadata": {"name": name, "namespace": "ns"}, "static": {"hosts": hosts}, **fields}


def to(name: str) -> Document:
    return {"upstream": {"name": name, "namespace": "ns"}}


def host(name: str, destination: Document, **ssl_config: Any) -> Document:
    made = {"name": name, "destination": destination}
    return made | {"sslConfig": ssl_config} if ssl_config else made


@contextlib.asynccontextmanager
async def serving(
    folder: Path, upstreams: Sequence[Document], *listeners: Document, **case: Any
) -> AsyncIterator[tuple[Envoy, list[int]]]:
    """An Envoy with TCP *listeners*, and their ports."""
    first, admin = free_ports(2)
    placed = [
        {"name": f"tcp-{i}", "bindAddress": "127.0.0.1", "bindPort": i + 1, "tcpListener": each}
        for i, each in enumerate(listeners)
    ]
    world, reports = translate_world({"proxy": {"listeners": placed}, "upstreams": upstreams, **case})
    assert not [str(problem) for report in reports.values() for problem in report.errors]
    resources, ports = static_resources({"": world}), [first, *free_ports(len(listeners))][: len(listeners)]
    for each in resources["listeners"]:
        each["bindToPort"] = True
        each["address"]["socketAddress"]["portValue"] = ports[int(each["name"].removeprefix("tcp-"))]
    bootstrap = {
        "node": {"id": "envoy", "cluster": "gateway"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "static_resources": resources,
    }
    async with running_envoy(folder, bootstrap) as envoy:
        yield envoy, ports


async def test_connections_go_where_their_server_name_says(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    ours, theirs = (
        authority.issue("ours", "DNS:a.example.com"),
        authority.issue("theirs", "DNS:b.example.com"),
    )
    files = {"tlsCert": str(ours.cert), "tlsKey": str(ours.key)}
    async with (
        greeting("plain") as plain,
        greeting("secret", server_context(theirs)) as secret,
        greeting("other") as other,
        serving(
            tmp_path,
            [upstream("plain", plain), upstream("secret", secret), upstream("other", other)],
            {
                "tcpHosts": [
                    host("terminated", {"single": to("plain")}, sslFiles=files, sniDomains=["A.example.com"]),
                    host("passed-on", {"single": to("secret")}, sniDomains=["*.b.example.com"]),
                    host("named", {"forwardSniClusterName": {}}, sniDomains=["secret_ns", "nobody_ns"]),
                    host("rest", {"single": to("other")}),
                ]
            },
        ) as (_, [port]),
    ):
        async with connected(port, "a.example.com") as met:
            assert met.said == "plain"
            assert met.shows(ours)
        async with connected(port, "x.b.example.com") as met:
            assert met.said == "secret"
            assert met.shows(theirs)
        assert await who(port, "secret_ns") == "secret"
        assert await who(port, "nobody_ns") == ""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello\n")  # where names are looked for, the client speaks first
        assert await asyncio.wait_for(reader.readline(), 10) == b"other\n"
        assert await asyncio.wait_for(reader.readline(), 10) == b"other hears hello\n"
        await hang_up(writer)


async def test_connections_are_shared_out_and_may_be_silent_for_so_long(tmp_path: Path) -> None:
    async with (
        greeting("blue") as blue,
        greeting("green") as green,
        serving(
            tmp_path,
            [upstream("blue", blue), upstream("green", green), upstream("nobody", free_port())],
            {
                "statPrefix": "colours",
                "tcpHosts": [
                    host(
                        "all",
                        {
                            "multi": {
                                "destinations": [
                                    {"weight": 3, "destination": to("blue")},
                                    {"weight": 1, "destination": to("green")},
                                    {"weight": 0, "destination": to("nobody")},
                                ]
                            }
                        },
                    )
                ],
            },
            {
                "options": {"tcpProxySettings": {"idleTimeout": "0.5s"}},
                "tcpHosts": [host("all", {"upstreamGroup": {"name": "g", "namespace": "ns"}})],
            },
            {
                "options": {"tcpProxySettings": {"maxConnectAttempts": 4}},
                "tcpHosts": [host("all", {"single": to("nobody")})],
            },
            upstreamGroups=[
                {
                    "metadata": {"name": "g", "namespace": "ns"},
                    "destinations": [{"weight": 1, "destination": to("green")}],
                }
            ],
        ) as (envoy, [shares, silent, nobody]),
    ):
        met = Counter([await who(shares) for _ in range(60)])
        assert met.keys() == {"blue", "green"}
        assert met["blue"] > met["green"]
        assert (await envoy.stats("^tcp.colours.downstream_cx_total$")).popitem()[1] == 60

        async with connected(silent) as quiet, connected(shares) as patient:
            assert quiet.said == "green"
            assert await asyncio.wait_for(quiet.reader.read(), 10) == b""  # closed by Envoy
            patient.writer.write(b"still there\n")
            assert (await asyncio.wait_for(patient.reader.readline(), 10)).endswith(b"hears still there\n")

        assert await who(nobody) == ""
        stats = await eventually(lambda: envoy.stats("^cluster.nobody_ns.upstream_cx_connect_"), until=bool)
        assert stats["cluster.nobody_ns.upstream_cx_connect_fail"] == 4


async def test_connections_go_through_a_tunnel(tmp_path: Path) -> None:
    seen = {"header": {"key": "x-from", "value": "%DOWNSTREAM_REMOTE_ADDRESS%"}}
    async with greeting("far") as far, http_proxy() as proxy:
        tunnel = {"hostname": f"127.0.0.1:{far}", "headersToAdd": [seen]}
        listener = {
            "options": {"tcpProxySettings": {"tunnelingConfig": tunnel}},
            "tcpHosts": [host("all", {"single": to("proxy")})],
        }
        async with serving(tmp_path, [upstream("proxy", proxy.port)], listener) as (_, [port]):
            assert await who(port) == "far"
            assert proxy.asked[0].startswith(f"CONNECT 127.0.0.1:{far} ".encode())
            assert b"x-from: 127.0.0.1:" in proxy.asked[0]
