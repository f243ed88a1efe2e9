"""Raw xDS clients for tests: one without a socket, one over grpcio. Google's protobuf reads and writes.

Both speak through the same few verbs, so that one scenario runs over either.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
import grpc.aio
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2 as pb

from services.gloo.resources import (
    CLUSTER,
    ENDPOINTS,
    LISTENER,
    ROUTES,
    SECRET,
    Resources,
    Snapshot,
    TypeUrl,
    resource,
)
from services.gloo.xds import Cache, Options, XdsServer, wire
from services.gloo.xds.sessions import Session
from services.gloo.xds.subscription import Comparisons, Receipt
from services.gloo.xds.wire import Frames

ROLE = "ns~proxy"
Content = Mapping[str, str]

METHODS = {
    CLUSTER: ("cluster.v3.ClusterDiscoveryService", "Clusters"),
    ENDPOINTS: ("endpoint.v3.EndpointDiscoveryService", "Endpoints"),
    LISTENER: ("listener.v3.ListenerDiscoveryService", "Listeners"),
    ROUTES: ("route.v3.RouteDiscoveryService", "Routes"),
    SECRET: ("secret.v3.SecretDiscoveryService", "Secrets"),
}


def snapshot(contents: Mapping[TypeUrl, Content]) -> Snapshot:
    """A snapshot of resources by name, their bodies the given texts."""
    return Snapshot(
        {
            type_url: Resources.of(resource(name, body.encode()) for name, body in content.items())
            for type_url, content in contents.items()
        }
    )


@dataclass(frozen=True, slots=True)
class Response:
    """What a response says: bodies by name (State-of-the-World has no names: the bodies' own), removals."""

    type_url: str
    version: str
    nonce: str
    bodies: tuple[str, ...]
    names: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    removed: frozenset[str] = frozenset()

    @property
    def content(self) -> frozenset[str]:
        assert len(self.bodies) == len(set(self.bodies)), "a resource came twice"
        return frozenset(self.bodies)


def read_response(data: bytes, delta: bool) -> Response:
    if not delta:
        sotw = pb.DiscoveryResponse.FromString(data)
        assert {any_.type_url for any_ in sotw.resources} <= {sotw.type_url}
        bodies = tuple(any_.value.decode() for any_ in sotw.resources)
        return Response(sotw.type_url, sotw.version_info, sotw.nonce, bodies)
    answer = pb.DeltaDiscoveryResponse.FromString(data)
    assert {r.resource.type_url for r in answer.resources} <= {answer.type_url}
    assert not any(r.HasField("ttl") for r in answer.resources), "nothing expires: an outage takes nothing"
    return Response(
        answer.type_url,
        answer.system_version_info,
        answer.nonce,
        tuple(r.resource.value.decode() for r in answer.resources),
        tuple(r.name for r in answer.resources),
        tuple(r.version for r in answer.resources),
        frozenset(answer.removed_resources),
    )


class Wire(Protocol):
    """Where requests go and responses come from."""

    delta: bool

    async def write(self, type_url: TypeUrl, request: Any) -> None: ...

    async def read(self, type_url: TypeUrl, *, due: bool = True) -> Response | None:
        """The next response for a type; None when there is none, which is known sooner if none is due."""

    def publish(self, content: Snapshot) -> None: ...


@dataclass
class Driver:
    """A client that behaves: it answers each response with its nonce, and names node once a stream."""

    wire: Wire
    contents: dict[TypeUrl, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    names: dict[TypeUrl, set[str]] = field(default_factory=lambda: defaultdict(set))
    version: dict[TypeUrl, str] = field(default_factory=lambda: defaultdict(str))
    nonce: dict[TypeUrl, str] = field(default_factory=lambda: defaultdict(str))
    offered: dict[TypeUrl, str] = field(default_factory=lambda: defaultdict(str))
    role: str = ROLE

    def publish(self, type_url: TypeUrl, **content: str) -> None:
        """Put resources of a type; an empty text takes one away."""
        self.contents[type_url].update(content)
        self.contents[type_url] = {name: body for name, body in self.contents[type_url].items() if body}
        self.wire.publish(snapshot(self.contents))

    async def subscribe(self, type_url: TypeUrl, *names: str) -> None:
        self.names[type_url].update(names)
        await self.ask(type_url, subscribe=names)

    async def unsubscribe(self, type_url: TypeUrl, *names: str) -> None:
        self.names[type_url].difference_update(names)
        await self.ask(type_url, unsubscribe=names)

    async def receive(self, type_url: TypeUrl, *, answer: bool = True, refuse: str | None = None) -> Response:
        """The response that must be due, answered unless told otherwise."""
        response = await self.wire.read(type_url)
        assert response is not None, "a response is due"
        assert response.nonce
        assert response.nonce != self.nonce[type_url]
        self.nonce[type_url] = response.nonce
        self.offered[type_url] = response.version
        if answer:
            await self.answer(type_url, refuse=refuse)
        return response

    async def answer(self, type_url: TypeUrl, *, refuse: str | None = None, nonce: str = "") -> None:
        """Accept or refuse the last response, or the one with *nonce*."""
        if refuse is None:
            self.version[type_url] = self.offered[type_url]
        await self.ask(type_url, nonce=nonce or self.nonce[type_url], error=refuse)

    def reconnect(self) -> None:
        """Forget what belongs to a stream; the new one's first request tells what is held."""
        assert isinstance(self.wire, Scripted)
        self.wire.reconnect()
        self.nonce.clear()

    async def silent(self, *type_urls: TypeUrl) -> None:
        for type_url in type_urls:
            response = await self.wire.read(type_url, due=False)
            assert response is None, f"more than necessary was sent: {response}"

    async def ask(
        self,
        type_url: TypeUrl,
        *,
        subscribe: tuple[str, ...] = (),
        unsubscribe: tuple[str, ...] = (),
        nonce: str | None = None,
        versions: Mapping[str, str] | None = None,
        error: str | None = None,
    ) -> None:
        node = base_pb2.Node(id="raw")
        node.metadata["role"] = self.role
        if self.wire.delta:
            delta = pb.DeltaDiscoveryRequest(
                node=node,
                type_url=type_url,
                resource_names_subscribe=subscribe,
                resource_names_unsubscribe=unsubscribe,
                initial_resource_versions=versions,
                response_nonce=nonce or "",
            )
            await self.wire.write(type_url, _refusing(delta, error))
        else:
            sotw = pb.DiscoveryRequest(
                node=node,
                type_url=type_url,
                resource_names=sorted(self.names[type_url]),
                version_info=self.version[type_url],
                response_nonce=self.nonce[type_url] if nonce is None else nonce,
            )
            await self.wire.write(type_url, _refusing(sotw, error))


def _refusing(request: Any, error: str | None) -> Any:
    if error is not None:
        request.error_detail.code = 13
        request.error_detail.message = error
    return request


class Scripted:
    """A session without a socket, and the time in hand."""

    def __init__(self, *, delta: bool, options: Options | None = None) -> None:
        self.delta = delta
        self.now = 1000.0
        self.options = options or Options(removal_grace=0)
        self.snapshot: Snapshot | None = None
        self.receipts: list[Receipt] = []
        self._frames, self._compare = Frames(2**20), Comparisons()
        self._arrived: dict[str, deque[Response]] = defaultdict(deque)
        self.reconnect()

    def reconnect(self) -> None:
        self.session = Session(
            delta=self.delta, options=self.options, frames=self._frames, compare=self._compare
        )
        self._arrived.clear()

    def publish(self, content: Snapshot) -> None:
        self.snapshot = content

    async def write(self, type_url: TypeUrl, request: Any) -> None:
        read: Callable[[bytes, int], Any] = wire.read_delta if self.delta else wire.read_sotw
        decoded = read(request.SerializeToString(), 10_000)
        self.receipts.append(self.session.receive(type_url, decoded, self.now))

    async def read(self, type_url: TypeUrl, *, due: bool = True) -> Response | None:
        while self.snapshot is not None and (message := self.session.next(self.snapshot, self.now)):
            size = int.from_bytes(message.data[1:5], "big")
            assert message.data[:1] == b"\0"
            assert len(message.data) == size + 5
            response = read_response(message.data[5:], self.delta)
            self._arrived[response.type_url].append(response)
        arrived = self._arrived[type_url]
        return arrived.popleft() if arrived else None


class Streams:
    """A grpcio client of a real server: one ADS stream, or a stream a type."""

    def __init__(
        self, server: XdsServer, cache: Cache, channel: grpc.aio.Channel, *, delta: bool, aggregated: bool
    ) -> None:
        self.delta = delta
        self.server = server
        self._cache = cache
        self._channel = channel
        self._aggregated = aggregated
        self._streams: dict[str, Any] = {}
        self._readers: dict[str, asyncio.Task[None]] = {}
        self._arrived: dict[str, asyncio.Queue[Response]] = defaultdict(asyncio.Queue)

    def publish(self, content: Snapshot) -> None:
        self._cache.set(ROLE, content)

    async def write(self, type_url: TypeUrl, request: Any) -> None:
        key = "" if self._aggregated else type_url
        if key not in self._streams:
            self._streams[key] = self._channel.stream_stream(self._method(type_url))()
            self._readers[key] = asyncio.create_task(self._read(self._streams[key]))
        await self._streams[key].write(request.SerializeToString())

    async def read(self, type_url: TypeUrl, *, due: bool = True) -> Response | None:
        try:
            async with asyncio.timeout(10 if due else 0.05):
                return await self._arrived[type_url].get()
        except TimeoutError:
            return None

    async def close(self) -> None:
        for stream in self._streams.values():
            stream.cancel()
        for reader in self._readers.values():
            await asyncio.wait([reader])

    def _method(self, type_url: TypeUrl) -> str:
        service, what = METHODS[type_url]
        if self._aggregated:
            service, what = "discovery.v3.AggregatedDiscoveryService", "AggregatedResources"
        return f"/envoy.service.{service}/{'Delta' if self.delta else 'Stream'}{what}"

    async def _read(self, stream: Any) -> None:
        try:
            async for data in stream:
                response = read_response(data, self.delta)
                self._arrived[response.type_url].put_nowait(response)
        except (grpc.aio.AioRpcError, asyncio.CancelledError):
            return


@asynccontextmanager
async def serving(options: Options | None = None, **more: Any) -> AsyncIterator[tuple[XdsServer, Cache]]:
    """A real server on a port of its own."""
    cache = Cache()
    server = XdsServer(cache, options or Options(removal_grace=0), **more)
    await server.start("127.0.0.1", 0)
    try:
        yield server, cache
    finally:
        await server.stop(1)


@asynccontextmanager
async def streaming(*, delta: bool, aggregated: bool) -> AsyncIterator[Streams]:
    async with (
        serving() as (server, cache),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        streams = Streams(server, cache, channel, delta=delta, aggregated=aggregated)
        try:
            yield streams
        finally:
            await streams.close()
