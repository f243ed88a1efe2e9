"""gRPC clients without an Envoy: a real one, in a process of its own, calls a service through our server."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)

from protos.envoy import cluster, cors, route
from services.gloo.proxyless import Proxyless
from services.gloo.resources import LISTENER, ROUTES, Resource, Resources, Snapshot, resource
from services.gloo.xds import Cache, Options, XdsServer
from services.gloo.xds.server import Silent
from shared.codec.encode import encode, pack
from tests.services.gloo.xds.drivers import ROLE
from tests.services.gloo.xds.envoy_resources import eds_cluster, endpoints, http_listener, snapshot_of
from tests.support.waiting import eventually

API = f"{ROLE}~api"
CALLER = """
import sys, time, grpc
with grpc.insecure_channel("xds:///" + sys.argv[1]) as channel:
    call = channel.unary_unary(sys.argv[2])
    for _ in sys.stdin:
        try:
            print(call(b"", timeout=10).decode(), flush=True)
        except grpc.RpcError as error:
            print(error.code().name, error.details(), flush=True)
"""


def hosts(name: str, **by_domain: str) -> Resource:
    """A route configuration: to each domain a cluster."""
    made = [
        route.VirtualHost(
            name=domain,
            domains=[domain.replace("_", "."), f"*.{domain}"],
            routes=[route.Route(match=route.RouteMatch(prefix="/"), route=route.RouteAction(cluster=to))],
        )
        for domain, to in by_domain.items()
    ]
    return resource(name, encode(route.RouteConfiguration(name=name, virtual_hosts=made)))


@asynccontextmanager
async def greeter(greeting: str) -> AsyncIterator[int]:
    """A gRPC service; its port."""

    async def greet(request: bytes, context: object) -> bytes:
        return greeting.encode()

    server = grpc.aio.server()
    handlers = {"Greet": grpc.unary_unary_rpc_method_handler(greet)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("greeter", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@asynccontextmanager
async def caller(xds_port: int, target: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A proxyless gRPC client; a line in is a call, a line out its answer."""
    bootstrap = {
        "xds_servers": [
            {
                "server_uri": f"127.0.0.1:{xds_port}",
                "channel_creds": [{"type": "insecure"}],
                "server_features": ["xds_v3"],
            }
        ],
        "node": {"id": "proxyless", "metadata": {"role": API}},
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CALLER, target, "/greeter/Greet"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={"GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(bootstrap)},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def call(process: asyncio.subprocess.Process) -> str:
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"\n")
    async with asyncio.timeout(20):
        return (await process.stdout.readline()).decode().strip()


def with_cors(given: Snapshot) -> Snapshot:
    """Another virtual host that uses what gRPC does not know."""
    policy = {"envoy.filters.http.cors": pack(cors.CorsPolicy())}
    host = route.VirtualHost(name="cors", domains=["cors.example"], typed_per_filter_config=policy)
    body = encode(route.RouteConfiguration(name="more", virtual_hosts=[host]))
    return given.replaced({ROUTES: given.of(ROUTES).patched(put=[resource("more", body)])})


def content(to: str, **ports: int) -> Snapshot:
    made = snapshot_of(
        clusters=[eds_cluster(name, lb_policy=cluster.ClusterLbPolicy.ROUND_ROBIN) for name in ports],
        endpoints=[endpoints(name, port) for name, port in ports.items()],
        listeners=[http_listener("listener", 1, "routes")],
    )
    return made.replaced({ROUTES: Resources.of([hosts("routes", greeter_example=to, other_example="none")])})


async def test_a_grpc_client_without_an_envoy_calls_a_service_and_follows_changes(tmp_path: Path) -> None:
    cache = Cache()
    server = XdsServer(cache, Options(removal_grace=0.2), Proxyless(cache, Silent()))
    await server.start("127.0.0.1", 0)
    async with greeter("one") as one, greeter("two") as two:
        cache.set(ROLE, with_cors(content("a", a=one)))
        async with caller(server.port, "greeter.example") as client:
            assert await call(client) == "one"

            cache.set(ROLE, content("b", a=one, b=two))
            await eventually(lambda: call(client), until=lambda answer: answer == "two")

            cache.set(ROLE, content("b", b=one))
            await eventually(lambda: call(client), until=lambda answer: answer == "one")

            [row] = server.clients()
            assert (row["role"], row["problem"]) == (API, "")
            assert not any(kind["refused"] for kind in row["types"].values())
        await eventually(lambda: list(server.clients()), until=lambda rows: rows == [])
    assert cache.get(API) is None
    await server.stop(1)


def test_every_plain_domain_is_an_api_listener_and_no_address() -> None:
    cache = Cache()
    clients = Proxyless(cache, Silent())
    cache.set(ROLE, content("a", a=1))

    clients.connected("1", API, "node")

    listeners = cache.get(API).of(LISTENER)  # type: ignore[union-attr]
    assert sorted(listeners.by_name) == ["greeter.example", "other.example"]
    made = listener_pb2.Listener.FromString(listeners.by_name["greeter.example"].body)
    assert not made.HasField("address")
    manager = hcm_pb2.HttpConnectionManager()
    assert made.api_listener.api_listener.Unpack(manager)
    assert manager.rds.route_config_name == "routes/greeter_example"

    cache.set(ROLE, content("b", a=1, b=2))
    assert cache.get(API).of(LISTENER) is listeners  # type: ignore[union-attr]
    clients.disconnected("1")
    assert cache.get(API) is None


class Told(Silent):
    def __init__(self) -> None:
        self.clients: list[str] = []

    def connected(self, client: str, role: str, node: str) -> None:
        self.clients.append(client)


@pytest.mark.parametrize("role", [API, "nobody~x~api"])
def test_only_envoys_are_told_of(role: str) -> None:
    told = Told()
    clients = Proxyless(Cache(), told)

    clients.connected("grpc", role, "node")
    clients.nacked("grpc", role, LISTENER, "1", (), "no")
    clients.connected("envoy", ROLE, "node")
    clients.disconnected("grpc")

    assert told.clients == ["envoy"]
