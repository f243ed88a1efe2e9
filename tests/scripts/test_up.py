"""`make up`: refuses clearly, runs the tour, moves to other ports, leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.ports import free_ports
from tests.support.processes import Process, spawn
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
UP = [sys.executable, "scripts/up.py"]
NAMES = (
    "HTTP_PORT",
    "HTTPS_PORT",
    "ENVOY_ADMIN_PORT",
    "XDS_PORT",
    "CONSUL_PORT",
    "CONSUL_SERVER_PORT",
    "CONSUL_SERF_PORT",
    "PETSTORE_PORT",
    "GLOO_ADMIN_PORT",
    "GATEWAY_ADMIN_PORT",
    "DISCOVERY_ADMIN_PORT",
)


def some_ports() -> dict[str, str]:
    return dict(zip(NAMES, map(str, free_ports(len(NAMES))), strict=True))


def refusal(ports: dict[str, str]) -> str:
    """What a start that must fail says."""
    done = subprocess.run(
        UP, cwd=ROOT, env={**os.environ, **ports}, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize("name", ["CONSUL_PORT", "HTTP_PORT", "GLOO_ADMIN_PORT"])
def test_a_taken_port_names_the_variable_to_set(name: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said = refusal(some_ports() | {name: port})

    first = said.splitlines()[0]
    assert first == f"port {port} is in use; stop what listens there, or set {name} to another port"


@pytest.mark.parametrize(
    ("ports", "words"),
    [
        ({"XDS_PORT": "many"}, "XDS_PORT=many is not a number"),
        ({"XDS_PORT": "70000"}, "XDS_PORT=70000 is not a port"),
        ({"XDS_PORT": "12345", "PETSTORE_PORT": "12345"}, "set PETSTORE_PORT to another port"),
    ],
)
def test_a_port_that_cannot_be_is_refused(ports: dict[str, str], words: str) -> None:
    assert words in refusal(some_ports() | ports)


@dataclass(frozen=True, slots=True)
class Up:
    process: Process
    ports: dict[str, str]

    def get(self, name: str, path: str) -> tuple[int, bytes, str]:
        """Status, body and server of an answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name]}{path}", timeout=5) as answer:
                return answer.status, answer.read(), answer.headers.get("server", "")
        except urllib.error.HTTPError as error:
            return error.code, error.read(), ""

    def suggestions(self) -> list[str]:
        """The commands it prints for the reader to try."""
        lines = [line.strip() for line in self.process.output().splitlines()]
        return [line for line in lines if line.startswith("curl -X PUT ") or ".venv/bin/glooctl " in line]


def started_by(pid: int) -> set[int]:
    """Processes that *pid* started, directly or not."""
    found, queue = set[int](), [pid]
    while queue:
        parent = queue.pop()
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            below = [int(child) for child in children.read_text().split()]
            found.update(below)
            queue += below
    return found


def left_of(pids: set[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def consul_of(pids: set[int]) -> int:
    (found,) = [pid for pid in pids if b"\0agent\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return found


def run(command: str) -> None:
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, (command, done.stdout, done.stderr)


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[Up]:
    ports = some_ports()
    process = spawn(UP, log=tmp_path / "up.log", env={**ports, "PYTHONUNBUFFERED": "1"}, cwd=ROOT)
    try:
        await eventually(
            lambda: "Ctrl-C stops" in process.output() or not process.running, within=100.0, every=0.2
        )
        assert process.running, process.output()
        yield Up(process, ports)
    finally:
        if process.running:
            await process.stop(within=40.0)
        await asyncio.to_thread(shutil.rmtree, ROOT / ".run" / ports["HTTP_PORT"], ignore_errors=True)


@pytest.mark.e2e
async def test_the_printed_commands_make_petstore_answer_through_envoy(up: Up) -> None:
    commands = up.suggestions()
    assert len(commands) == 2

    for command in commands:
        await asyncio.to_thread(run, command)

    status, body, server = await eventually(
        lambda: up.get("HTTP_PORT", "/all-pets"), until=lambda answer: answer[0] == 200
    )
    assert (status, server) == (200, "envoy")
    assert json.loads(body) == json.loads(up.get("PETSTORE_PORT", "/api/pets")[1])


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_nothing_is_left_behind(up: Up, number: signal.Signals) -> None:
    started = started_by(up.process.pid)
    assert len(started) >= 7

    up.process.signal(number)

    assert await up.process.wait(within=40.0) == 0
    assert left_of(started) == []


@pytest.mark.e2e
async def test_a_process_that_ends_takes_the_stack_down_and_shows_the_log(up: Up) -> None:
    started = started_by(up.process.pid)

    os.kill(consul_of(started), signal.SIGKILL)

    assert await up.process.wait(within=60.0) == 1
    assert ": consul ended by itself (-9); the end of .run/" in up.process.output()
    assert left_of(started) == []
