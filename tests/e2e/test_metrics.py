"""The metrics that processes serve are the documented ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.consul import REPOSITORY
from tests.support.stack import ROLES, Stack, direct, fetch, virtual_service
from tests.support.waiting import eventually

pytestmark = pytest.mark.e2e


def documented() -> dict[str, set[str]]:
    """The names in ``docs/metrics.md``, by section."""
    sections = (REPOSITORY / "docs" / "metrics.md").read_text().split("\n## ")
    found = {
        text.splitlines()[0]: set(re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE)) for text in sections
    }
    return {role: found["Every process"] | found[role] for role in ROLES}


def served(page: str) -> set[str]:
    names = re.findall(r"^# TYPE (\S+) ", page, re.MULTILINE)
    return {name for name in names if not name.endswith("_created")}


async def acknowledged(stack: Stack) -> bool:
    gloo = await fetch(f"http://127.0.0.1:{stack.admins['gloo']}/metrics")
    return 'xds_responses_total{event="acked",type="RouteConfiguration"}' in gloo.text


async def test_every_metric_is_documented_and_every_documented_one_is_served(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        await stack.put("VirtualService", "web", virtual_service(direct("/", "x")))
        await stack.answers("/")
        await stack.status_is("Accepted", "VirtualService", "web")
        await eventually(lambda: acknowledged(stack))
        pages = {role: (await fetch(f"http://127.0.0.1:{stack.admins[role]}/metrics")).text for role in ROLES}

    assert {role: served(page) for role, page in pages.items()} == documented()
    gloo = pages["gloo"]
    assert 'xds_responses_total{event="acked",type="RouteConfiguration"}' in gloo
    assert re.search(r'^snapshot_bytes{role="gloo-system~gateway-proxy",type="Listener"} [1-9]', gloo, re.M)
    assert 'watch_polls_total{watch="Proxy"}' in gloo
    assert "leader 1.0" in gloo
