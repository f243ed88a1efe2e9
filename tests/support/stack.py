"""The whole system on ports of its own: real Consul, real Envoys, petstore and our three processes."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tests.support.consul import REPOSITORY, ConsulServer
from tests.support.ports import free_ports
from tests.support.processes import Process, spawn
from tests.support.waiting import eventually

BIN = Path(sys.executable).parent
ROLES = ("gloo", "gateway", "discovery")
GROUPS = {
    "Gateway": "gateway.solo.io",
    "VirtualService": "gateway.solo.io",
    "RouteTable": "gateway.solo.io",
    "VirtualHostOption": "gateway.solo.io",
    "RouteOption": "gateway.solo.io",
    "ListenerOption": "gateway.solo.io",
    "HttpListenerOption": "gateway.solo.io",
    "MatchableHttpGateway": "gateway.solo.io",
    "MatchableTcpGateway": "gateway.solo.io",
    "Proxy": "gloo.solo.io",
    "Upstream": "gloo.solo.io",
    "UpstreamGroup": "gloo.solo.io",
    "Artifact": "gloo.solo.io",
}
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; status 0 when there was none (refused, reset)."""

    status: int
    text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class Stack:
    """Starts everything; stories then edit Consul, look at traffic and look at statuses.

    *settings* are merged over the tests' own; *delta* chooses the bootstrap; *durable* keeps Consul's data
    over a restart; *runtime* are switches of the Envoys. Roles are started by ``start``, or one by one with
    ``start_role``.
    """

    def __init__(
        self,
        directory: Path,
        *,
        settings: Mapping[str, Any] | None = None,
        delta: bool = True,
        durable: bool = False,
        runtime: Mapping[str, Any] | None = None,
    ) -> None:
        self.directory = directory
        self.consul = ConsulServer(directory / "consul", durable=durable)
        self.delta = delta
        self.runtime = runtime
        self.http_port, self.xds_port, self.admin_port, *admins = free_ports(6)
        self.admins = dict(zip(ROLES, admins, strict=True))
        self.processes: dict[str, Process] = {}
        self.settings: Document = {
            "metadata": {"name": "default", "namespace": "gloo-system"},
            "consulKvSource": {},
            "consul": {"address": self.consul.address, "serviceDiscovery": {}},
            "discoveryNamespace": "gloo-system",
            "refreshRate": "15s",
            "gateway": {"disableAutoGenGateways": True},
            "gloo": {"xdsBindAddr": f"127.0.0.1:{self.xds_port}"},
            **(settings or {}),
        }

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        self.write_settings()
        await self.consul.start()
        await self.put("Gateway", "gateway-proxy", GATEWAY | {"bindPort": self.http_port})
        for role in ROLES:
            self.start_role(role)
        self.start_envoy("envoy", self.admin_port)
        for role in ROLES:
            await self.ready(role)

    async def stop(self) -> None:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.consul.stop)
            for name in list(self.processes):
                stack.push_async_callback(self.stop_process, name)

    # -- processes --------------------------------------------------------------------------------------

    def write_settings(self, **changes: Any) -> None:
        self.settings |= changes
        path = self.directory / "data" / "gloo-system" / "default.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".new")
        scratch.write_text(yaml.safe_dump(self.settings))
        scratch.replace(path)

    def start_role(self, role: str, *, name: str = "", admin: int = 0, flags: Sequence[str] = ()) -> Process:
        """Start a role; a second replica needs a *name* and an *admin* port of its own."""
        name = name or role
        command = [str(BIN / role), "--dir", str(self.directory / "data"), *flags]
        command += ["--admin-addr", f"127.0.0.1:{admin or self.admins[role]}"]
        process = spawn(command, log=self.directory / f"{name}.log", cwd=REPOSITORY)
        self.processes[name] = process
        return process

    def start_envoy(self, name: str, admin: int, *, xds_ports: Sequence[int] = (), **nodes: Any) -> Process:
        """Start an Envoy that knows gloo, or all replicas of it by *xds_ports*; *nodes* goes to its node."""
        source = "envoy.yaml" if self.delta else "envoy-sotw.yaml"
        bootstrap = yaml.safe_load((REPOSITORY / "examples" / "data" / source).read_text())
        bootstrap["node"] |= {"id": name, **nodes}
        if self.runtime:
            layer = {"name": "static", "static_layer": dict(self.runtime)}
            bootstrap["layered_runtime"] = {"layers": [layer]}
        cluster = bootstrap["static_resources"]["clusters"][0]
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = [
            {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
            for port in xds_ports or [self.xds_port]
        ]
        bootstrap["admin"]["address"]["socket_address"]["port_value"] = admin
        path = self.directory / f"{name}.yaml"
        path.write_text(yaml.safe_dump(bootstrap))
        command = [str(BIN / "envoy"), "-c", str(path), "--concurrency", "1", "-l", "warning"]
        command += ["--use-dynamic-base-id", "--file-flush-interval-msec", "100"]
        process = spawn(command, log=self.directory / f"{name}.log")
        self.processes[name] = process
        return process

    def start_petstore(self, port: int, name: str = "petstore") -> Process:
        command = [sys.executable, str(REPOSITORY / "examples/petstore/petstore.py"), "--port", str(port)]
        process = self.processes[name] = spawn(command, log=self.directory / f"{name}.log")
        return process

    async def stop_process(self, name: str) -> int:
        """Stop in order; the exit code."""
        process = self.processes.pop(name)
        return await process.stop() if process.running else process.exit_code or 0

    async def kill_process(self, name: str) -> None:
        await self.processes.pop(name).kill()

    async def ready(self, role: str, *, admin: int = 0, within: float = 30.0) -> None:
        port = admin or self.admins[role]

        async def is_ready() -> bool:
            process = self.processes.get(role)
            assert process is None or process.running, f"{role} ended:\n{process.output()}"
            return (await fetch(f"http://127.0.0.1:{port}/readyz")).status == 200

        await eventually(is_ready, within=within)

    async def debug(self, role: str, page: str) -> Any:
        answer = await fetch(f"http://127.0.0.1:{self.admins[role]}/debug/{page}")
        assert answer.status == 200, answer
        return json.loads(answer.text)

    # -- objects ----------------------------------------------------------------------------------------

    async def put(
        self, kind: str, name: str, document: Mapping[str, Any] | str | bytes, namespace: str = "gloo-system"
    ) -> None:
        """Write an object as its author would: a mapping gets its metadata, a text is taken as it is."""
        if isinstance(document, Mapping):
            document = {"metadata": {"name": name, "namespace": namespace}, **document}
            document = yaml.safe_dump(document)
        await self.consul.put(key(kind, name, namespace), document)

    async def delete(self, kind: str, name: str, namespace: str = "gloo-system") -> None:
        await self.consul.delete(key(kind, name, namespace))

    async def raw(self, kind: str, name: str, namespace: str = "gloo-system") -> str | None:
        answer = await fetch(f"{self.consul.url}/v1/kv/{key(kind, name, namespace)}?raw")
        return answer.text if answer.status == 200 else None

    async def object(self, kind: str, name: str, namespace: str = "gloo-system") -> Document | None:
        raw = await self.raw(kind, name, namespace)
        return None if raw is None else yaml.safe_load(raw)

    async def status(self, kind: str, name: str, namespace: str = "gloo-system") -> Document:
        document = await self.object(kind, name, namespace)
        return (document or {}).get("status") or {}

    async def status_is(
        self,
        state: str,
        kind: str,
        name: str,
        namespace: str = "gloo-system",
        *,
        saying: str = "",
        within: float = 10.0,
    ) -> Document:
        """Wait until the object's status is *state* and its reason contains *saying*."""
        return await eventually(
            lambda: self.status(kind, name, namespace),
            until=lambda status: status.get("state") == state and saying in status.get("reason", ""),
            within=within,
        )

    async def register(self, name: str, port: int, **fields: Any) -> None:
        """Register a service instance on this machine with Consul's agent."""
        body = {"ID": f"{name}-{port}", "Name": name, "Address": "127.0.0.1", "Port": port, **fields}
        await self.consul.call("PUT", "/v1/agent/service/register", body)

    async def deregister(self, name: str, port: int) -> None:
        await self.consul.call("PUT", f"/v1/agent/service/deregister/{name}-{port}")

    # -- traffic ----------------------------------------------------------------------------------------

    async def get(
        self, path: str, host: str = "example.com", *, method: str = "GET", port: int = 0, **headers: str
    ) -> Answer:
        """One request through Envoy; *port* is that of another of its listeners, or of another Envoy."""
        url = f"http://127.0.0.1:{port or self.http_port}{path}"
        return await fetch(url, {"Host": host, **headers}, method)

    async def answers(
        self,
        path: str,
        status: int = 200,
        *,
        host: str = "example.com",
        saying: str = "",
        within: float = 10.0,
    ) -> Answer:
        """Ask until Envoy answers with *status* and *saying* in the body."""
        return await eventually(
            lambda: self.get(path, host),
            until=lambda answer: answer.status == status and saying in answer.text,
            within=within,
        )

    async def envoy(self, path: str, admin: int = 0) -> str:
        answer = await fetch(f"http://127.0.0.1:{admin or self.admin_port}{path}")
        assert answer.status == 200, answer
        return answer.text


GATEWAY: Document = {"bindAddress": "127.0.0.1", "httpGateway": {}, "proxyNames": ["gateway-proxy"]}


def key(kind: str, name: str, namespace: str = "gloo-system") -> str:
    return f"gloo/{GROUPS[kind]}/v1/{kind}/{namespace}/{name}"


def virtual_service(*routes: Mapping[str, Any], domains: Sequence[str] = ("*",)) -> Document:
    return {"virtualHost": {"domains": list(domains), "routes": list(routes)}}


def direct(prefix: str, body: str, status: int = 200, **fields: Any) -> Document:
    """A route that Envoy answers itself."""
    action = {"status": status, "body": body}
    return {"matchers": [{"prefix": prefix}], "directResponseAction": action, **fields}


def to_upstream(prefix: str, upstream: str, **options: Any) -> Document:
    """A route to an Upstream in gloo-system."""
    single = {"upstream": {"name": upstream, "namespace": "gloo-system"}}
    route: Document = {"matchers": [{"prefix": prefix}], "routeAction": {"single": single}}
    return {**route, "options": options} if options else route


async def fetch(url: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Answer:
    return await asyncio.to_thread(_fetch, url, dict(headers or {}), method)


def _fetch(url: str, headers: dict[str, str], method: str) -> Answer:
    request = urllib.request.Request(url, headers=headers, method=method)
    try:
        with _OPENER.open(request, timeout=5) as answer:
            return Answer(answer.status, answer.read().decode(errors="replace"), _lower(answer.headers))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read().decode(errors="replace"), _lower(error.headers))
    except (urllib.error.URLError, OSError) as error:
        return Answer(0, str(error))


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer like any other."""

    def redirect_request(self, *ignored: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
