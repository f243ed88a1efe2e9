"""The recipe for xDS over mutual TLS, with its own files: real processes, the real Envoy."""

from __future__ import annotations

import asyncio
import copy
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.envoy import running_envoy
from tests.support.ports import free_port
from tests.support.stack import Stack
from tests.support.waiting import eventually

pytestmark = pytest.mark.e2e

RECIPE = Path(__file__).parents[2] / "examples" / "xds-mtls"
ROLE = "gloo-system~gateway-proxy"


def placed(name: str, folder: Path) -> Any:
    """A file of the recipe, its certificates in *folder*."""
    text = (RECIPE / name).read_text()
    for usual in ("/etc/gloo/xds", "/etc/envoy/xds"):
        text = text.replace(usual, str(folder))
    return yaml.safe_load(text)


def bootstrap_of(folder: Path, xds_port: int, node: str) -> dict[str, Any]:
    for name in ("own.yaml", "authority.yaml"):
        (folder / name).write_text(yaml.safe_dump(placed(name, folder)))
    found: dict[str, Any] = placed("envoy.yaml", folder)
    found["node"]["id"] = node
    [cluster] = found["static_resources"]["clusters"]
    [endpoint] = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    endpoint["endpoint"]["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": xds_port}
    found["admin"]["address"]["socket_address"]["port_value"] = free_port()
    return found


async def test_the_recipe_lets_in_whom_it_names(tmp_path: Path) -> None:
    folder = tmp_path / "certificates"
    script = [RECIPE / "certificates.sh", folder, "gloo", "gateway-proxy"]
    await asyncio.to_thread(subprocess.run, script, check=True, capture_output=True)
    stack = Stack(tmp_path)
    settings = placed("settings.yaml", folder)["gloo"] | {"xdsBindAddr": f"127.0.0.1:{stack.xds_port}"}
    stack.write_settings(gloo=settings)
    async with stack, running_envoy(tmp_path, bootstrap_of(folder, stack.xds_port, "known")):

        async def known() -> list[Any]:
            page = await stack.debug("gloo", "xds")
            return [(client["node"], client["role"], client["problem"]) for client in page["clients"]]

        await eventually(known, until=lambda rows: rows == [("known", ROLE, "")], within=20)

        elsewhere = copy.deepcopy(settings)
        elsewhere["xds"]["tls"]["clients"][0]["roles"] = ["gloo-system~another"]
        stack.write_settings(gloo=elsewhere)

        async def turned_away() -> dict[str, Any]:
            page = await stack.debug("gloo", "xds")
            return {entry["node"]: entry for entry in page["turned_away"]}

        entries = await eventually(turned_away, until=lambda entries: "known" in entries, within=20)
        assert entries["known"]["role"] == ROLE
        assert "may not ask for role" in entries["known"]["problem"]
        assert "it does not speak TLS" in entries[""]["problem"]  # the stack's own Envoy

        await asyncio.to_thread(subprocess.run, script, check=True, capture_output=True)
        stack.write_settings(gloo=settings)
        await eventually(known, until=lambda rows: rows == [("known", ROLE, "")], within=30)
        assert "certificates taken over" in stack.processes["gloo"].output()
