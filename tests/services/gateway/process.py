"""The gateway as a process on a real Consul, for story tests; the test itself plays gloo where it must."""

from __future__ import annotations

import asyncio
import base64
import sys
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from shared.codec import text
from shared.errors import InvalidDocument
from tests.support.consul import REPOSITORY, ConsulServer
from tests.support.ports import free_port
from tests.support.processes import Process, spawn
from tests.support.waiting import eventually

GATEWAY_KIND = "gateway.solo.io/v1/Gateway"
SERVICE = "gateway.solo.io/v1/VirtualService"
TABLE = "gateway.solo.io/v1/RouteTable"
PROXY = "gloo.solo.io/v1/Proxy"
SUBRESOURCE = "*v1.Proxy.gloo-system.gateway-proxy"


class Objects:
    """The objects in Consul, by kind's path and name in gloo-system."""

    def __init__(self, consul: ConsulServer) -> None:
        self.consul = consul

    def key(self, kind: str, name: str) -> str:
        return f"gloo/{kind}/gloo-system/{name}"

    async def put(self, kind: str, name: str, value: Mapping[str, Any] | str | bytes) -> None:
        if isinstance(value, Mapping):
            metadata = {"name": name, "namespace": "gloo-system", **value.get("metadata", {})}
            value = orjson.dumps({**value, "metadata": metadata})
        await self.consul.put(self.key(kind, name), value)

    async def delete(self, kind: str, name: str) -> None:
        await self.consul.delete(self.key(kind, name))

    async def row(self, kind: str, name: str) -> dict[str, Any] | None:
        found = await self.consul.call("GET", f"/v1/kv/{self.key(kind, name)}")
        return found[0] if found else None

    async def raw(self, kind: str, name: str) -> bytes:
        row = await self.row(kind, name)
        return base64.b64decode(row["Value"]) if row else b""

    async def get(self, kind: str, name: str) -> dict[str, Any]:
        """The object; empty when there is none, or nothing that can be read."""
        try:
            return text.parse(await self.raw(kind, name))
        except InvalidDocument:
            return {}

    async def status(self, kind: str, name: str) -> dict[str, Any]:
        return (await self.get(kind, name)).get("status", {})

    async def hosts(self, proxy: str = "gateway-proxy", listener: str = "listener-::-8080") -> dict[str, Any]:
        """The virtual hosts of a listener, by name."""
        document = await self.get(PROXY, proxy)
        return {
            host["name"]: host
            for each in document.get("listeners", ())
            if each["name"] == listener
            for host in each.get("httpListener", {}).get("virtualHosts", ())
        }

    async def judge(
        self, *reports: Mapping[str, Any], state: str = "Accepted", proxy: str = "gateway-proxy"
    ) -> None:
        """Say about a Proxy what gloo would, of the newest of its versions."""
        status = {"state": state, "reportedBy": "gloo", "details": {"reports": list(reports)}}

        async def say() -> object:
            row = await self.row(PROXY, proxy)
            assert row is not None
            raw = text.set_status(base64.b64decode(row["Value"]), status)
            path = f"/v1/kv/{self.key(PROXY, proxy)}?cas={row['ModifyIndex']}"
            return await self.consul.call("PUT", path, raw)

        await eventually(say)

    async def when_status(self, kind: str, name: str, state: str, within: float = 5.0) -> dict[str, Any]:
        return await eventually(
            lambda: self.status(kind, name), until=lambda found: found.get("state") == state, within=within
        )


def report(name: str, *, errors: tuple[str, ...] = (), warnings: tuple[str, ...] = ()) -> dict[str, Any]:
    """gloo's findings about a virtual service."""
    source = {"kind": "VirtualService", "namespace": "gloo-system", "name": name}
    return {**source, "errors": list(errors), "warnings": list(warnings)}


def service(domain: str, status: int = 200, **options: Any) -> dict[str, Any]:
    """A virtual service that answers by itself."""
    route: dict[str, Any] = {"matchers": [{"prefix": "/"}], "directResponseAction": {"status": status}}
    if options:
        route["options"] = options
    return {"virtualHost": {"domains": [domain], "routes": [route]}}


def answer(host: Mapping[str, Any]) -> int:
    """What a virtual host made of ``service`` answers."""
    return int(host["routes"][0]["directResponseAction"]["status"])


class Replica:
    """One gateway process."""

    def __init__(self, consul: ConsulServer, directory: Path, settings: Mapping[str, Any]) -> None:
        self.admin_port = free_port()
        self.directory = directory
        self._consul = consul
        self.process: Process | None = None
        self.write_settings(settings)

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        folder = self.directory / "gloo-system"
        folder.mkdir(parents=True, exist_ok=True)
        document = {"consul": {"address": self._consul.address}, "consulKvSource": {}, **settings}
        (folder / "default.yaml").write_bytes(orjson.dumps(document))

    def start(self) -> None:
        self.process = spawn(
            [
                *(sys.executable, "-m", "services.gateway", "--dir", self.directory),
                *("--admin-addr", f"127.0.0.1:{self.admin_port}"),
            ],
            log=self.directory / "log",
            cwd=REPOSITORY,
        )

    async def ready(self) -> None:
        await eventually(lambda: self.page("/readyz"), until=lambda page: page["ready"], within=20)

    async def page(self, path: str) -> Any:
        return orjson.loads(await self.text(path))

    async def text(self, path: str) -> bytes:
        return await asyncio.to_thread(self._read, path)

    def _read(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=5) as response:
            return bytes(response.read())

    async def leads(self) -> bool:
        return bool((await self.page("/debug/gateway"))["leader"])

    async def stop(self) -> int | None:
        if self.process is None or not self.process.running:
            return None
        return await self.process.stop()


@asynccontextmanager
async def running(
    consul: ConsulServer, directory: Path, *, replicas: int = 1, **settings: Any
) -> AsyncIterator[list[Replica]]:
    all = [Replica(consul, directory / f"gateway-{number}", settings) for number in range(replicas)]
    try:
        for one in all:
            one.start()
            await one.ready()
        yield all
    finally:
        for one in all:
            await one.stop()
