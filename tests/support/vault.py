"""A real OpenBao for tests, in memory, with a KV engine of version 2 at ``secret``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.support.ports import free_port
from tests.support.processes import Process, spawn
from tests.support.waiting import eventually

BINARY = Path(sys.prefix) / "bin" / "bao"
ROOT_TOKEN = "root"


class VaultServer:
    """Started and stopped by ``async with``, or by ``start`` and ``stop``; what it held is gone then."""

    def __init__(self, directory: Path, *, port: int = 0) -> None:
        self.port = port or free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._log = directory / "vault.log"
        self._process: Process | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        listen = ("-dev-listen-address", f"127.0.0.1:{self.port}")
        token = ("-dev-root-token-id", ROOT_TOKEN, "-dev-no-store-token")
        self._process = spawn([BINARY, "server", "-dev", *listen, *token], log=self._log)
        await eventually(self._answers, within=30)

    async def stop(self) -> None:
        if self._process is not None and self._process.running:
            await self._process.stop()

    async def put(self, namespace: str, name: str, **kind: Any) -> None:
        """Write a secret where Gloo looks for it: ``put("ns", "pets", tls={…})``."""
        document = {"metadata": {"name": name, "namespace": namespace}, **kind}
        path = f"secret/data/gloo/gloo.solo.io/v1/Secret/{namespace}/{name}"
        await self.ask("POST", path, {"data": document})

    async def delete(self, namespace: str, name: str) -> None:
        await self.ask("DELETE", f"secret/metadata/gloo/gloo.solo.io/v1/Secret/{namespace}/{name}")

    async def ask(
        self, method: str, path: str, document: Mapping[str, Any] | None = None, *, token: str = ROOT_TOKEN
    ) -> Any:
        """Vault's HTTP API; the answer's document, None when it has none."""
        async with (
            aiohttp.ClientSession(headers={"X-Vault-Token": token}) as http,
            http.request(method, f"{self.address}/v1/{path}", json=document) as answer,
        ):
            answer.raise_for_status()
            return await answer.json() if answer.status == 200 else None

    async def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.running, self._process.output()
        try:
            await self.ask("GET", "sys/health")
            await self.ask("GET", "sys/internal/ui/mounts/secret")
        except aiohttp.ClientError:
            return False
        return True
