"""Several processes of each role beside each other, and which of them leads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import yaml

from tests.support.ports import free_ports
from tests.support.processes import Process
from tests.support.stack import Stack, fetch
from tests.support.waiting import eventually

ROLE = "gloo-system~gateway-proxy"


class Replica:
    """A process of a role, to be stopped, killed and started again; a gloo has an xDS port of its own."""

    def __init__(self, stack: Stack, role: str, name: str, *, flags: Sequence[str] = ()) -> None:
        self.stack = stack
        self.role = role
        self.name = name
        self.xds_port, self.admin_port = free_ports(2)
        self._flags = list(flags)
        if role == "gloo":
            self._flags += ["--name", name]

    @property
    def process(self) -> Process:
        return self.stack.processes[self.name]

    async def start(self) -> None:
        if self.role == "gloo":
            folder = self.stack.directory / "data" / "gloo-system"
            settings: dict[str, Any] = yaml.safe_load((folder / "default.yaml").read_text())
            settings["gloo"]["xdsBindAddr"] = f"127.0.0.1:{self.xds_port}"
            (folder / f"{self.name}.yaml").write_text(yaml.safe_dump(settings))
        self.stack.start_role(self.role, name=self.name, admin=self.admin_port, flags=self._flags)
        await self.stack.ready(self.name, admin=self.admin_port)

    async def stop(self) -> None:
        assert await self.stack.stop_process(self.name) == 0

    async def kill(self) -> None:
        await self.stack.kill_process(self.name)

    async def debug(self, page: str) -> Any:
        answer = await fetch(f"http://127.0.0.1:{self.admin_port}/debug/{page}")
        assert answer.status == 200, answer
        return json.loads(answer.text)

    async def served(self) -> dict[str, dict[str, str]]:
        """The version of every resource that this gloo serves, by type."""
        snapshot = await self.debug(f"snapshot/{ROLE}")
        return {
            type_url: {each["name"]: each["version"] for each in resources}
            for type_url, resources in snapshot.items()
        }

    async def clients(self) -> list[str]:
        """The ids of the Envoys that are here."""
        return [client["node"] for client in (await self.debug("xds"))["clients"]]


async def leader(replicas: Sequence[Replica]) -> Replica:
    """The one of them that leads, as Consul says."""
    stack, role = replicas[0].stack, replicas[0].role

    async def find() -> Replica | None:
        holder = await fetch(f"{stack.consul.url}/v1/kv/gloo/_leaders/{role}?raw")
        return next(
            (
                each
                for each in replicas
                if each.name in stack.processes and holder.text.endswith(str(each.process.pid))
            ),
            None,
        )

    found = await eventually(find)
    assert found is not None
    return found
