"""What the options of Upstreams do to real requests, connections and hosts, through a real Envoy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from grpclib.health.check import ServiceStatus
from grpclib.health.service import OVERALL, Health
from grpclib.server import Server

from tests.support.backends import Backend
from tests.support.envoy import Envoy, running_envoy
from tests.support.golden import static_resources, translate_world
from tests.support.http_proxy import http_proxy
from tests.support.ports import free_port, free_ports
from tests.support.stack import fetch
from tests.support.waiting import eventually

Document = dict[str, Any]
SOON = {"timeout": "1s", "interval": "0.05s", "noTrafficInterval": "0.05s"}
OFTEN = SOON | {"unhealthyThreshold": 1, "healthyThreshold": 1}
NO_PANIC = {"loadBalancerConfig": {"healthyPanicThreshold": 0, "updateMergeWindow": "0s"}}


class Patient(Backend):
    """A backend with a health of its own, and a memory of who asked for it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.health = 200
        self.says = "well"
        self.asked_by: list[tuple[str, str, Mapping[str, str], str]] = []

    async def _answer(self, request: web.Request) -> web.Response:
        if request.path != "/health":
            return await super()._answer(request)
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked_by.append((request.method, request.host, headers, await request.text()))
        told = {"x-envoy-upstream-healthchecked-cluster": "pets-blue"}
        return web.Response(status=self.health, text=self.says, headers=told)


@dataclass(slots=True)
class Gateway:
    """A running Envoy with a route ``/<name>`` to each upstream."""

    envoy: Envoy
    port: int

    async def ask(self, path: str, **headers: str) -> tuple[int, Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        status, text = await self.envoy.get(self.port, path, named)
        return status, json.loads(text) if text.startswith("{") else text

    async def headers(self, path: str) -> Mapping[str, str]:
        return (await fetch(f"http://127.0.0.1:{self.port}{path}")).headers

    async def backend(self, path: str, **headers: str) -> str | int:
        """Who answers; the status when it is an error."""
        status, seen = await self.ask(path, **headers)
        return str(seen["backend"]) if status == 200 else status

    async def backends(self, path: str, times: int = 6, **headers: str) -> list[str | int]:
        return [await self.backend(path, **headers) for _ in range(times)]

    async def stat(self, upstream: str, name: str) -> int:
        found = await self.envoy.stats(f"^cluster.{upstream}_ns.{name}$")
        return found.get(f"cluster.{upstream}_ns.{name}", 0)


def hosts(*members: Backend | int, **fields: Any) -> Document:
    ports = [member.port if isinstance(member, Backend) else member for member in members]
    return {"static": {"hosts": [{"addr": "127.0.0.1", "port": port} for port in ports]}, **fields}


@asynccontextmanager
async def gateway(
    folder: Path,
    upstreams: Mapping[str, Document],
    routes: Sequence[Document] = (),
    *,
    endpoints: Sequence[Document] = (),
    files: Mapping[str, Path] | None = None,
    ports: tuple[int, int] | None = None,
) -> AsyncIterator[Gateway]:
    """Serve *upstreams*, each below its name; those in Consul have *endpoints*, or what is in *files*."""
    named = [{"metadata": {"name": name, "namespace": "ns"}, **each} for name, each in upstreams.items()]
    found = [*routes, *(route_to(name) for name in upstreams)]
    placed = {f"{name}_ns": endpoints for name in upstreams}
    world, reports = translate_world({"routes": found, "upstreams": named, "endpoints": placed})
    assert not [str(problem) for report in reports.values() for problem in report.errors]
    port, admin = ports or free_ports(2)
    resources = static_resources({"": world}, port=port)
    for cluster in resources["clusters"]:
        if path := (files or {}).get(cluster["name"].removesuffix("_ns")):
            source = {"pathConfigSource": {"path": str(path)}, "resourceApiVersion": "V3"}
            del cluster["loadAssignment"]
            cluster |= {"type": "EDS", "edsClusterConfig": {"edsConfig": source}}
    at = {"socket_address": {"address": "127.0.0.1", "port_value": admin}}
    bootstrap = {
        "node": {"id": "envoy", "cluster": "gateway"},
        "admin": {"address": at},
        "static_resources": resources,
    }
    async with running_envoy(folder, bootstrap) as envoy:
        yield Gateway(envoy, port)


def route_to(name: str, prefix: str = "", **options: Any) -> Document:
    single = {"upstream": {"name": name, "namespace": "ns"}}
    return {
        "matchers": [{"prefix": prefix or f"/{name}"}],
        "routeAction": {"single": single},
        "options": options,
    }


@dataclass(slots=True)
class Listening:
    """A socket that keeps what is sent to it, one entry a connection, and answers what it was told to."""

    port: int = 0
    answer: bytes = b""
    heard: list[bytes] = field(default_factory=list)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine = len(self.heard)
        self.heard.append(b"")
        try:
            while more := await reader.read(65536):
                self.heard[mine] += more
                if self.answer:
                    writer.write(self.answer)
                    await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def listening(answer: bytes = b"", path: Path | None = None) -> AsyncIterator[Listening]:
    socket = Listening(answer=answer)
    if path is not None:
        server = await asyncio.start_unix_server(socket.take, path)
    else:
        server = await asyncio.start_server(socket.take, "127.0.0.1", 0)
        socket.port = server.sockets[0].getsockname()[1]
    async with server:
        yield socket


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Patient, Patient]]:
    async with Patient("one") as one, Patient("two") as two:
        yield one, two


def all_from(*names: str | int) -> Callable[[list[str | int]], bool]:
    return lambda answers: set(answers) == set(names)


async def test_only_healthy_instances_get_requests(pair: tuple[Patient, Patient], tmp_path: Path) -> None:
    one, two = pair
    two.health = 500
    log = tmp_path / "health.log"
    asking: Document = {
        "path": "/health?full=1",
        "host": "pets.example.com",
        "method": "POST",
        "send": {"text": "70696e67"},
        "requestHeadersToAdd": [{"header": {"key": "x-checked-by", "value": "gateway"}}],
        "requestHeadersToRemove": ["user-agent"],
    }

    def check(**more: Any) -> Document:
        return {"healthChecks": [OFTEN | {"httpHealthCheck": {"path": "/health", **more}}], **NO_PANIC}

    upstreams = {
        "asked": hosts(
            one, two, healthChecks=[OFTEN | {"httpHealthCheck": asking, "eventLogPath": str(log)}], **NO_PANIC
        ),
        "panicking": hosts(one, two, healthChecks=[OFTEN | {"httpHealthCheck": {"path": "/health"}}]),
        "failing": hosts(one, two, **check(expectedStatuses=[{"start": 500, "end": 501}])),
        "speaking": hosts(one, two, **check(receive={"text": b"well".hex()})),
        "named": hosts(one, two, **check(serviceName="pets")),
        "misnamed": hosts(one, two, **check(serviceName="dogs")),
    }
    async with gateway(tmp_path, upstreams) as envoy:
        await eventually(lambda: envoy.backends("/asked"), until=all_from("one"))
        await eventually(lambda: envoy.backends("/named"), until=all_from("one"))
        await eventually(lambda: envoy.backends("/speaking"), until=all_from("one"))
        await eventually(lambda: envoy.backends("/failing"), until=all_from("two"))
        await eventually(lambda: envoy.backends("/misnamed"), until=all_from(503))
        assert ("POST", "pets.example.com", "ping") in [
            (method, host, body)
            for method, host, headers, body in one.asked_by
            if headers.get("x-checked-by") == "gateway" and "user-agent" not in headers
        ]

        one.health, two.health, two.says = 404, 200, "ill"
        await eventually(lambda: envoy.backends("/asked"), until=all_from("two"))
        await eventually(lambda: envoy.backends("/speaking"), until=all_from(503))

        two.health = 500
        await eventually(lambda: envoy.backends("/asked"), until=all_from(503))
        await eventually(lambda: envoy.backends("/panicking"), until=all_from("one", "two"))
        assert "add_healthy_event" in log.read_text()


async def test_instances_are_checked_by_tcp_and_grpc(tmp_path: Path) -> None:
    ping = {"send": {"text": b"ping".hex()}, "receive": [{"binary": "cG9uZw=="}]}
    status = ServiceStatus()
    status.set(True)
    server, grpc_port = Server([Health({OVERALL: [status]})]), free_port()
    await server.start("127.0.0.1", grpc_port)
    async with listening(b"pong") as pong, listening(b"beep") as beep:
        upstreams = {
            "pong": hosts(pong.port, healthChecks=[OFTEN | {"tcpHealthCheck": ping}]),
            "beep": hosts(beep.port, healthChecks=[OFTEN | {"timeout": "0.2s", "tcpHealthCheck": ping}]),
            "open": hosts(beep.port, healthChecks=[OFTEN | {"tcpHealthCheck": {}}]),
            "closed": hosts(free_port(), healthChecks=[OFTEN | {"tcpHealthCheck": {}}]),
            "grpc": hosts(grpc_port, healthChecks=[OFTEN | {"grpcHealthCheck": {}}], useHttp2=True),
            "nobody": hosts(
                grpc_port, healthChecks=[OFTEN | {"grpcHealthCheck": {"serviceName": "x.Y"}}], useHttp2=True
            ),
        }
        async with gateway(tmp_path, upstreams) as envoy:
            for name in ("pong", "open", "grpc"):
                await eventually(partial(envoy.stat, name, "membership_healthy"))
            for name in ("beep", "closed", "nobody"):
                assert await envoy.stat(name, "membership_healthy") == 0, name

            status.set(False)
            await eventually(lambda: envoy.stat("grpc", "membership_healthy"), until=lambda n: n == 0)
    server.close()
    await server.wait_closed()


async def test_instances_that_fail_are_left_out(pair: tuple[Patient, Patient], tmp_path: Path) -> None:
    one, two = pair
    two.failures = 1000
    watching = {"interval": "0.05s", "baseEjectionTime": "60s"}
    upstreams = {
        "answers": hosts(one, two, outlierDetection=watching | {"consecutive5xx": 2}),
        "shy": hosts(
            one, two, outlierDetection=watching | {"consecutive5xx": 2, "enforcingConsecutive5xx": 0}
        ),
        "connections": hosts(
            *(one, free_port()),
            outlierDetection=watching
            | {"splitExternalLocalOriginErrors": True, "consecutiveLocalOriginFailure": 1},
        ),
    }
    async with gateway(tmp_path, upstreams) as envoy:
        assert 503 in await envoy.backends("/answers", 8)
        assert await envoy.backends("/answers", 8) == ["one"] * 8
        assert await envoy.stat("answers", "outlier_detection.ejections_active") == 1
        assert 503 in await envoy.backends("/connections", 4)
        assert await envoy.backends("/connections", 8) == ["one"] * 8
        await envoy.backends("/shy", 8)
        assert set(await envoy.backends("/shy", 8)) == {"one", 503}


async def test_load_is_balanced_as_asked(pair: tuple[Patient, Patient], tmp_path: Path) -> None:
    one, two = pair
    hashing = {"lbHash": {"hashPolicies": [{"header": "x-user"}]}}
    upstreams = {
        "turns": hosts(one, two, loadBalancerConfig={"roundRobin": {}}),
        "chance": hosts(one, two, loadBalancerConfig={"random": {}}),
        "least": hosts(one, two, loadBalancerConfig={"leastRequest": {"choiceCount": 10}}),
        "ring": hosts(one, two, loadBalancerConfig={"ringHash": {"ringHashConfig": {"minimumRingSize": 64}}}),
        "maglev": hosts(one, two, loadBalancerConfig={"maglev": {}}),
    }
    routes = [route_to(name, **hashing) for name in ("ring", "maglev")]
    async with gateway(tmp_path, upstreams, routes) as envoy:
        turns = await envoy.backends("/turns", 30)
        assert all(before != after for before, after in pairwise(turns))
        chance = await envoy.backends("/chance", 30)
        assert any(before == after for before, after in pairwise(chance))
        assert set(chance) == {"one", "two"}

        for path in ("/ring", "/maglev"):
            users = {f"user-{n}": await envoy.backend(path, x_user=f"user-{n}") for n in range(20)}
            assert set(users.values()) == {"one", "two"}
            assert {user: await envoy.backend(path, x_user=user) for user in users} == users

        one.delay = 1.5
        waiting = [asyncio.create_task(envoy.backend("/least")) for _ in range(6)]

        async def only_one_is_busy() -> bool:
            busy = await envoy.stat("least", "upstream_rq_active")
            return 0 < busy == sum(not task.done() for task in waiting)

        await eventually(only_one_is_busy)
        assert await envoy.backends("/least", 5) == ["two"] * 5
        await asyncio.gather(*waiting)


async def test_subsets_go_with_every_load_balancer(pair: tuple[Patient, Patient], tmp_path: Path) -> None:
    one, two = pair
    slowly = {"slowStartConfig": {"slowStartWindow": "10s"}}
    balancers = (
        {"roundRobin": slowly},
        {"leastRequest": slowly},
        {"random": {}},
        {"ringHash": {}},
        {"maglev": {}},
    )
    upstreams = {
        next(iter(each)).lower(): {
            "consul": {"serviceName": "pets", "subsetTags": ["v1", "v2"]},
            "loadBalancerConfig": each,
        }
        for each in balancers
    }
    only_two = {"subset": {"values": {"tag_v1": "0", "tag_v2": "1"}}}
    routes = [route_to(name, f"/{name}/two") for name in upstreams]
    for route in routes:
        route["routeAction"]["single"] |= only_two
    endpoints = [
        {"address": "127.0.0.1", "port": member.port, "tags": [tag]}
        for member, tag in ((one, "v1"), (two, "v2"))
    ]
    async with gateway(tmp_path, upstreams, routes, endpoints=endpoints) as envoy:
        for name in upstreams:
            assert await envoy.backends(f"/{name}/two", 8) == ["two"] * 8, name
            assert set(await envoy.backends(f"/{name}", 20)) == {"one", "two"}, name


def assignment(name: str, members: Sequence[Backend]) -> Document:
    """The endpoints of an upstream, for Envoy to read from a file."""
    addresses = [{"socketAddress": {"address": "127.0.0.1", "portValue": each.port}} for each in members]
    kind = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    endpoints = [{"lbEndpoints": [{"endpoint": {"address": address}} for address in addresses]}]
    return {"@type": kind, "clusterName": f"{name}_ns", "endpoints": endpoints}


async def test_changes_of_hosts_are_taken_as_asked(pair: tuple[Patient, Patient], tmp_path: Path) -> None:
    one, two = pair
    checked: Document = {"healthChecks": [OFTEN | {"httpHealthCheck": {"path": "/health"}}], **NO_PANIC}
    slowly: Document = {"slowStartConfig": {"slowStartWindow": "600s", "minWeightPercent": 0}}
    options: dict[str, Document] = {
        "plain": {},
        "closing": {"loadBalancerConfig": {"closeConnectionsOnHostSetChange": True}},
        "slow": {"loadBalancerConfig": {"roundRobin": slowly}},
        "careful": {"loadBalancerConfig": {"leastRequest": slowly}},
        "staying": checked,
        "leaving": checked | {"ignoreHealthOnHostRemoval": True},
        "patient": checked | {"loadBalancerConfig": {"updateMergeWindow": "600s"}},
    }
    upstreams = {name: {"consul": {"serviceName": "pets"}, **each} for name, each in options.items()}
    files = {name: tmp_path / f"{name}.json" for name in upstreams}

    def place(*members: Backend) -> None:
        """Envoy reads a file when another one is moved into its place."""
        for name, path in files.items():
            scratch = path.with_suffix(".new")
            scratch.write_text(json.dumps({"resources": [assignment(name, members)]}))
            scratch.replace(path)

    place(one)
    async with gateway(tmp_path, upstreams, files=files) as envoy:
        for name in upstreams:
            await eventually(partial(envoy.backend, f"/{name}"), until=lambda got: got == "one")
        await eventually(
            partial(envoy.envoy.stats, "^server.uptime$"), until=lambda found: found["server.uptime"] > 1
        )

        place(one, two)
        for name in upstreams:
            await eventually(partial(envoy.stat, name, "membership_healthy"), until=lambda n: n == 2)
        assert (await envoy.backends("/plain", 40)).count("two") == 20
        assert (await envoy.backends("/slow", 40)).count("two") < 15, "a new instance starts slowly"
        assert (await envoy.backends("/careful", 40)).count("two") < 15
        assert await envoy.stat("plain", "upstream_cx_destroy") == 0
        await eventually(lambda: envoy.stat("closing", "upstream_cx_destroy"))
        await eventually(lambda: envoy.backends("/staying"), until=all_from("one", "two"))
        assert set(await envoy.backends("/patient")) == {"one"}, "the news of its health is not passed on yet"

        place(two)
        await eventually(lambda: envoy.backends("/plain"), until=all_from("two"))
        await eventually(lambda: envoy.backends("/leaving"), until=all_from("two"))
        assert set(await envoy.backends("/staying")) == {"one", "two"}, "who is well may stay"
        one.health = 500
        await eventually(lambda: envoy.backends("/staying"), until=all_from("two"))


async def test_http_is_spoken_as_asked(tmp_path: Path) -> None:
    settings = bytes.fromhex("000000040000000000")  # HTTP/2's greeting
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-A: 1\r\nX-B: 2\r\n\r\n"
    async with listening(settings) as frames, listening(answer) as plain, Backend("slow") as slow:
        common = "commonHttpProtocolOptions"
        upstreams = {
            "windows": hosts(
                frames.port,
                useHttp2=True,
                initialStreamWindowSize=70000,
                initialConnectionWindowSize=80000,
            ),
            "proper": hosts(
                plain.port, connectionConfig={"http1ProtocolOptions": {"properCaseHeaderKeyFormat": True}}
            ),
            "few-headers": hosts(plain.port, connectionConfig={common: {"maxHeadersCount": 2}}),
            "once": hosts(slow, connectionConfig={"maxRequestsPerConnection": 1}),
            "again": hosts(slow),
            "idle": hosts(slow, connectionConfig={common: {"idleTimeout": "0.05s"}}),
            "short": hosts(slow, connectionConfig={common: {"maxStreamDuration": "0.1s"}}),
        }
        async with gateway(tmp_path, upstreams) as envoy:
            await envoy.backends("/once", 3)
            await envoy.backends("/again", 3)
            assert await envoy.stat("once", "upstream_cx_total") == 3
            assert await envoy.stat("again", "upstream_cx_total") == 1

            await envoy.backend("/idle")
            await eventually(lambda: envoy.stat("idle", "upstream_cx_idle_timeout"))
            assert await envoy.stat("again", "upstream_cx_idle_timeout") == 0

            assert (await envoy.ask("/few-headers"))[0] == 502
            assert (await envoy.ask("/proper"))[0] == 200
            assert b"X-Forwarded-Proto: http\r\n" in plain.heard[-1]

            slow.delay = 0.5
            assert (await envoy.ask("/short"))[0] == 504
            assert (await envoy.ask("/again"))[0] == 200

            asking = asyncio.create_task(envoy.ask("/windows"))
            await eventually(lambda: frames.heard and len(frames.heard[-1]) > 60)
            asking.cancel()
            heard = frames.heard[-1]
            assert heard.startswith(b"PRI * HTTP/2.0")
            assert bytes.fromhex("0004") + (70000).to_bytes(4) in heard, "SETTINGS_INITIAL_WINDOW_SIZE"
            assert (80000 - 65535).to_bytes(4) in heard, "WINDOW_UPDATE of the connection"


async def test_the_version_of_http_is_the_clients_where_asked(tmp_path: Path) -> None:
    """The gateway is its own upstream: what it was asked by is seen in the answer."""
    port, admin = free_ports(2)
    told = {"responseHeadersToAdd": [{"header": {"key": "x-version", "value": "%PROTOCOL%"}}]}
    upstreams = {
        "new": hosts(port, useHttp2=True),
        "same": hosts(port, protocolSelection="USE_DOWNSTREAM_PROTOCOL"),
        "one-by-one": hosts(port, useHttp2=True, maxConcurrentStreams=1),
        "together": hosts(port, useHttp2=True),
    }
    last: Document = {"directResponseAction": {"status": 200}, "options": {"headerManipulation": told}}
    late = {"faults": {"delay": {"percentage": 100, "fixedDelay": "0.3s"}}}
    routes = [
        last | {"matchers": [{"prefix": "/tell"}]},
        last | {"matchers": [{"prefix": "/late"}], "options": late},
        route_to("new", "/new-same", prefixRewrite="/same-tell"),
        route_to("same", "/same-tell", prefixRewrite="/tell"),
        route_to("new", "/new-tell", prefixRewrite="/tell"),
        route_to("one-by-one", "/one-by-one", prefixRewrite="/late"),
        route_to("together", "/together", prefixRewrite="/late"),
    ]
    async with gateway(tmp_path, upstreams, routes, ports=(port, admin)) as envoy:

        async def version(path: str) -> str:
            return (await envoy.headers(path))["x-version"]

        assert await version("/tell") == "HTTP/1.1"
        assert await version("/new-tell") == "HTTP/2"
        assert await version("/same-tell") == "HTTP/1.1"
        assert await version("/new-same") == "HTTP/2"

        for path in ("/one-by-one", "/together"):
            await asyncio.gather(*(envoy.ask(path) for _ in range(3)))
        assert await envoy.stat("one-by-one", "upstream_cx_total") == 3
        assert await envoy.stat("together", "upstream_cx_total") == 1


async def test_connections_are_made_as_asked(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    path = tmp_path / "pets.sock"
    async with listening(answer) as old, listening(answer) as new, listening(answer, path) as pipe:
        upstreams = {
            "pipe": {"pipe": {"path": str(path)}},
            "v1": hosts(old.port, proxyProtocolVersion="V1"),
            "v2": hosts(new.port, proxyProtocolVersion="V2"),
            "ahead": hosts(old.port, preconnectPolicy={"perUpstreamPreconnectRatio": 3}),
            "names": {
                "static": {"hosts": [{"addr": "localhost", "port": old.port}]},
                "dnsRefreshRate": "0.01s",
            },
        }
        async with gateway(tmp_path, upstreams) as envoy:
            for name in upstreams:
                assert (await envoy.ask(f"/{name}"))[0] == 200, name
            assert b"GET /pipe HTTP/1.1" in pipe.heard[0]
            assert any(heard.startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ") for heard in old.heard)
            assert new.heard[0].startswith(b"\r\n\r\n\0\r\nQUIT\n\x21\x11")
            await eventually(lambda: envoy.stat("ahead", "upstream_cx_total"), until=lambda n: n == 3)
            await eventually(lambda: envoy.stat("names", "update_attempt"), until=lambda n: n > 5)


async def test_a_service_is_reached_through_an_http_proxy(tmp_path: Path) -> None:
    async with http_proxy() as proxy, Backend("far") as far:
        name = f"far-{far.port}"  # sockets in the abstract namespace are everybody's
        upstream = hosts(
            proxy.port,
            httpProxyHostname=f"127.0.0.1:{far.port}",
            httpConnectHeaders=[{"key": "x-reason", "value": "far away"}],
        )
        async with gateway(tmp_path, {name: upstream}) as envoy:
            assert await envoy.backend(f"/{name}") == "far"
        assert proxy.asked[0].startswith(f"CONNECT 127.0.0.1:{far.port} HTTP/1.1\r\n".encode())
        assert b"x-reason: far away\r\n" in proxy.asked[0]
