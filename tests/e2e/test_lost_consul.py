"""A Consul that has lost everything costs no request: what it lost is served until it is back or given up."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.backends import Backend
from tests.support.site import Site
from tests.support.stack import GATEWAY, ROLES, Stack, fetch, to_upstream
from tests.support.traffic import Traffic, undisturbed
from tests.support.waiting import eventually

pytestmark = pytest.mark.e2e

BELIEVED = 32.0  # seconds after which a loss that is merely implausible would be believed


@dataclass
class World:
    """Two sites, ``kept`` and ``back``, each with a service of Consul's and a static upstream."""

    stack: Stack
    kept: Site
    back: Site
    port: int
    flags: list[str]

    async def restart(self, role: str) -> None:
        assert await self.stack.stop_process(role) == 0
        self.stack.start_role(role, flags=self.flags if role == "gloo" else ())
        await self.stack.ready(role)

    async def write_gateway(self) -> None:
        await self.stack.put("Gateway", "gateway-proxy", GATEWAY | {"bindPort": self.stack.http_port})

    async def write_static(self, name: str) -> None:
        hosts = [{"addr": "127.0.0.1", "port": self.port}]
        await self.stack.put("Upstream", f"static-{name}", {"static": {"hosts": hosts}})

    async def held(self, role: str) -> dict[str, int]:
        """How much of what a process holds, as its metrics say."""
        page = (await fetch(f"http://127.0.0.1:{self.stack.admins[role]}/metrics")).text
        return {
            line.split('"')[1]: int(float(line.rsplit(" ", 1)[1]))
            for line in page.splitlines()
            if line.startswith("held_objects{")
        }

    async def glooctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "CONSUL_HTTP_ADDR": self.stack.consul.address}
        command = [sys.executable, "-m", "glooctl", *words]
        return await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, env=environment, check=False
        )


@asynccontextmanager
async def world(directory: Path) -> AsyncIterator[World]:
    async with Stack(directory) as stack, Backend("shop") as backend:
        flags = ["--state-dir", str(directory / "state")]
        made = World(stack, Site(stack, "kept"), Site(stack, "back"), backend.port, flags)
        await made.restart("gloo")
        await stack.register("shop", backend.port)
        await stack.status_is("Accepted", "Upstream", "shop")
        for site in (made.kept, made.back):
            await made.write_static(site.name)
            await site.serve(to_upstream("/static", f"static-{site.name}"), to_upstream("/", "shop"))
            await site.reaches("/", "shop")
            await site.reaches("/static", "shop")
        yield made


@asynccontextmanager
async def lossless(site: Site) -> AsyncIterator[Traffic]:
    """Requests run all the while, by Consul's service and by the static upstream; none is lost."""
    port, saying = site.stack.http_port, ['"backend": "shop"']
    async with (
        undisturbed(port, site.domain, "/x", saying=saying, pause=0.02) as traffic,
        undisturbed(port, site.domain, "/static/x", saying=saying, pause=0.02),
    ):
        yield traffic


def of(kind: str) -> str:
    group = "gloo.solo.io" if kind in ("Proxy", "Upstream") else "gateway.solo.io"
    return f"gloo/{group}/v1/{kind}/"


async def all_held(made: World) -> None:
    """Wait until each of the three goes on with what is lost."""
    await eventually(lambda: made.held("gateway"), until=lambda held: held.get(of("VirtualService")) == 2)
    await eventually(
        lambda: made.held("gloo"),
        until=lambda held: held.get(of("Upstream"), 0) >= 2 and held.get("instances in dc1") == 1,
        within=40.0,
    )
    await eventually(lambda: made.held("discovery"), until=lambda held: of("Upstream") in held)


async def test_what_a_wiped_consul_lost_is_served_until_it_is_back_or_released(tmp_path: Path) -> None:
    async with world(tmp_path) as made, lossless(made.back):
        stack, kept, back = made.stack, made.kept, made.back
        edited: dict[str, Any] = await stack.object("Upstream", "shop") or {}
        await stack.put("Upstream", "shop", edited | {"connectionConfig": {"connectTimeout": "3s"}})
        await stack.status_is("Accepted", "Upstream", "shop")

        async with lossless(kept) as traffic:
            await stack.consul.wipe()
            wiped = time.monotonic()
            await all_held(made)
            await made.restart("gloo")
            await traffic.flows()

            await made.write_gateway()
            await made.write_static("back")
            await back.serve(to_upstream("/static", "static-back"), to_upstream("/", "shop"))
            await made.restart("gateway")
            await back.serve(to_upstream("/static", "static-back"), to_upstream("/", "shop"))
            await stack.register("shop", made.port)
            await eventually(lambda: made.held("gloo"), until=lambda held: "instances in dc1" not in held)
            again = await eventually(lambda: stack.object("Upstream", "shop"))
            assert again is not None
            assert again["connectionConfig"] == {"connectTimeout": "3s"}
            await asyncio.sleep(max(0.0, wiped + BELIEVED - time.monotonic()))
            await traffic.flows()

            for role in ("gloo", "gateway"):
                answer = await fetch(f"http://127.0.0.1:{stack.admins[role]}/readyz")
                assert answer.status == 200
                assert "since" in json.loads(answer.text)["held"][0]
            told = await made.glooctl("check")
            assert told.returncode == 1
            assert "on with 1 of VirtualService that Consul has lost" in told.stdout
            assert "glooctl release" in told.stdout
            asked = await made.glooctl("release")
            assert asked.returncode == 2
            assert "gloo-system/kept" in asked.stdout
            await traffic.flows()

        released = await made.glooctl("release", "--yes")
        assert released.returncode == 0, released.stderr
        assert (
            await eventually(lambda: kept.get("/"), until=lambda answer: answer.status == 404)
        ).status == 404
        assert [await made.held(role) for role in ROLES] == [{}, {}, {}]
        assert (await made.glooctl("release")).stdout.startswith("Nothing is held")

        await stack.consul.wipe()
        await eventually(lambda: made.held("gloo"), until=lambda held: of("Proxy") in held, within=40.0)
        await eventually(lambda: made.held("gateway"), until=lambda held: of("VirtualService") in held)
        await back.reaches("/", "shop")

        consul = {"address": stack.consul.address, "serviceDiscovery": {}, "holdLost": "1s"}
        stack.write_settings(consul=consul)
        for role in ROLES:
            await eventually(lambda role=role: made.held(role), until=lambda held: not held, within=20.0)


async def test_a_gloo_that_was_away_when_consul_was_wiped_knows_it_by_its_state(tmp_path: Path) -> None:
    async with world(tmp_path) as made, undisturbed(made.stack.http_port, made.kept.domain, "/static/x"):
        stack, back = made.stack, made.back
        await eventually(lambda: len(list((tmp_path / "state").iterdir())) == 2)
        assert await stack.stop_process("gloo") == 0
        await stack.consul.wipe()
        stack.start_role("gloo", flags=made.flags)
        await eventually(lambda: made.held("gloo"), until=lambda held: held.get(of("Upstream"), 0) >= 2)
        await eventually(lambda: made.held("gateway"), until=lambda held: of("VirtualService") in held)

        await made.write_gateway()
        await made.write_static("back")
        await back.serve(to_upstream("/static", "static-back"))
        await back.reaches("/static", "shop")


@pytest.mark.parametrize("role", ["gateway", "discovery"])
async def test_a_process_that_starts_at_a_wiped_consul_takes_nothing_away(tmp_path: Path, role: str) -> None:
    async with world(tmp_path) as made, lossless(made.kept), lossless(made.back) as traffic:
        stack = made.stack
        documents = {name: await stack.raw("VirtualService", name) for name in ("kept", "back")}
        await stack.consul.wipe()
        await all_held(made)
        await made.restart(role)
        await traffic.flows()

        await made.write_gateway()
        await stack.register("shop", made.port)
        for name, document in documents.items():
            assert document is not None
            await made.write_static(name)
            await stack.put("VirtualService", name, document)
        for each in ROLES:
            await eventually(lambda each=each: made.held(each), until=lambda held: not held, within=60.0)
        assert await stack.object("Proxy", "gateway-proxy")
        # The note of the process that is no more is cleared away a while later.
        await eventually(
            lambda: made.glooctl("check"), until=lambda done: done.returncode == 0, within=60.0, every=1.0
        )
