"""Every recipe does what its README says: the commands are run, and answer what stands below them."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.ports import free_port, free_ports
from tests.support.processes import spawn
from tests.support.stack import GATEWAY, Stack
from tests.support.waiting import eventually

pytestmark = pytest.mark.e2e

EXAMPLES = Path(__file__).parents[2] / "examples"
RECIPES = sorted(readme.parent.name for readme in EXAMPLES.glob("*/README.md"))
ANYTHING = "…"  # some text; alone on a line, some lines
WITHIN = 10.0


@dataclass(frozen=True, slots=True)
class Step:
    """A command and what it prints; nothing means that it does not matter."""

    command: str
    prints: str


def steps(readme: str) -> Iterator[Step]:
    """The commands of all console blocks."""
    for block in re.findall(r"^```console\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, prints = part.partition("\n")
            yield Step(command, prints)


def matches(prints: str, output: str) -> bool:
    """Whether *output* is what a README says; a table may be wider, for the ports of a run are longer."""
    prints, output = (re.sub(r"( |-){2,}", r"\1\1", text).rstrip() for text in (prints, output))
    parts = [".*" if part == ANYTHING else re.escape(part) for part in re.split(f"({ANYTHING})", prints)]
    return re.fullmatch("".join(parts), output, re.DOTALL) is not None


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    """The whole system, and petstore, as `make up` runs them; Vault is looked for, and not there."""
    vault = {"address": f"http://127.0.0.1:{free_port()}", "token": "root"}
    async with Stack(tmp_path, settings={"vaultSecretSource": vault, "refreshRate": "1s"}) as running:
        yield running


@pytest.mark.parametrize("recipe", RECIPES)
async def test_a_recipe_does_what_it_says(stack: Stack, tmp_path: Path, recipe: str) -> None:
    ports = dict(zip(["8090", "8091", "8092", "8443"], map(str, free_ports(4)), strict=True))
    ports |= {"8080": str(stack.http_port), "8500": str(stack.consul.http_port)}
    ports["8200"] = stack.settings["vaultSecretSource"]["address"].rpartition(":")[2]
    gateway = GATEWAY | {"bindPort": int(ports["8443"]), "ssl": True}
    await stack.put("Gateway", "gateway-proxy-ssl", gateway)
    stack.start_petstore(int(ports["8090"]))
    copy_with_ports(tmp_path, ports)
    environment = {"CONSUL_HTTP_ADDR": stack.consul.address}

    found = list(steps((tmp_path / "examples" / recipe / "README.md").read_text()))
    assert found
    for number, step in enumerate(found):
        if step.command.endswith("&"):
            log = tmp_path / f"background-{number}.log"
            command = ["bash", "-c", f"exec {step.command.rstrip('& ')}"]
            stack.processes[f"background-{number}"] = spawn(command, log=log, cwd=tmp_path)
            continue
        await run(step, tmp_path, environment)


def copy_with_ports(place: Path, ports: dict[str, str]) -> None:
    """The examples as they are, but for the ports, which are this run's; the commands find all they name."""
    shutil.copytree(EXAMPLES, place / "examples")
    (place / ".venv").symlink_to(Path(sys.executable).parents[1])
    wanted = re.compile(rf"\b({'|'.join(ports)})\b")
    for path in (place / "examples").rglob("*"):
        if path.suffix in {".md", ".yaml", ".json"}:
            path.write_text(wanted.sub(lambda found: ports[found[0]], path.read_text()))


async def run(step: Step, place: Path, environment: dict[str, str]) -> None:
    """Run a command; what has an answer is asked again until it is the right one: changes take a moment."""

    def ask() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", step.command],
            cwd=place,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    if step.prints:
        await eventually(
            lambda: asyncio.to_thread(ask),
            until=lambda done: matches(step.prints, done.stdout),
            within=WITHIN,
            every=0.2,
        )
    else:
        done = await asyncio.to_thread(ask)
        assert done.returncode == 0, done
