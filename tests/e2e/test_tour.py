"""The tour: a service registered in Consul answers through Envoy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.stack import Stack
from tests.support.waiting import eventually

pytestmark = pytest.mark.e2e


def glooctl(stack: Stack, words: str) -> str:
    environment = {**os.environ, "CONSUL_HTTP_ADDR": stack.consul.address}
    command = [sys.executable, "-m", "glooctl", *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("delta", [True, False], ids=["delta", "state-of-the-world"])
async def test_the_tour(tmp_path: Path, delta: bool) -> None:
    async with Stack(tmp_path, delta=delta) as stack:
        port = free_port()
        stack.start_petstore(port)
        await eventually(lambda: answers_directly(port))

        await stack.register("petstore", port, ID="petstore", Tags=["petstore", "http"])

        upstream = await eventually(
            lambda: stack.object("Upstream", "petstore"),
            until=lambda found: found and "status" in found,
            within=2.0,
        )
        assert upstream is not None
        assert upstream["metadata"]["labels"] == {"discovered_by": "consulplugin"}
        assert upstream["consul"]["serviceName"] == "petstore"
        assert upstream["status"]["state"] == "Accepted"
        assert upstream["status"]["reportedBy"] == "gloo"
        await stack.status_is("Accepted", "Upstream", "consul")

        table = glooctl(stack, "get upstream --use-consul")
        assert "| UPSTREAM |  TYPE  |  STATUS  |" in table
        assert "| petstore | Consul | Accepted | svc name: petstore " in table
        assert "svc tags: [http petstore]" in table or "svc tags: [petstore http]" in table

        added = glooctl(
            stack,
            "add route --path-exact /all-pets --dest-name petstore --prefix-rewrite /api/pets --use-consul",
        )
        assert "| default " in added

        pets = await stack.answers("/all-pets", 200)
        assert pets.headers["server"] == "envoy"
        assert [pet["name"] for pet in json.loads(pets.text)] == ["Dog", "Cat"]
        assert (await stack.get("/nothing")).status == 404

        status = await eventually(
            lambda: stack.status("VirtualService", "default"),
            until=lambda found: "subresourceStatuses" in found,
        )
        assert (status["state"], status["reportedBy"]) == ("Accepted", "gateway")
        part = status["subresourceStatuses"]["*v1.Proxy.gloo-system.gateway-proxy"]
        assert (part["state"], part["reportedBy"]) == ("Accepted", "gloo")
        stored = await stack.object("VirtualService", "default")
        assert stored is not None
        (route,) = stored["virtualHost"]["routes"]
        assert route["matchers"] == [{"exact": "/all-pets"}]
        assert route["options"] == {"prefixRewrite": "/api/pets"}

        proxy = await stack.object("Proxy", "gateway-proxy")
        assert proxy is not None
        (listener,) = proxy["listeners"]
        assert listener["name"] == f"listener-127.0.0.1-{stack.http_port}"
        (host,) = listener["httpListener"]["virtualHosts"]
        assert host["name"] == "gloo-system.default"

        names = envoy_names(await stack.envoy("/config_dump?include_eds"))
        assert {"petstore_gloo-system", "consul_gloo-system"} <= names["clusters"]
        assert names["routes"] == {f"listener-127.0.0.1-{stack.http_port}-routes"}
        assert names["hosts"] == {"gloo-system_default"}
        (client,) = (await stack.debug("gloo", "xds"))["clients"]
        assert client["role"] == "gloo-system~gateway-proxy"

        await stack.consul.call("PUT", "/v1/agent/service/deregister/petstore")
        await stack.answers("/all-pets", 503, within=1.0)
        await eventually(lambda: stack.object("Upstream", "petstore"), until=lambda found: found is None)


async def answers_directly(port: int) -> bool:
    from tests.support.stack import fetch

    return (await fetch(f"http://127.0.0.1:{port}/api/pets")).status == 200


def envoy_names(dump: str) -> dict[str, set[str]]:
    """The dynamic clusters, route configurations and virtual hosts that Envoy runs."""
    names: dict[str, set[str]] = {"clusters": set(), "routes": set(), "hosts": set()}
    for part in json.loads(dump)["configs"]:
        for cluster in part.get("dynamic_active_clusters", ()):
            names["clusters"].add(cluster["cluster"]["name"])
        for config in part.get("dynamic_route_configs", ()):
            names["routes"].add(config["route_config"]["name"])
            names["hosts"] |= {host["name"] for host in config["route_config"].get("virtual_hosts", ())}
    return names


async def test_a_users_own_upstream_is_never_touched_and_edits_of_a_discovered_one_survive(
    stack: Stack,
) -> None:
    mine = """\
# mine
metadata: {name: web, namespace: gloo-system}
static: {hosts: [{addr: 127.0.0.1, port: 1}]}
"""
    await stack.put("Upstream", "web", mine)
    await stack.register("web", free_port())
    await stack.register("other", free_port())

    other = await eventually(lambda: stack.object("Upstream", "other"), until=bool)
    assert other is not None
    other["connectionConfig"] = {"connectTimeout": "3s"}
    await stack.put("Upstream", "other", other)
    await stack.register("other", free_port(), Tags=["new"])

    edited = await eventually(
        lambda: stack.object("Upstream", "other"),
        until=lambda found: found and found["consul"].get("serviceTags") == ["new"],
    )
    assert edited is not None
    assert edited["connectionConfig"] == {"connectTimeout": "3s"}
    raw = await stack.raw("Upstream", "web")
    assert raw is not None
    assert raw.startswith("# mine\n")
    assert "consul" not in raw
