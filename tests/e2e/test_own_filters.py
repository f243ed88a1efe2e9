"""A Proxy written by hand with a filter in Envoy's own words, and what happens when Envoy refuses it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.ports import free_ports
from tests.support.stack import Stack
from tests.support.waiting import eventually

pytestmark = pytest.mark.e2e

LUA = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"


def script(code: str) -> dict[str, Any]:
    return {"@type": LUA, "defaultSourceCode": {"inlineString": code}}


async def test_what_envoy_refuses_of_a_filter_keeps_the_one_before(stack: Stack) -> None:
    port, admin = free_ports(2)
    stack.start_envoy("own", admin, metadata={"role": "gloo-system~own"})

    async def serve(config: dict[str, Any]) -> None:
        host = {"name": "a", "routes": [{"directResponseAction": {"status": 200}}]}
        http = {"virtualHosts": [host], "customHttpFilters": [{"name": "own", "config": config}]}
        listener = {"name": "own", "bindAddress": "127.0.0.1", "bindPort": port, "httpListener": http}
        await stack.put("Proxy", "own", {"listeners": [listener]})

    await serve(script("function envoy_on_response(handle) handle:headers():add('x-own', 'yes') end"))
    answer = await eventually(lambda: stack.get("/", port=port), until=lambda found: found.status == 200)
    assert answer.headers["x-own"] == "yes"

    for config, problem in (
        (script("not a script ("), "script load error"),
        ({"@type": "type.googleapis.com/no.such.Filter"}, "a registered implementation for 'own'"),
    ):
        await serve(config)
        await stack.status_is("Rejected", "Proxy", "own", saying=problem)
        assert (await stack.get("/", port=port)).headers["x-own"] == "yes"
