"""What is told of requests and connections, in files and to services, by a real Envoy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Cardinality, Handler
from grpclib.encoding.base import CodecBase
from grpclib.server import Server, Stream

from tests.support.certificates import Authority, server_context
from tests.support.envoy import Envoy, running_envoy
from tests.support.golden import static_resources, translate_world
from tests.support.ports import free_ports
from tests.support.waiting import eventually

HTTP2 = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicitHttpConfig": {"http2ProtocolOptions": {}},
    }
}
TLV = b"\xea\x00\x05hello"  # of type 234
PROXIED = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11"
    + (12 + len(TLV)).to_bytes(2)
    + bytes((10, 1, 2, 3, 10, 1, 2, 4, 0, 80, 0, 81))
    + TLV
)


class Bytes(CodecBase):
    """Messages as they are."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> bytes:
        return data


class Collector:
    """Takes access logs, in Envoy's protocol and in OpenTelemetry's."""

    def __init__(self) -> None:
        self.told: dict[str, bytes] = {"grpc": b"", "open_telemetry": b""}
        self.token = ""

    async def _stream(self, stream: Stream[bytes, bytes]) -> None:
        async for message in stream:
            self.told["grpc"] += message

    async def _export(self, stream: Stream[bytes, bytes]) -> None:
        self.token = str((stream.metadata or {}).get("x-token"))
        self.told["open_telemetry"] += await stream.recv_message() or b""
        await stream.send_message(b"")

    def __mapping__(self) -> dict[str, Handler]:
        return {
            "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs": Handler(
                self._stream, Cardinality.STREAM_UNARY, bytes, bytes
            ),
            "/opentelemetry.proto.collector.logs.v1.LogsService/Export": Handler(
                self._export, Cardinality.UNARY_UNARY, bytes, bytes
            ),
        }


@pytest.fixture
async def collector() -> AsyncIterator[tuple[Collector, int]]:
    (port,) = free_ports(1)
    found = Collector()
    server = Server([found], codec=Bytes())
    await server.start("127.0.0.1", port)
    yield found, port
    server.close()
    await server.wait_closed()


def file(path: Path, line: str, **fields: Any) -> dict[str, Any]:
    return {"fileSink": {"path": str(path), "stringFormat": f"{line}\n"}, **fields}


async def test_requests_and_connections_are_told_of(tmp_path: Path, collector: tuple[Collector, int]) -> None:
    at_least = {"op": "GE", "value": {"defaultValue": 500, "runtimeKey": "log.least"}}
    header = {"header": {"name": "x-log", "value": "a.*", "regex": True}}
    either = [{"statusCodeFilter": {"comparison": at_least}}, {"headerFilter": header}]
    texts = {"status": "%RESPONSE_CODE%", "nested": {"path": "%REQ(:PATH)%"}}
    reads = "%DYNAMIC_METADATA(tlv:said)% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
    logs = [
        file(tmp_path / "all", "%REQ(:PATH)% %RESPONSE_CODE% 100%%"),
        file(tmp_path / "some", "%REQ(:PATH)%", filter={"orFilter": {"filters": either}}),
        {"fileSink": {"path": str(tmp_path / "json"), "jsonFormat": texts}},
        {"grpcService": {"logName": "mine", "staticClusterName": "access_log_cluster"}},
        {
            "openTelemetryService": {
                "logName": "mine",
                "collector": {
                    "endpoint": f"127.0.0.1:{collector[1]}",
                    "insecure": True,
                    "headers": {"x-token": "abc"},
                },
                "body": {"stringValue": "asked for %REQ(:PATH)%"},
            }
        },
    ]
    http = [
        {"matchers": [{"prefix": "/bad"}], "directResponseAction": {"status": 503}},
        {"matchers": [{"prefix": "/"}], "directResponseAction": {"status": 200}},
    ]
    virtual_hosts = [{"name": "all", "domains": ["*"], "routes": http}]
    listeners = [
        {
            "name": "requests",
            "bindAddress": "127.0.0.1",
            "bindPort": 1,
            "options": {
                "accessLoggingService": {"accessLog": logs},
                "listenerAccessLoggingService": {"accessLog": [file(tmp_path / "connections", "%PROTOCOL%")]},
                "tcpStats": True,
                "perConnectionBufferLimitBytes": 65536,
                "connectionBalanceConfig": {"exactBalance": {}},
                "socketOptions": [{"level": 1, "name": 9, "intValue": 1}],
            },
            "httpListener": {"virtualHosts": virtual_hosts},
        },
        {
            "name": "proxied",
            "bindAddress": "127.0.0.1",
            "bindPort": 2,
            "options": {
                "listenerAccessLoggingService": {"accessLog": [file(tmp_path / "proxied", reads)]},
                "proxyProtocol": {
                    "rules": [{"tlvType": 234, "onTlvPresent": {"metadataNamespace": "tlv", "key": "said"}}]
                },
            },
            "httpListener": {"virtualHosts": virtual_hosts},
        },
    ]
    world, reports = translate_world({"proxy": {"listeners": listeners}})
    assert all(report.clean for report in reports.values()), reports
    port, proxied, admin = free_ports(3)
    resources = static_resources({"": world}, port=port)
    for listener in resources["listeners"]:
        bound = port if listener["name"] == "requests" else proxied
        listener["address"]["socketAddress"]["portValue"] = bound
    resources["clusters"].append(cluster("access_log_cluster", collector[1]))
    bootstrap = {
        "node": {"id": "envoy", "cluster": "gateway"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "static_resources": resources,
    }
    async with running_envoy(tmp_path, bootstrap) as envoy:
        await ask(envoy, port, proxied)

        assert await lines(tmp_path / "all", 3) == ["/a 200 100%", "/bad 503 100%", "/c 200 100%"]
        assert await lines(tmp_path / "some", 2) == ["/bad", "/c"]
        assert json.loads((await lines(tmp_path / "json", 3))[0]) == {"status": 200, "nested": {"path": "/a"}}
        assert await lines(tmp_path / "proxied", 1) == ["hello 10.1.2.3"]
        await eventually(lambda: collector[0].told["grpc"], until=lambda told: b"/bad" in told)
        assert b"mine" in collector[0].told["grpc"]
        told = lambda: collector[0].told["open_telemetry"]  # noqa: E731
        await eventually(told, until=lambda found: b"asked for /bad" in found)
        assert collector[0].token == "abc"
        assert await envoy.stats("tcp_stats"), "the operating system's statistics are kept"
    assert (await lines(tmp_path / "connections", 1))[0] == "HTTP/1.1"


async def test_a_collector_is_told_over_mutual_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    server, ours = authority.issue("collector", "IP:127.0.0.1"), authority.issue("envoy", "DNS:envoy")
    tls = server_context(server, clients=authority)
    tls.set_alpn_protocols(["h2"])
    found, (collecting, port, admin) = Collector(), free_ports(3)
    listening = Server([found], codec=Bytes())
    await listening.start("127.0.0.1", collecting, ssl=tls)
    files = {"rootCa": str(authority.cert), "tlsCert": str(ours.cert), "tlsKey": str(ours.key)}
    to = {"endpoint": f"127.0.0.1:{collecting}", "sslConfig": {"sslFiles": files}}
    log = {"logName": "mine", "collector": to, "body": {"stringValue": "asked for %REQ(:PATH)%"}}
    here = {"matchers": [{"prefix": "/"}], "directResponseAction": {"status": 200}}
    listener = {
        "name": "requests",
        "bindAddress": "127.0.0.1",
        "bindPort": 1,
        "options": {"accessLoggingService": {"accessLog": [{"openTelemetryService": log}]}},
        "httpListener": {"virtualHosts": [{"name": "all", "routes": [here]}]},
    }
    world, reports = translate_world({"proxy": {"listeners": [listener]}})
    assert all(report.clean for report in reports.values()), reports
    bootstrap = {
        "node": {"id": "envoy", "cluster": "gateway"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "static_resources": static_resources({"": world}, port=port),
    }
    async with running_envoy(tmp_path, bootstrap) as envoy:
        await envoy.get(port, "/secret")

        told = lambda: found.told["open_telemetry"]  # noqa: E731
        await eventually(told, until=lambda said: b"asked for /secret" in said)
    listening.close()
    await listening.wait_closed()


async def ask(envoy: Envoy, port: int, proxied: int) -> None:
    for path, headers in (("/a", {"x-log": "b"}), ("/bad", {}), ("/c", {"x-log": "ab"})):
        await envoy.get(port, path, headers)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxied)
    with closing(writer):
        writer.write(PROXIED + b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert b"200 OK" in await asyncio.wait_for(reader.read(-1), 10)


def cluster(name: str, port: int) -> dict[str, Any]:
    address = {"socketAddress": {"address": "127.0.0.1", "portValue": port}}
    endpoints = [{"lbEndpoints": [{"endpoint": {"address": address}}]}]
    return {
        "name": name,
        "type": "STATIC",
        "loadAssignment": {"clusterName": name, "endpoints": endpoints},
        "typedExtensionProtocolOptions": HTTP2,
    }


async def lines(path: Path, count: int) -> list[str]:
    """What is in a log, as soon as it has so many lines."""
    return await eventually(lambda: path.read_text().splitlines(), until=lambda found: len(found) >= count)
