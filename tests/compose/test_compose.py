"""The compose file in real containers: the tour, scaling, replacing one role while traffic goes on."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.support.ports import free_ports

pytestmark = [pytest.mark.compose, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
ROLES = ("gloo", "gateway", "discovery")
SERVICES = {"consul", "openbao", "petstore", "gateway-proxy", *ROLES}
PORTS = (
    "CONSUL_PORT",
    "VAULT_PORT",
    "PETSTORE_PORT",
    "GLOO_ADMIN_PORT",
    "XDS_PORT",
    "GATEWAY_ADMIN_PORT",
    "HTTP_PORT",
    "HTTPS_PORT",
    "ENVOY_ADMIN_PORT",
    "HTTP_PORT_2",
    "HTTPS_PORT_2",
    "ENVOY_ADMIN_PORT_2",
)
VIRTUAL_SERVICE = """\
metadata: {name: default, namespace: gloo-system}
virtualHost:
  domains: ['*']
  routes:
  - matchers: [{exact: /all-pets}]
    options: {prefixRewrite: /api/pets}
    routeAction: {single: {upstream: {name: petstore, namespace: gloo-system}}}
"""
UPSTREAM = "gloo/gloo.solo.io/v1/Upstream/gloo-system/"

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Stack:
    """One compose project with ports of its own."""

    project: str
    ports: dict[str, int]

    def compose(self, *command: str) -> str:
        environ = os.environ | {name: str(port) for name, port in self.ports.items()}
        done = subprocess.run(
            ["docker", "compose", "-p", self.project, *command],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"docker compose {' '.join(command)}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def containers(self, *services: str) -> list[dict[str, Any]]:
        """Those that run, or ended; one JSON object a line, or all in a list, by the plugin's version."""
        text = self.compose("ps", "--all", "--format", "json", *services).strip()
        if text.startswith("["):
            found: list[dict[str, Any]] = json.loads(text)
            return found
        return [json.loads(line) for line in text.splitlines()]

    def url(self, port: str, path: str) -> str:
        return f"http://127.0.0.1:{self.ports[port]}{path}"

    def ask(self, port: str, path: str, *, put: bytes | None = None) -> tuple[int, bytes]:
        request = urllib.request.Request(
            self.url(port, path), put, method="PUT" if put is not None else "GET"
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError as error:
            return 0, str(error).encode()

    def register(self, service: bytes) -> None:
        assert self.ask("CONSUL_PORT", "/v1/agent/service/register", put=service)[0] == 200

    def upstream_status(self, name: str) -> str:
        return self.ask("CONSUL_PORT", f"/v1/kv/{UPSTREAM}{name}?raw")[1].decode()


def eventually(probe: Callable[[], V], until: Callable[[V], bool], *, within: float = 30.0) -> V:
    """What *probe* gives once *until* holds for it; fails with the last value."""
    end = time.monotonic() + within
    while not until(value := probe()):
        assert time.monotonic() < end, f"still {value!r} after {within:.0f} s"
        time.sleep(0.1)
    return value


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """All containers of the default profile, built and healthy."""
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    stack = Stack(f"gloo-test-{os.getpid()}", ports)
    try:
        stack.compose("up", "-d", "--build", "--wait")
        yield stack
    except AssertionError:
        print(stack.compose("logs", "--no-color", "--tail", "40"))
        raise
    finally:
        stack.compose("--profile", "ha", "down", "-v", "--remove-orphans", "--rmi", "local", "--timeout", "5")


@pytest.fixture(scope="module")
def serving(stack: Stack) -> Stack:
    """The stack with petstore registered and routed to."""
    stack.register((ROOT / "examples/petstore/petstore-compose.json").read_bytes())
    key = "/v1/kv/gloo/gateway.solo.io/v1/VirtualService/gloo-system/default"
    assert stack.ask("CONSUL_PORT", key, put=VIRTUAL_SERVICE.encode())[0] == 200
    eventually(lambda: stack.ask("HTTP_PORT", "/all-pets"), lambda answer: answer[0] == 200)
    return stack


@contextmanager
def traffic(stack: Stack) -> Iterator[None]:
    """Requests all the while; fails when one of them did not get its answer."""
    stop, counts, failures = threading.Event(), [0], list[tuple[int, bytes]]()

    def ask() -> None:
        while not stop.is_set():
            answer = stack.ask("HTTP_PORT", "/all-pets")
            counts[0] += 1
            if answer[0] != 200:
                failures.append(answer)
            stop.wait(0.01)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert not failures
    assert counts[0] > 50


def test_every_role_runs_and_is_healthy(stack: Stack) -> None:
    containers = stack.containers()

    assert {container["Service"] for container in containers} == SERVICES
    assert {container["Health"] for container in containers} == {"healthy"}


def test_nothing_is_published_on_other_than_127_0_0_1(stack: Stack) -> None:
    config = json.loads(stack.compose("--profile", "ha", "config", "--format", "json"))

    wanted = {
        port.get("host_ip") for service in config["services"].values() for port in service.get("ports", ())
    }
    really = {
        publisher["URL"]
        for container in stack.containers()
        for publisher in container["Publishers"] or ()
        if publisher["PublishedPort"]
    }

    assert wanted == {"127.0.0.1"}
    assert really == {"127.0.0.1"}


def test_a_registered_service_answers_through_envoy(serving: Stack) -> None:
    status, body = serving.ask("HTTP_PORT", "/all-pets")

    assert status == 200
    assert [pet["name"] for pet in json.loads(body)] == ["Dog", "Cat"]
    eventually(lambda: serving.upstream_status("petstore"), lambda text: "Accepted" in text)


def test_discovery_runs_as_three(serving: Stack) -> None:
    serving.compose("up", "-d", "--wait", "--no-recreate", "--scale", "discovery=3")
    try:
        serving.register(b'{"Name": "seen-by-three", "Address": "petstore", "Port": 8090}')

        eventually(lambda: serving.upstream_status("seen-by-three"), lambda text: "Accepted" in text)
        health = [container["Health"] for container in serving.containers("discovery")]
        assert health == ["healthy"] * 3
    finally:
        serving.compose("up", "-d", "--wait", "--no-recreate", "--scale", "discovery=1")


@pytest.mark.parametrize("role", ROLES)
def test_one_role_is_replaced_while_traffic_goes_on(serving: Stack, role: str) -> None:
    before = serving.containers(role)[0]["ID"]

    with traffic(serving):
        serving.compose("stop", role)
        serving.compose("build", role)
        serving.compose("up", "-d", "--wait", "--no-deps", "--force-recreate", role)

    assert serving.containers(role)[0]["ID"] != before
    serving.register(b'{"Name": "after-%s", "Address": "petstore", "Port": 8090}' % role.encode())
    eventually(lambda: serving.upstream_status(f"after-{role}"), lambda text: "Accepted" in text)


def test_a_role_stops_with_0(serving: Stack) -> None:
    serving.compose("stop", "gateway")
    try:
        assert [container["ExitCode"] for container in serving.containers("gateway")] == [0]
    finally:
        serving.compose("start", "gateway")
        eventually(lambda: serving.ask("GATEWAY_ADMIN_PORT", "/readyz")[0], lambda status: status == 200)


def test_a_second_envoy_serves_the_same(serving: Stack) -> None:
    serving.compose("--profile", "ha", "up", "-d", "--wait", "--no-recreate", "gateway-proxy-2")

    answer = eventually(lambda: serving.ask("HTTP_PORT_2", "/all-pets"), lambda answer: answer[0] == 200)

    assert json.loads(answer[1])[0]["name"] == "Dog"


@pytest.mark.parametrize("role", ROLES)
def test_an_image_holds_only_its_role(stack: Stack, role: str) -> None:
    listing = "import os; print(*map(os.listdir, ('services', 'protos', '.')), os.getuid(), sep='\\n')"

    services, protos, top, user = stack.compose(
        "run", "--rm", "--no-deps", "-T", "--entrypoint", "python", role, "-c", listing
    ).splitlines()

    assert [name for name in ROLES if name in services] == [role]
    assert ("envoy.py" in protos) is (role == "gloo")
    assert len(top.split(",")) == 3
    assert user == "10001"
