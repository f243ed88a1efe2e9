"""``glooctl wait`` and ``glooctl proxy`` on the whole system."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.stack import GATEWAY, Stack, direct, virtual_service
from tests.support.waiting import eventually

pytestmark = pytest.mark.e2e

VS = "VirtualService"
BROKEN = direct("/", "x", options={"faults": {"abort": {"percentage": 300, "httpStatus": 500}}})


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with Stack(tmp_path) as running:
        yield running


async def glooctl(stack: Stack, *words: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "glooctl", *words, "--consul-address", stack.consul.address],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return await process.wait(), out.decode(), err.decode()


async def test_what_wait_says_of_a_route_is_true(stack: Stack) -> None:
    for number in range(5):
        await stack.put(VS, "web", virtual_service(direct("/", f"answer {number}")))
        code, out, err = await glooctl(stack, "wait", "vs", "web", "--for", "acked")
        assert (code, out, err) == (0, "VirtualService gloo-system.web is acked\n", "")
        assert (await stack.get("/")).text == f"answer {number}"


async def test_a_status_of_before_the_edit_does_not_count(stack: Stack) -> None:
    """The author's text carries the old status along, as an editor's does."""
    await stack.put(VS, "web", virtual_service(direct("/", "good")))
    assert (await glooctl(stack, "wait", "vs", "web"))[0] == 0
    accepted = await stack.object(VS, "web")
    assert accepted is not None
    broken = virtual_service(BROKEN) | {"status": accepted["status"]}

    await stack.put(VS, "web", broken)
    code, _, err = await glooctl(stack, "wait", "vs", "web")
    rejected = await stack.object(VS, "web")
    await stack.put(
        VS, "web", virtual_service(direct("/", "mended")) | {"status": (rejected or {})["status"]}
    )
    mended, _, problem = await glooctl(stack, "wait", "vs", "web")

    assert code == 1
    assert "VirtualService gloo-system.web is rejected: " in err
    assert (mended, problem) == (0, "")


async def test_a_rejection_ends_the_wait_at_once_and_can_be_awaited(stack: Stack) -> None:
    await stack.put(VS, "web", virtual_service(BROKEN))

    awaited = await glooctl(stack, "wait", "vs", "web", "--for", "rejected", "--timeout", "10s")
    began = time.monotonic()
    refused = await glooctl(stack, "wait", "vs", "web", "--for", "acked", "--timeout", "60s")

    assert awaited[0] == 0
    assert refused[0] == 1
    assert time.monotonic() - began < 10


async def test_what_only_envoy_refuses_ends_the_wait_in_its_words(stack: Stack) -> None:
    taken = int(stack.consul.address.rpartition(":")[2])
    await stack.put("Gateway", "taken", GATEWAY | {"bindPort": taken})
    await stack.put(VS, "web", virtual_service(direct("/", "x")))

    refused = await glooctl(stack, "wait", "gateway", "taken", "--for", "acked", "--timeout", "60s")
    others = await glooctl(stack, "wait", "vs", "web", "--for", "acked")
    (listed,) = json.loads((await glooctl(stack, "proxy", "status", "-o", "json"))[1])

    assert refused[0] == 1
    assert "is rejected: " in refused[2]
    assert "cannot bind" in refused[2]
    assert others[0] == 0, others[2]
    refusals = [told["lastRefusal"] for told in listed["types"].values() if told["lastRefusal"]]
    assert [each["objects"] for each in refusals] == [["Gateway gloo-system.taken"]]


async def test_the_timeout_says_what_is_missing(stack: Stack) -> None:
    await stack.stop_process("envoy")
    await stack.put(VS, "web", virtual_service(direct("/", "x")))

    nobody = await glooctl(stack, "wait", "vs", "web", "--for", "acked", "--timeout", "2s")
    await stack.stop_process("gateway")
    await stack.put(VS, "web", virtual_service(direct("/", "y")))
    unjudged = await glooctl(stack, "wait", "vs", "web", "--timeout", "500ms")

    assert nobody[0] == unjudged[0] == 1
    assert "no Envoy of role gloo-system~gateway-proxy is connected" in nobody[2]
    assert "not judged after 0.5 s: gateway has not judged it yet" in unjudged[2]


async def test_add_route_waits_and_the_route_answers(stack: Stack) -> None:
    code, out, err = await glooctl(
        stack,
        *["create", "upstream", "static", "up", "--static-hosts", f"127.0.0.1:{stack.admin_port}"],
        *["--wait", "acked"],
    )
    assert code == 0, err
    assert "Accepted" in out

    added = await glooctl(
        stack,
        *["add", "route", "--path-prefix", "/", "--dest-name", "up", "--prefix-rewrite", "/server_info"],
        *["--wait", "acked"],
    )

    assert added[0] == 0, added[2]
    assert (await stack.get("/")).status == 200


async def test_proxy_status_lists_envoys_and_explains_who_is_not_served(stack: Stack) -> None:
    stack.start_envoy("stranger", free_port(), metadata={"role": "gloo-system~nobody"})
    stack.start_role("gloo", name="second", admin=free_port())
    await stack.put(VS, "web", virtual_service(direct("/", "x")))
    assert (await glooctl(stack, "wait", "vs", "web", "--for", "acked"))[0] == 0

    async def listed() -> tuple[int, str, str]:
        return await glooctl(stack, "proxy", "status")

    code, out, err = await eventually(
        listed, until=lambda told: "nobody" in told[1] and "RDS" in told[1], within=20
    )
    one = json.loads((await glooctl(stack, "proxy", "status", "gateway-proxy", "-o", "json"))[1])
    absent = await glooctl(stack, "proxy", "status", "absent")

    assert code == 0, err
    assert "not served: there is no configuration for role" in out
    (envoy,) = one
    assert {told["lag"] for told in envoy["types"].values()} == {0}
    assert {told["versionSent"] == told["versionAcked"] for told in envoy["types"].values()} == {True}
    assert absent[0] == 1
    assert "no Envoy of role or name 'absent'" in absent[2]


async def test_proxy_tells_where_it_is_and_what_it_is_served(stack: Stack) -> None:
    await stack.put(VS, "web", virtual_service(direct("/", "x")))
    assert (await glooctl(stack, "wait", "vs", "web"))[0] == 0

    url = await glooctl(stack, "proxy", "url")
    address = await glooctl(stack, "proxy", "address")
    https = await glooctl(stack, "proxy", "url", "--port", "https")
    served = await glooctl(stack, "proxy", "served-config", "-o", "json")
    dump = await _plain("proxy", "dump", "--envoy-admin", f"127.0.0.1:{stack.admin_port}")

    assert url[1] == f"http://127.0.0.1:{stack.http_port}\n"
    assert address[1] == f"127.0.0.1:{stack.http_port}\n"
    assert (https[0], "has no listener 'https'" in https[2]) == (1, True)
    objects = [each["objects"] for listed in json.loads(served[1]).values() for each in listed]
    assert any("VirtualService gloo-system.web" in each for each in objects)
    assert "configs" in json.loads(dump)


async def test_check_and_version_tell_who_runs_and_who_leads(stack: Stack) -> None:
    code, out, _ = await glooctl(stack, "check", "-x", "virtual services")
    version = json.loads((await glooctl(stack, "version"))[1].splitlines()[1].removeprefix("Server: "))

    assert code == 0, out
    assert "leads, 1 running" in out
    assert [one["service"] for one in version["members"]] == ["discovery", "gateway", "gloo"]
    assert all(one["version"] for one in version["members"])


async def _plain(*words: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "glooctl", *words], stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert await process.wait() == 0
    return out.decode()
