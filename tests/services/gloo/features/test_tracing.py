"""What collectors of traces are told of real requests, by a real Envoy."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.support.envoy import running_envoy
from tests.support.golden import static_resources, translate_world
from tests.support.ports import free_port, free_ports
from tests.support.waiting import eventually

COLLECTOR = {"collectorUpstreamRef": {"name": "collector", "namespace": "ns"}}


class Collector:
    """Takes spans of any kind over HTTP, as they come."""

    def __init__(self) -> None:
        self.port = free_port()
        self.taken: dict[str, list[tuple[Mapping[str, str], bytes]]] = {}

    async def take(self, request: web.Request) -> web.Response:
        self.taken.setdefault(request.path, []).append((request.headers, await request.read()))
        return web.json_response({})

    async def spans(self, path: str, count: int) -> list[dict[str, Any]]:
        """Zipkin's spans, as soon as there are so many."""

        def found() -> list[dict[str, Any]]:
            return [span for _, body in self.taken.get(path, ()) for span in json.loads(body)]

        return await eventually(found, until=lambda spans: len(spans) >= count, within=20)


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with AsyncExitStack() as running:
        found, app = Collector(), web.Application()
        app.router.add_route("*", "/{path:.*}", found.take)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.5)
        await runner.setup()
        running.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", found.port).start()
        yield found


async def test_collectors_are_told_of_requests(tmp_path: Path, collector: Collector) -> None:
    url = "http://collector/v1/traces"
    token = [{"header": {"key": "x-token", "value": "abc"}}]
    http = {"httpUri": {"uri": url, "timeout": "5s"}, "requestHeadersToAdd": token}
    zipkin = {**COLLECTOR, "collectorEndpoint": "/zipkin", "collectorEndpointVersion": "HTTP_JSON"}
    settings: dict[str, dict[str, Any]] = {
        "zipkin": {
            "zipkinConfig": zipkin | {"traceId128bit": True},
            "requestHeadersForTags": ["x-user"],
            "literalsForTags": [{"tag": "where", "value": "here"}],
            "environmentVariablesForTags": [{"tag": "none", "name": "NOT_SET", "defaultValue": "nothing"}],
        },
        "never": {
            "zipkinConfig": zipkin | {"collectorEndpoint": "/never"},
            "tracePercentages": {"randomSamplePercentage": 0},
        },
        "open_telemetry": {
            "openTelemetryConfig": COLLECTOR | {"serviceName": "gateway", "httpService": http}
        },
        "datadog": {"datadogConfig": COLLECTOR | {"serviceName": "gateway"}},
    }
    routes = [
        direct("/named", tracing={"routeDescriptor": "a name"}),
        direct("/quiet", tracing={"tracePercentages": {"overallSamplePercentage": 0}}),
        direct("/"),
    ]
    listeners = [
        {
            "name": name,
            "bindAddress": "127.0.0.1",
            "bindPort": i + 1,
            "httpListener": {
                "virtualHosts": [{"name": "all", "domains": ["*"], "routes": routes}],
                "options": {"httpConnectionManagerSettings": {"tracing": given}},
            },
        }
        for i, (name, given) in enumerate(settings.items())
    ]
    hosts = [{"addr": "127.0.0.1", "port": collector.port}]
    upstream = {"metadata": {"name": "collector", "namespace": "ns"}, "static": {"hosts": hosts}}
    world, reports = translate_world({"proxy": {"listeners": listeners}, "upstreams": [upstream]})
    assert all(report.clean for report in reports.values()), reports
    admin, *ports = free_ports(5)
    port = dict(zip(settings, ports, strict=True))
    resources = static_resources({"": world}, port=1)
    for listener in resources["listeners"]:
        listener["address"]["socketAddress"]["portValue"] = port[listener["name"]]
    bootstrap = {
        "node": {"id": "envoy", "cluster": "gateway"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "static_resources": resources,
    }
    async with running_envoy(tmp_path, bootstrap) as envoy:
        for name in settings:
            await envoy.get(port[name], "/quiet")
            await envoy.get(port[name], "/named", {"x-user": "me"})
            await envoy.get(port[name], "/other")

        named, other = (await collector.spans("/zipkin", 2))[:2]
        assert (named["name"], named["tags"]["x-user"]) == ("a name", "me")
        assert (other["tags"]["where"], other["tags"]["none"]) == ("here", "nothing")
        assert len(named["traceId"]) == 32
        await eventually(lambda: set(collector.taken), until=lambda paths: "/v1/traces" in paths, within=20)
        headers, body = collector.taken["/v1/traces"][0]
        assert headers["x-token"] == "abc"
        assert b"gateway" in body
        await eventually(
            lambda: collector.taken.get("/v0.4/traces"), until=lambda found: bool(found), within=20
        )
    spans = await collector.spans("/zipkin", 2)
    assert not any("/quiet" in span["tags"]["http.url"] for span in spans)
    assert "/never" not in collector.taken


def direct(path: str, **options: Any) -> dict[str, Any]:
    answer = {"matchers": [{"prefix": path}], "directResponseAction": {"status": 200}}
    return answer | {"options": options}
