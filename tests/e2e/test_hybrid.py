"""Hybrid gateways: HTTP, TLS and TCP on one port, of which a bad one costs only itself."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import operator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.services.gloo.features.test_tcp import connected, greeting, who
from tests.support.certificates import Authority, server_context
from tests.support.https import https_get
from tests.support.ports import free_port
from tests.support.stack import GATEWAY, Stack, direct, virtual_service
from tests.support.traffic import undisturbed
from tests.support.waiting import eventually

pytestmark = pytest.mark.e2e

HYBRID = {name: value for name, value in GATEWAY.items() if name != "httpGateway"}
WEB, DB = "web.example.com", "db.example.com"


def server(name: str) -> dict[str, Any]:
    return {"options": {"httpConnectionManagerSettings": {"serverName": name}}}


def tcp(*names: str, **fields: Any) -> dict[str, Any]:
    hosts = [{"name": "all", "destination": {"single": {"upstream": {"name": "db"}}}}]
    gateway = {"tcpHosts": hosts, **fields}
    return {"matcher": {"sslConfig": {"sniDomains": list(names)}}, "tcpGateway": gateway}


async def test_a_bad_gateway_among_three_on_a_port_costs_only_itself(stack: Stack, tmp_path: Path) -> None:
    port, authority = free_port(), Authority(tmp_path / "ca")
    web, db = (authority.issue(name, f"DNS:{name}") for name in (WEB, DB))
    files = {"tlsCert": str(web.cert), "tlsKey": str(web.key)}

    def tls(**http: Any) -> dict[str, Any]:
        return {"matcher": {"sslConfig": {"sslFiles": files}}, "httpGateway": http}

    async def serve(*matched: dict[str, Any]) -> None:
        await stack.put(
            "Gateway", "hybrid", HYBRID | {"bindPort": port, "hybridGateway": {"matchedGateways": matched}}
        )

    async def calls_itself(name: str) -> None:
        await eventually(
            lambda: stack.get("/", port=port), until=lambda found: found.headers.get("server") == name
        )

    async with greeting("db", server_context(db)) as db_port:
        hosts = [{"addr": "127.0.0.1", "port": db_port}]
        await stack.put("Upstream", "db", {"static": {"hosts": hosts}})
        await stack.put("VirtualService", "plain", virtual_service(direct("/", "in the clear")))
        secure = virtual_service(direct("/", "under TLS")) | {"sslConfig": {"sniDomains": [WEB]}}
        await stack.put("VirtualService", "secure", secure)
        await serve(tls(), {"httpGateway": server("one")}, tcp(DB))
        await calls_itself("one")
        await eventually(lambda: https_get(port, WEB), until=lambda met: met.text == "under TLS")
        await eventually(lambda: who(port, DB), until=lambda said: said == "db")
        await stack.status_is("Accepted", "Gateway", "hybrid")

        async with connected(port, DB) as met, undisturbed(port, "example.com", saying=["in the clear"]):
            refused = "hybridGateway.matchedGateways[0].httpGateway.options.httpConnectionManagerSettings."
            await serve(
                tls(options={"httpConnectionManagerSettings": {"maxConnectionDuration": "-1s"}}),
                {"httpGateway": server("one")},
                tcp(DB),
            )
            await stack.status_is("Rejected", "Gateway", "hybrid", saying=f"{refused}maxConnectionDuration")
            assert (await https_get(port, WEB)).text == "under TLS"

            await serve({"matcher": tls()["matcher"]}, {"httpGateway": server("one")}, tcp(DB, WEB))
            await stack.status_is("Rejected", "Gateway", "hybrid", saying="matchedGateways[0]: has no type")
            assert (await https_get(port, WEB)).text == "under TLS"

            secure["virtualHost"]["routes"] = [direct("/", "still under TLS")]
            await stack.put("VirtualService", "secure", secure)
            await eventually(lambda: https_get(port, WEB), until=lambda met: met.text == "still under TLS")

            met.writer.write(b"hello\n")
            assert await asyncio.wait_for(met.reader.readline(), 10) == b"db hears hello\n"
            assert "total_listeners_draining: 0" in await stack.envoy(
                "/stats?filter=total_listeners_draining"
            )

        await serve(tls(), {"httpGateway": server("two")}, tcp(DB))
        await calls_itself("two")
        await stack.status_is("Accepted", "Gateway", "hybrid")


async def test_virtual_hosts_are_reached_by_their_own_tls_and_source_alone(tmp_path: Path) -> None:
    port, authority = free_port(), Authority(tmp_path / "ca")
    names = {name: authority.issue(name, f"DNS:{name}") for name in (WEB, DB)}
    settings = {"gateway": {"disableAutoGenGateways": True, "isolateVirtualHostsBySslConfig": True}}

    async def here(sni: str, host: str) -> str:
        return (await https_get(port, host, sni=sni)).text

    async with Stack(tmp_path, settings=settings) as stack:
        await stack.put("Gateway", "tls", GATEWAY | {"bindPort": port, "ssl": True})
        for name, made in names.items():
            files = {"tlsCert": str(made.cert), "tlsKey": str(made.key)}
            service = virtual_service(direct("/", name), domains=[name])
            tls = {"sslConfig": {"sslFiles": files, "sniDomains": [name]}}
            await stack.put("VirtualService", name, service | tls)
        for name in names:
            await eventually(partial(here, name, name), until=partial(operator.eq, name))
        assert (await here(WEB, DB), await here(DB, WEB)) == ("", "")
        stack.write_settings(gateway={"disableAutoGenGateways": True})
        await eventually(partial(here, WEB, DB), until=partial(operator.eq, DB))

        inside = {"matcher": {"sourcePrefixRanges": [{"addressPrefix": "127.0.0.2", "prefixLen": 32}]}}
        parts = [inside | {"httpGateway": server("inside")}, {"httpGateway": server("outside")}]
        await stack.put("VirtualService", "plain", virtual_service(direct("/", "hello")))
        await stack.put(
            "Gateway", "tls", HYBRID | {"bindPort": port, "hybridGateway": {"matchedGateways": parts}}
        )
        for source, name in (("127.0.0.2", "inside"), ("127.0.0.1", "outside")):
            await eventually(partial(server_for, port, source), until=partial(operator.eq, name))


async def server_for(port: int, source: str) -> str:
    """What Envoy calls itself to a client at *source*."""

    def ask() -> str:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10, source_address=(source, 0))
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/")
            return connection.getresponse().getheader("server", "")
        return ""

    return await asyncio.to_thread(ask)


async def test_teams_bring_their_parts_of_a_gateway_as_objects(stack: Stack) -> None:
    port = free_port()

    async def greets(name: str) -> None:
        await eventually(
            lambda: stack.get("/", port=port), until=lambda found: found.headers.get("server") == name
        )

    async with greeting("db") as db_port:
        hosts = [{"addr": "127.0.0.1", "port": db_port}]
        await stack.put("Upstream", "db", {"static": {"hosts": hosts}})
        await stack.put("VirtualService", "web", virtual_service(direct("/", "web")))
        delegated = {
            "delegatedHttpGateways": {"selector": {}},
            "delegatedTcpGateways": {"ref": {"name": "db"}},
        }
        await stack.put("Gateway", "hybrid", HYBRID | {"bindPort": port, "hybridGateway": delegated})
        missing = "hybridGateway.delegatedTcpGateways.ref: MatchableTcpGateway gloo-system.db not found"
        await stack.status_is("Warning", "Gateway", "hybrid", saying=missing)

        await stack.put("MatchableHttpGateway", "web", {"httpGateway": {}})
        await stack.put("MatchableTcpGateway", "db", tcp(DB))
        await stack.answers("/")
        status = await stack.status_is("Accepted", "MatchableHttpGateway", "web")
        assert status["details"]["usedBy"] == ["Gateway gloo-system.hybrid"]
        await stack.status_is("Accepted", "MatchableTcpGateway", "db")

        targets = {"targetRefs": [{"kind": "Gateway", "name": "hybrid"}]}
        await stack.put("HttpListenerOption", "named", server("shared") | targets)
        await greets("shared")
        await stack.status_is("Accepted", "HttpListenerOption", "named")
        wrong = {"options": {"httpConnectionManagerSettings": {"maxConnectionDuration": "-1s"}}}
        await stack.put("HttpListenerOption", "named", wrong | targets)
        told = "options.httpConnectionManagerSettings.maxConnectionDuration: must not be negative"
        await stack.status_is("Rejected", "HttpListenerOption", "named", saying=told)
        note = f"HttpListenerOption gloo-system.named: {told}"
        await stack.status_is("Warning", "MatchableHttpGateway", "web", saying=note)
        await greets("shared")

        await stack.put("MatchableHttpGateway", "web", {"httpGatewy": {}})
        await stack.status_is("Rejected", "MatchableHttpGateway", "web", saying="httpGatewy: unknown field")
        await stack.stop_process("gateway")
        stack.start_role("gateway")
        await stack.ready("gateway")
        await stack.put("MatchableTcpGateway", "db", tcp("other.example.com"))
        await stack.status_is("Accepted", "MatchableTcpGateway", "db")
        await greets("shared")

        await stack.put("MatchableHttpGateway", "web", {"httpGateway": server("own")})
        await stack.put("HttpListenerOption", "named", server("shared") | targets)
        await greets("own")
        await stack.delete("MatchableHttpGateway", "web")
        await eventually(lambda: stack.get("/", port=port), until=lambda found: found.status == 0)
