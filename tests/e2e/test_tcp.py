"""TCP through the whole system: long connections that edits do not disturb, and whom a mistake is told to."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.services.gloo.features.test_tcp import connected, greeting, who
from tests.support.certificates import Authority, server_context
from tests.support.ports import free_port
from tests.support.stack import GATEWAY, Stack, direct, virtual_service
from tests.support.waiting import eventually

pytestmark = pytest.mark.e2e

NOT_HTTP = {name: value for name, value in GATEWAY.items() if name != "httpGateway"}


def host(name: str, upstream: str, *names: str) -> dict[str, Any]:
    made: dict[str, Any] = {"name": name, "destination": {"single": {"upstream": {"name": upstream}}}}
    return made | {"sslConfig": {"sniDomains": list(names)}} if names else made


async def test_a_long_connection_survives_unrelated_edits(stack: Stack, tmp_path: Path) -> None:
    port, certificate = free_port(), Authority(tmp_path / "ca").issue("db", "DNS:db.example.com")

    async def serve(*hosts: dict[str, Any]) -> None:
        await stack.put("Gateway", "tcp", NOT_HTTP | {"bindPort": port, "tcpGateway": {"tcpHosts": hosts}})

    async def static(name: str, port: int, **fields: Any) -> None:
        await stack.put(
            "Upstream", name, {"static": {"hosts": [{"addr": "127.0.0.1", "port": port}]}, **fields}
        )

    async def reaches(name: str, backend: str) -> None:
        await eventually(lambda: who(port, name), until=lambda said: said == backend)

    tls = server_context(certificate)
    async with greeting("db", tls) as db, greeting("other", tls) as other:
        await static("db", db)
        await static("other", other)
        await serve(host("db", "db", "db.example.com"))
        await reaches("db.example.com", "db")

        async with connected(port, "db.example.com") as met:
            for i in range(5):
                await stack.put("VirtualService", "web", virtual_service(direct("/", f"version {i}")))
                await stack.answers("/", saying=f"version {i}")
                await static("other", other, connectionConfig={"maxRequestsPerConnection": i + 1})
                await serve(host("db", "db", "db.example.com"), host(f"a{i}", "other", f"{i}.example.com"))
                await reaches(f"{i}.example.com", "other")
            met.writer.write(b"hello\n")
            said = await asyncio.wait_for(met.reader.readline(), 10)
            draining = await stack.envoy(
                "/stats?filter=listener_manager.total_(listeners|filter_chains)_draining"
            )

        assert said == b"db hears hello\n"
        assert "total_listeners_draining: 0" in draining
        assert "total_filter_chains_draining: 4" in draining  # those that were taken away


async def test_a_mistake_in_a_host_is_told_to_the_gateway_and_costs_that_host_alone(stack: Stack) -> None:
    port = free_port()

    async def serve(*hosts: dict[str, Any]) -> None:
        await stack.put("Gateway", "tcp", NOT_HTTP | {"bindPort": port, "tcpGateway": {"tcpHosts": hosts}})

    async with greeting("db") as db:
        hosts = [{"addr": "127.0.0.1", "port": db}]
        await stack.put("Upstream", "db", {"static": {"hosts": hosts}})
        await serve(host("db", "db"))
        await eventually(lambda: who(port), until=lambda said: said == "db")

        await serve(host("db", "db"), host("too", "db"))

        problem = "tcpGateway.tcpHosts[1].sslConfig.sniDomains: needed: all other names go to the host db"
        await stack.status_is("Rejected", "Gateway", "tcp", saying=problem)
        await stack.status_is("Accepted", "Gateway", "gateway-proxy")
        assert await who(port) == "db"

        await serve(host("db", "missing"))
        missing = "tcpGateway.tcpHosts[0].destination.single.upstream: *v1.Upstream { gloo-system.missing }"
        await stack.status_is("Warning", "Gateway", "tcp", saying=missing)
        await eventually(lambda: who(port), until=lambda said: not said)
