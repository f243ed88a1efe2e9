"""HTTP/3 by a real Envoy, asked by another one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.support.certificates import Authority
from tests.support.envoy import running_envoy
from tests.support.golden import static_resources, translate_world
from tests.support.http3 import http3_client
from tests.support.https import Https, client_context
from tests.support.ports import free_ports

Document = dict[str, Any]


def asked(port: int, host: str) -> tuple[int, str | None]:
    """Over TLS on TCP: the status, and what is told of HTTP/3."""
    connection = Https(port, host, client_context())
    try:
        connection.request("GET", "/", headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.getheader("alt-svc")
    finally:
        connection.close()


async def test_http3_is_spoken_beside_the_others(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    server, ours = (
        authority.issue("server", "DNS:a.example.com", "DNS:b.example.com"),
        authority.issue("ours", "DNS:client"),
    )
    files = {"tlsCert": str(server.cert), "tlsKey": str(server.key)}
    here = {"matchers": [{"prefix": "/"}], "directResponseAction": {"status": 200, "body": "here"}}
    port, admin = free_ports(2)
    listener = {
        "name": "edge",
        "bindAddress": "127.0.0.1",
        "bindPort": port,
        "sslConfigurations": [
            {"sslFiles": files, "sniDomains": ["a.example.com"]},
            {"sslFiles": {**files, "rootCa": str(authority.cert)}, "sniDomains": ["b.example.com"]},
        ],
        "httpListener": {
            "statPrefix": "edge",
            "options": {"http3": {"advertisedFor": "60s"}},
            "virtualHosts": [{"name": "all", "domains": ["*"], "routes": [here]}],
        },
    }
    world, reports = translate_world({"proxy": {"listeners": [listener]}})
    assert all(report.clean for report in reports.values()), reports
    resources = static_resources({"": world}, port=1)
    for each in resources["listeners"]:
        each["address"]["socketAddress"]["portValue"] = port
    bootstrap = {
        "node": {"id": "envoy", "cluster": "gateway"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "static_resources": resources,
    }
    async with running_envoy(tmp_path, bootstrap) as envoy:
        assert await asyncio.to_thread(asked, port, "a.example.com") == (200, f'h3=":{port}"; ma=60')

        async with http3_client(tmp_path, port, "a.example.com", authority) as (client, at):
            assert await client.get(at) == (200, "here")
        async with http3_client(tmp_path, port, "b.example.com", authority) as (client, at):
            assert (await client.get(at))[0] == 503  # it shows no certificate
        async with http3_client(tmp_path, port, "b.example.com", authority, ours) as (client, at):
            assert await client.get(at) == (200, "here")

        stats = await envoy.stats("^http.edge.downstream_rq_http[13]_total$")
        assert stats == {
            "http.edge.downstream_rq_http1_total": 1,
            "http.edge.downstream_rq_http3_total": 2,
        }
