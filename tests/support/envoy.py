"""A real Envoy for tests: started with a bootstrap, asked through its admin port, stopped by its pid."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.processes import Process, spawn
from tests.support.waiting import eventually

BINARY = Path(sys.prefix) / "bin" / "envoy"


def ads_bootstrap(
    *, xds_port: int, admin_port: int, role: str, node: str = "envoy", delta: bool = True
) -> dict[str, Any]:
    """The article's bootstrap: everything over ADS from ``xds_cluster``; delta or State-of-the-World."""
    ads = {"resource_api_version": "V3", "ads": {}}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": xds_port}}
    endpoint = {"endpoint": {"address": address}}
    http2 = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    return {
        "node": {"id": node, "cluster": "gateway", "metadata": {"role": role}},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin_port}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC" if delta else "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds_cluster"}}],
            },
            "cds_config": ads,
            "lds_config": ads,
        },
        "static_resources": {
            "clusters": [
                {
                    "name": "xds_cluster",
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "load_assignment": {
                        "cluster_name": "xds_cluster",
                        "endpoints": [{"lb_endpoints": [endpoint]}],
                    },
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2
                    },
                }
            ]
        },
    }


class Envoy:
    """A running Envoy."""

    def __init__(self, process: Process, admin_port: int, http: aiohttp.ClientSession) -> None:
        self.process = process
        self.admin_port = admin_port
        self._http = http

    async def admin(self, path: str, method: str = "GET") -> str:
        url = f"http://127.0.0.1:{self.admin_port}{path}"
        async with self._http.request(method, url) as answer:
            return await answer.text()

    async def stats(self, pattern: str = "") -> dict[str, int]:
        """Counters and gauges whose name matches *pattern*."""
        text = await self.admin(f"/stats?format=json&filter={pattern}")
        return {stat["name"]: stat["value"] for stat in json.loads(text)["stats"] if "value" in stat}

    async def config_dump(self) -> dict[str, Any]:
        dump: dict[str, Any] = json.loads(await self.admin("/config_dump?include_eds"))
        return dump

    async def get(
        self, port: int, path: str = "/", headers: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """A request through the listener on *port*: status and body; status 0 when nobody listens."""
        try:
            async with self._http.get(f"http://127.0.0.1:{port}{path}", headers=headers) as answer:
                return answer.status, await answer.text()
        except aiohttp.ClientConnectionError:
            return 0, ""

    async def stop(self) -> None:
        if self.process.running:
            await self.process.stop()


@contextlib.asynccontextmanager
async def running_envoy(
    directory: Path, bootstrap: Mapping[str, Any], *, log_level: str = "warning"
) -> AsyncIterator[Envoy]:
    """Start Envoy with *bootstrap*, its files in *directory*, until its admin port answers; stop it after."""
    admin_port = bootstrap["admin"]["address"]["socket_address"]["port_value"]
    config = directory / f"envoy-{admin_port}.json"
    config.write_text(json.dumps(bootstrap))
    process = spawn(
        [
            *(BINARY, "--config-path", config, "--log-level", log_level),
            *("--concurrency", "1", "--use-dynamic-base-id", "--file-flush-interval-msec", "100"),
        ],
        log=config.with_suffix(".log"),
    )
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http:
        envoy = Envoy(process, admin_port, http)
        try:
            await eventually(lambda: _answers(envoy), within=20)
            yield envoy
        finally:
            await envoy.stop()


async def _answers(envoy: Envoy) -> str:
    assert envoy.process.running, envoy.process.output()
    return await envoy.admin("/ready")
