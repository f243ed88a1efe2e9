"""Services behind an HTTP proxy: the tunnel is made, moved and taken away as their Upstream says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.backends import Backend
from tests.support.http_proxy import http_proxy
from tests.support.site import Site
from tests.support.stack import Stack, to_upstream
from tests.support.traffic import undisturbed
from tests.support.waiting import eventually

pytestmark = pytest.mark.e2e


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with Stack(tmp_path) as running:
        yield running


async def test_a_tunnel_is_made_moved_and_taken_away(stack: Stack) -> None:
    site = Site(stack, "far")
    async with http_proxy() as proxy, Backend("near") as near, Backend("far") as far:
        name = f"far-{far.port}"  # its socket is in the abstract namespace, which is everybody's
        hosts = {"static": {"hosts": [{"addr": "127.0.0.1", "port": proxy.port}]}}

        await stack.put("Upstream", name, hosts | {"httpProxyHostname": f"127.0.0.1:{far.port}"})
        await site.serve(to_upstream("/", name))
        assert (await site.echo("/")).backend == "far", "no request comes before the tunnel is there"
        assert len(proxy.asked) == 1

        await stack.put("Upstream", name, hosts | {"httpProxyHostname": f"127.0.0.1:{near.port}"})
        await site.reaches("/", "near")
        direct = {"static": {"hosts": [{"addr": "127.0.0.1", "port": far.port}]}}
        async with undisturbed(stack.http_port, site.domain, saying=('"near"', '"far"')):
            await stack.put("Upstream", name, direct)
            await site.reaches("/", "far")
        await eventually(
            lambda: stack.envoy("/listeners"),
            until=lambda text: "self_listener" not in text,
        )
