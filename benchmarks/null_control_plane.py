"""The null control plane: pre-encoded configurations A and B, pushed over delta ADS at once when told.

It does nothing that a control plane must do (no decoding, no translating, no status), so its time from a
write in Consul to live in Envoy is the floor to compare with. It is told to flip by Consul: by a KV key
(``--key``, a blocking query) or by a service's endpoints (``--service``, a blocking health query).
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import grpc
import uvloop
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import config_source_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)
from envoy.service.discovery.v3 import discovery_pb2

ADS = config_source_pb2.ConfigSource(ads=config_source_pb2.AggregatedConfigSource(), resource_api_version=2)
ROUTES_PER_HOST = 10


def listener(port: int) -> Any:
    manager = hcm_pb2.HttpConnectionManager(stat_prefix="http")
    manager.rds.route_config_name = "routes"
    manager.rds.config_source.CopyFrom(ADS)
    router = manager.http_filters.add(name="envoy.filters.http.router")
    router.typed_config.Pack(router_pb2.Router())
    out = listener_pb2.Listener(name="listener")
    out.address.socket_address.address = "127.0.0.1"
    out.address.socket_address.port_value = port
    chain = out.filter_chains.add()
    chain.filters.add(name="envoy.filters.network.http_connection_manager").typed_config.Pack(manager)
    return out


def routes(count: int, answer: str | None) -> Any:
    """Virtual hosts of ten routes; the first of all answers *answer*, or goes to the cluster."""
    out = route_pb2.RouteConfiguration(name="routes")
    for number in range(max(1, count // ROUTES_PER_HOST)):
        host = out.virtual_hosts.add(name=f"host-{number}", domains=[f"host-{number}.example.com"])
        for index in range(min(count, ROUTES_PER_HOST)):
            route = host.routes.add()
            route.match.prefix = f"/path-{index}"
            if number == 0 and index == 0 and answer is None:
                route.route.cluster = "cluster"
            else:
                route.direct_response.status = 200
                body = answer if number == 0 and index == 0 and answer else "fixed"
                route.direct_response.body.inline_string = body
    return out


def cluster() -> Any:
    out = cluster_pb2.Cluster(name="cluster", type=cluster_pb2.Cluster.EDS)
    out.connect_timeout.seconds = 5
    out.eds_cluster_config.eds_config.CopyFrom(ADS)
    return out


def endpoints(port: int) -> Any:
    out = endpoint_pb2.ClusterLoadAssignment(cluster_name="cluster")
    address = out.endpoints.add().lb_endpoints.add().endpoint.address.socket_address
    address.address, address.port_value = "127.0.0.1", port
    return out


class NullServer:
    """Serves the current side, A or B; ``flip`` pushes the other one to every stream."""

    def __init__(self, options: argparse.Namespace) -> None:
        by_service = bool(options.service)
        self.sides = [
            self.encoded(
                listener(options.listener_port),
                routes(options.routes, None if by_service else side),
                cluster(),
                endpoints(options.backend_a if side == "A" else options.backend_b),
            )
            for side in "AB"
        ]
        self.side = 0
        self.streams: set[asyncio.Queue[bytes]] = set()
        self.nonce = 0

    @staticmethod
    def encoded(*messages: Any) -> dict[str, tuple[str, bytes]]:
        out = {}
        for message in messages:
            name = getattr(message, "cluster_name", "") or message.name
            type_url = f"type.googleapis.com/{message.DESCRIPTOR.full_name}"
            out[type_url] = (name, message.SerializeToString(deterministic=True))
        return out

    def response(self, type_url: str) -> bytes:
        name, body = self.sides[self.side][type_url]
        self.nonce += 1
        answer = discovery_pb2.DeltaDiscoveryResponse(type_url=type_url, nonce=str(self.nonce))
        entry = answer.resources.add(name=name, version=str(self.nonce))
        entry.resource.type_url, entry.resource.value = type_url, body
        return answer.SerializeToString()

    def flip(self) -> None:
        before = self.sides[self.side]
        self.side = 1 - self.side
        for type_url, entry in self.sides[self.side].items():
            if entry != before[type_url]:
                for queue in self.streams:
                    queue.put_nowait(self.response(type_url))

    async def stream(self, requests: AsyncIterator[Any], context: Any) -> None:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.streams.add(queue)

        async def write() -> None:
            while True:
                await context.write(await queue.get())

        writer = asyncio.create_task(write())
        try:
            async for request in requests:
                if (request.type_url in self.sides[self.side] and not request.response_nonce) or (
                    request.resource_names_subscribe and request.type_url in self.sides[self.side]
                ):
                    queue.put_nowait(self.response(request.type_url))
        finally:
            self.streams.discard(queue)
            writer.cancel()


async def watch(consul: str, path: str, on_change: Any) -> None:
    """Call *on_change* after every change behind one blocking query; the first answer does not count."""
    index = 0
    async with aiohttp.ClientSession() as session:
        while True:
            join = "&" if "?" in path else "?"
            async with session.get(f"{consul}{path}{join}wait=60s&index={index}") as answer:
                await answer.read()
                seen = int(answer.headers["X-Consul-Index"])
            if index and seen != index:
                on_change()
            index = seen


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--listener-port", type=int, required=True)
    parser.add_argument("--consul", required=True)
    parser.add_argument("--routes", type=int, default=1)
    parser.add_argument("--key", default="")
    parser.add_argument("--service", default="")
    parser.add_argument("--backend-a", type=int, default=1)
    parser.add_argument("--backend-b", type=int, default=2)
    options = parser.parse_args()
    null = NullServer(options)
    server = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
    handler = grpc.stream_stream_rpc_method_handler(
        null.stream, discovery_pb2.DeltaDiscoveryRequest.FromString, None
    )
    service = "envoy.service.discovery.v3.AggregatedDiscoveryService"
    handlers = {"DeltaAggregatedResources": handler}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_insecure_port(f"127.0.0.1:{options.port}")
    await server.start()
    path = f"/v1/health/service/{options.service}" if options.service else f"/v1/kv/{options.key}"
    await watch(options.consul, path, null.flip)


if __name__ == "__main__":
    uvloop.run(main())
