"""What the features do to real requests through a real Envoy."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.backends import Backend
from tests.support.envoy import Envoy, running_envoy
from tests.support.golden import static_resources, translate_world
from tests.support.ports import free_ports

Ask = Callable[..., Any]
GONE = {"upstream": {"name": "gone", "namespace": "ns"}}
HERE = {"upstream": {"name": "here", "namespace": "ns"}}


def route(path: str, **options: Any) -> dict[str, Any]:
    return {"matchers": [{"prefix": path}], "routeAction": {"single": HERE}, "options": options}


FAULT = {"faults": {"abort": {"percentage": 100, "httpStatus": 418}}}
ADDED = {"requestHeadersToAdd": [{"header": {"key": "x-protocol", "value": "%PROTOCOL%"}}]}
MATCHED = {"prefix": "/m", "headers": [{"name": "x-a", "value": "[bc]", "regex": True}]}
ROUTES = [
    route("/fault", **FAULT),
    route("/prefix", prefixRewrite="/new"),
    {**route("/regex", prefixRewrite="/whole"), "matchers": [{"regex": "/regex/.*"}]},
    route("/host", hostRewrite="other.example.com"),
    route("/header", headerManipulation=ADDED),
    route("/timeout", timeout="0.05s"),
    route("/retries", retries={"retryOn": "5xx", "numRetries": 2}),
    {"matchers": [{"prefix": "/direct"}], "directResponseAction": {"status": 202, "body": "direct"}},
    {"matchers": [MATCHED], "directResponseAction": {"status": 203}},
    {"matchers": [{"prefix": "/missing"}], "routeAction": {"single": GONE}},
    {"matchers": [{"prefix": "/broken"}], "directResponseAction": {"status": 200}, "options": {"waf": {}}},
    route("/"),
]


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    async with Backend("here") as running:
        yield running


@pytest.fixture
async def ask(backend: Backend, tmp_path: Path) -> AsyncIterator[Ask]:
    port, admin = free_ports(2)
    hosts = [{"addr": "127.0.0.1", "port": backend.port}]
    upstream = {"metadata": {"name": "here", "namespace": "ns"}, "static": {"hosts": hosts}}
    world, _ = translate_world({"routes": ROUTES, "upstreams": [upstream]})
    at = {"socket_address": {"address": "127.0.0.1", "port_value": admin}}
    resources = static_resources({"": world}, port=port)
    async with running_envoy(tmp_path, {"admin": {"address": at}, "static_resources": resources}) as envoy:
        yield asking(envoy, port)


def asking(envoy: Envoy, port: int) -> Ask:
    async def ask(path: str, **headers: str) -> tuple[int, Any]:
        status, text = await envoy.get(port, path, {name.replace("_", "-"): v for name, v in headers.items()})
        return status, json.loads(text) if text.startswith("{") else text

    return ask


async def test_routes_do_what_their_options_say(ask: Ask, backend: Backend) -> None:
    assert (await ask("/fault"))[0] == 418
    assert (await ask("/prefix/a"))[1]["path"] == "/new/a"
    assert (await ask("/regex/a?q=1"))[1]["path"] == "/whole?q=1"
    assert (await ask("/host"))[1]["host"] == "other.example.com"
    assert (await ask("/header"))[1]["headers"]["x-protocol"] == "HTTP/1.1"
    assert (await ask("/direct")) == (202, "direct")
    assert (await ask("/m", x_a="c"))[0] == 203
    assert (await ask("/m", x_a="cc"))[1]["path"] == "/m"
    assert (await ask("/missing"))[0] == 503
    assert (await ask("/broken"))[1]["path"] == "/broken", "a broken route is not there"
    assert (await ask("/other"))[1]["path"] == "/other", "a filter is off where no route switches it on"

    backend.failures = 2
    assert (await ask("/retries"))[0] == 200
    backend.failures = 1
    assert (await ask("/other"))[0] == 503
    backend.delay = 0.2
    assert (await ask("/timeout"))[0] == 504
