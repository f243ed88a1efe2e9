"""A real Consul server on ports of its own: in memory (``dev``) or durable, to be stopped, killed, wiped."""

from __future__ import annotations

import asyncio
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from shared.consul.config import ConsulConfig
from tests.support.ports import free_ports
from tests.support.processes import Process, spawn
from tests.support.waiting import eventually

REPOSITORY = Path(__file__).parents[2]


def consul_binary() -> str:
    """``$CONSUL_BIN``, the one ``make setup`` unpacked, or the one on PATH."""
    ours = REPOSITORY / ".cache" / "consul"
    found = os.environ.get("CONSUL_BIN") or (str(ours) if ours.exists() else shutil.which("consul"))
    assert found, "there is no Consul: run `make setup`"
    return found


class ConsulServer:
    """One server; its ports stay the same over restarts. *extra* is merged into the agent's configuration."""

    def __init__(
        self,
        directory: Path,
        *,
        durable: bool = False,
        extra: Mapping[str, Any] | None = None,
        tls: bool = False,
    ) -> None:
        self.directory = directory
        self.durable = durable
        self.tls = tls
        self.log = directory / "consul.log"
        self._data = directory / "data"
        self._process: Process | None = None
        self.http_port, self.https_port, server, serf_lan, serf_wan, self.dns_port = free_ports(6)
        self.wan_port = serf_wan
        self._settings: dict[str, Any] = {
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "node_name": "test-node",
            "log_level": "warn",
            "disable_update_check": True,
            "leave_on_terminate": False,
            "skip_leave_on_interrupt": True,
            "ports": {
                "http": self.http_port,
                "https": self.https_port if tls else -1,
                "dns": self.dns_port,
                "grpc": -1,
                "server": server,
                "serf_lan": serf_lan,
                "serf_wan": serf_wan,
            },
            "performance": {"raft_multiplier": 1},
            **(extra or {}),
        }

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.http_port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def config(self) -> ConsulConfig:
        """The client configuration for it."""
        return ConsulConfig(port=self.http_port)

    @property
    def process(self) -> Process:
        assert self._process is not None, "the server is not running"
        return self._process

    async def start(self, *, wait: bool = True) -> None:
        """Start it and, by default, wait until it leads and has replayed its log."""
        assert self._process is None, "the server is running already"
        self.directory.mkdir(parents=True, exist_ok=True)
        config = self.directory / "consul.json"
        config.write_bytes(orjson.dumps(self._settings))
        command = [consul_binary(), "agent", f"-config-file={config}"]
        command += ["-server", "-bootstrap-expect=1", f"-data-dir={self._data}"] if self.durable else ["-dev"]
        self._process = spawn(command, log=self.log, cwd=self.directory)
        if wait:
            await self.ready()

    async def ready(self) -> None:
        await eventually(self._leads, within=30.0)

    async def stop(self) -> None:
        """Let it end in order; nothing happens when it does not run."""
        if self._process is not None:
            process, self._process = self._process, None
            await process.stop()

    async def kill(self) -> None:
        """SIGKILL, as a crash."""
        process, self._process = self.process, None
        await process.kill()

    async def restart(self) -> None:
        """Crash and come back; a dev server has forgotten everything."""
        await self.kill()
        await self.start()

    async def wipe(self) -> None:
        """Crash and come back with nothing, whatever the kind."""
        await self.kill()
        shutil.rmtree(self._data, ignore_errors=True)
        await self.start()

    async def call(self, method: str, path: str, body: object = None, *, token: str = "") -> Any:
        """One call outside the client under test; an object is sent as JSON, bytes as they are."""
        return await asyncio.to_thread(self._call, method, path, body, token)

    async def put(self, key: str, value: str | bytes) -> None:
        await self.call("PUT", f"/v1/kv/{key}", value.encode() if isinstance(value, str) else value)

    async def delete(self, key: str) -> None:
        await self.call("DELETE", f"/v1/kv/{key}")

    async def clear(self) -> None:
        """Empty the KV store, end all sessions, and deregister all services but Consul's own."""
        for session in await self.call("GET", "/v1/session/list") or ():
            await self.call("PUT", f"/v1/session/destroy/{session['ID']}")
        await self.call("DELETE", "/v1/kv/?recurse")
        for service in await self.call("GET", "/v1/agent/services") or ():
            await self.call("PUT", f"/v1/agent/service/deregister/{service}")
        for node in await self.call("GET", "/v1/catalog/nodes") or ():
            if node["Node"] != "test-node":
                await self.call("PUT", "/v1/catalog/deregister", {"Node": node["Node"]})

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _leads(self) -> bool:
        assert self.process.running, f"Consul ended:\n{self.process.output()}"
        try:
            if self._settings.get("acl", {}).get("enabled"):
                return bool(await self.call("GET", "/v1/status/leader"))
            await self.call("GET", "/v1/kv/?keys&consistent&separator=/")
        except (urllib.error.URLError, OSError):
            return False
        nodes = await self.call("GET", "/v1/catalog/nodes")
        return any(node["Node"] == "test-node" for node in nodes)

    def _call(self, method: str, path: str, body: object, token: str) -> Any:
        data = body if isinstance(body, bytes) or body is None else orjson.dumps(body)
        request = urllib.request.Request(f"{self.url}{path}", data=data, method=method)
        if token:
            request.add_header("X-Consul-Token", token)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                answer = response.read()
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    return None
                raise
        return orjson.loads(answer) if answer.strip() else None
