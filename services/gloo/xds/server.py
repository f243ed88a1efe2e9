"""The xDS server: which gRPC methods there are, its clients, its start and its stop."""

from __future__ import annotations

import asyncio
import contextlib
import ssl as tls
from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import count
from typing import Any

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.health.check import ServiceStatus
from grpclib.health.service import Health
from grpclib.reflection.service import ServerReflection

from services.gloo.resources import (
    CLUSTER,
    ENDPOINTS,
    EXTENSION,
    LISTENER,
    ROUTES,
    SECRET,
    Resource,
    TypeUrl,
)
from services.gloo.xds import csds
from services.gloo.xds.cache import Cache
from services.gloo.xds.client import Admit, Client, Measure, Observer, Shared
from services.gloo.xds.options import DEFAULTS, Options
from services.gloo.xds.progress import sum_up
from services.gloo.xds.sessions import Session
from services.gloo.xds.subscription import Comparisons
from services.gloo.xds.transport import (
    GrpcStream,
    XdsGrpcServer,
    peer,
    peer_address,
    peer_certificate,
    receive,
    receive_size,
)
from services.gloo.xds.turned_away import TurnedAway
from services.gloo.xds.wire import Frames
from shared.incremental.units import Steps
from shared.ref import Source

BEHIND_SHOWN = 20
CUT_OFF_SECONDS = 1.0  # that connections may take to end once they are cut off
STATUS_REQUEST_BYTES = 64 * 1024

_SERVICES: tuple[tuple[str, str, TypeUrl | None], ...] = (
    ("discovery.v3.AggregatedDiscoveryService", "AggregatedResources", None),
    ("cluster.v3.ClusterDiscoveryService", "Clusters", CLUSTER),
    ("endpoint.v3.EndpointDiscoveryService", "Endpoints", ENDPOINTS),
    ("listener.v3.ListenerDiscoveryService", "Listeners", LISTENER),
    ("route.v3.RouteDiscoveryService", "Routes", ROUTES),
    ("secret.v3.SecretDiscoveryService", "Secrets", SECRET),
    ("extension.v3.ExtensionConfigDiscoveryService", "ExtensionConfigs", EXTENSION),
)


class Silent:
    """An observer whom nothing interests."""

    def connected(self, client: str, role: str, node: str) -> None: ...

    def disconnected(self, client: str) -> None: ...

    def acked(
        self,
        client: str,
        role: str,
        type_url: TypeUrl,
        version: str,
        resources: tuple[Resource, ...],
        removed: tuple[str, ...],
    ) -> None: ...

    def nacked(
        self,
        client: str,
        role: str,
        type_url: TypeUrl,
        version: str,
        resources: tuple[Resource, ...],
        message: str,
    ) -> None: ...


class XdsServer:
    """Serves a cache's snapshots; *measure* and *admit* are described with their types."""

    def __init__(
        self,
        cache: Cache,
        options: Options = DEFAULTS,
        observer: Observer | None = None,
        *,
        measure: Measure = lambda event, type_url, amount: None,
        admit: Admit = lambda node, certificate: None,
    ) -> None:
        self._cache = cache
        self._options = options
        self._observer = observer or Silent()
        self._measure = measure
        self._admit = admit
        self._frames = Frames(options.shared_bytes)
        self._compare = Comparisons()
        self._turned_away = TurnedAway()
        self._handshakes = TurnedAway()
        self._serial = count(1)
        self._shared = Shared(options, cache)
        self._clients = self._shared.clients
        self._health = ServiceStatus()
        self._stopping = False
        self._idle = asyncio.Event()
        self._server: XdsGrpcServer | None = None

    @property
    def port(self) -> int:
        """The port in use; 0 before the start."""
        return self._server.port if self._server else 0

    async def start(self, host: str, port: int, ssl: tls.SSLContext | None = None) -> None:
        services: list[Any] = [
            *(_Service(self._serve, *named) for named in _SERVICES),
            _StatusService(self._answer),
        ]
        health = Health({service: [self._health] for service in services})
        handlers = ServerReflection.extend([*services, health])
        self._server = XdsGrpcServer(
            handlers, options=self._options, failed=self._not_let_in, line=self._shared.line
        )
        self._health.set(True)
        await self._server.serve(host, port, ssl)

    async def stop(self, grace: float) -> None:
        """End every stream with UNAVAILABLE, so that clients go elsewhere; cut off the rest after *grace*.

        What has not even ended then is left behind.
        """
        if self._server is None:
            return
        self._stopping = True
        self._health.set(False)
        for client in tuple(self._clients.values()):
            client.close(_going_away())
        try:
            async with asyncio.timeout(grace):
                while self._clients:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            for client in tuple(self._clients.values()):
                client.abort()
        self._server.goodbye()
        self._server.close()
        try:
            async with asyncio.timeout(grace):
                await self._server.wait_closed()
        except TimeoutError:
            self._server.abort()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CUT_OFF_SECONDS):
                    await self._server.wait_closed()

    def abort(self) -> None:
        """Cut everything off, and let nobody in any more."""
        if self._server is not None:
            self._server.close()
            self._server.abort()

    def renew(self, ssl: tls.SSLContext) -> None:
        """Meet new connections with *ssl*; streams that are open stay so."""
        if self._server is not None:
            self._server.door.renew(ssl)

    def readmit(self) -> None:
        """Ask anew whether each client may have its role, after who may has changed."""
        for client in tuple(self._clients.values()):
            client.readmit()

    def refused(self) -> list[dict[str, Any]]:
        """Who was turned away lately and why, the last first, for ``GET /debug/xds``."""
        return [*self._turned_away.listed(), *self._handshakes.listed()]

    def _turn_away(self, **who_and_why: str) -> None:
        self._measure("turned away", TypeUrl(""), 1)
        self._turned_away.add(**who_and_why)

    def _not_let_in(self, host: str, reason: str) -> None:
        self._measure("handshake failed", TypeUrl(""), 1)
        self._handshakes.add(problem=f"the TLS handshake with {host} failed: {reason}", address=host)

    def clients(self) -> Iterator[dict[str, Any]]:
        """Every stream, as plain values for ``GET /debug/xds``."""
        for client in tuple(self._clients.values()):
            yield client.describe()

    @property
    def streams(self) -> int:
        return len(self._clients)

    def roles(self, source: Source | None = None) -> Steps[dict[str, dict[str, Any]]]:
        """How far the clients of each role are, with one object or all; short, however many there are. A step
        for each."""
        by_role: dict[str, list[Client]] = {role: [] for role in sorted(self._cache.roles())}
        behind: dict[str, list[tuple[str, TypeUrl, int]]] = {role: [] for role in by_role}
        for client in tuple(self._clients.values()):
            if client.node is None or not client.role:
                continue
            by_role.setdefault(client.role, []).append(client)
            found = behind.setdefault(client.role, [])
            found += ((client.node.id, *each) for each in client.behind(source).items())
            yield
        return {role: self._role(role, clients, behind[role]) for role, clients in by_role.items()}

    def _role(
        self, role: str, clients: list[Client], behind: list[tuple[str, TypeUrl, int]]
    ) -> dict[str, Any]:
        snapshot = self._cache.get(role)
        return {
            "served": snapshot is not None,
            "versions": {type_url: each.version for type_url, each in snapshot.by_type.items()}
            if snapshot
            else {},
            "envoys": len({client.node.id for client in clients if client.node is not None}),
            "behind": sum_up(behind, BEHIND_SHOWN),
        }

    async def _serve(self, stream: GrpcStream, type_url: TypeUrl | None, delta: bool) -> None:
        if self._stopping:
            raise _going_away()
        if not self._shared.make_room(peer(stream)):
            problem = f"{self._options.max_streams} streams are open already"
            self._turn_away(problem=problem, address=peer_address(stream))
            raise GRPCError(Status.RESOURCE_EXHAUSTED, problem)
        client = Client(
            str(next(self._serial)),
            stream,
            Session(delta=delta, options=self._options, frames=self._frames, compare=self._compare),
            type_url=type_url,
            cache=self._cache,
            options=self._options,
            observer=self._observer,
            measure=self._measure,
            admit=self._admit,
            shared=self._shared,
            turned_away=self._turn_away,
        )
        self._clients[client.id] = client
        try:
            await client.run()
        finally:
            del self._clients[client.id]
            self._idle.set()

    async def _answer(self, stream: GrpcStream) -> bool:
        """Answer the next question about clients (CSDS); False when there is none any more.

        Whoever asks hears of the clients whose roles it might have itself. Few answers are in memory at a
        time.
        """
        size = await receive_size(stream, STATUS_REQUEST_BYTES)
        if size is None:
            return False
        try:
            question = csds.Question.of(await receive(stream, size))
            async with self._shared.answering.take():
                visible = self._visible(question, peer_certificate(stream))
                steps = csds.answer(visible, question, self._options.max_status_bytes)
                await stream.send_message(await self._shared.line.between(peer(stream), steps))
        except csds.Unclear as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error
        except csds.TooLong as error:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, str(error)) from error
        except TimeoutError as error:
            raise GRPCError(Status.UNAVAILABLE, "nothing was read for too long") from error
        return True

    def _visible(self, question: csds.Question, certificate: Any) -> Iterator[csds.ClientState]:
        for client in tuple(self._clients.values()):
            node = client.node
            if node is not None and question.about(node) and self._admit(node, certificate) is None:
                yield client.observe(node)


def _going_away() -> GRPCError:
    return GRPCError(Status.UNAVAILABLE, "the control plane is going away")


class _Service:
    """One discovery service: its streaming method in both dialects. To fetch once is refused in words: what
    comes would be out of date with the next change, and nobody would know whether it was taken."""

    def __init__(
        self,
        serve: Callable[[GrpcStream, TypeUrl | None, bool], Awaitable[None]],
        name: str,
        method: str,
        type_url: TypeUrl | None,
    ) -> None:
        self._serve = serve
        self._path = f"/envoy.service.{name}/"
        self._method = method
        self._type_url = type_url

    def __mapping__(self) -> Mapping[str, Handler]:
        async def sotw(stream: GrpcStream) -> None:
            await self._serve(stream, self._type_url, False)

        async def delta(stream: GrpcStream) -> None:
            await self._serve(stream, self._type_url, True)

        async def fetch(stream: GrpcStream) -> None:
            words = f"nothing is fetched here; follow it with Stream{self._method} or Delta{self._method}"
            raise GRPCError(Status.UNIMPLEMENTED, words)

        methods = {
            f"{self._path}Stream{self._method}": Handler(sotw, Cardinality.STREAM_STREAM, bytes, bytes),
            f"{self._path}Delta{self._method}": Handler(delta, Cardinality.STREAM_STREAM, bytes, bytes),
        }
        if self._type_url is not None:
            once = Handler(fetch, Cardinality.UNARY_UNARY, bytes, bytes)
            methods[f"{self._path}Fetch{self._method}"] = once
        return methods


class _StatusService:
    """CSDS: one question, or a stream of them."""

    def __init__(self, answer: Callable[[GrpcStream], Awaitable[bool]]) -> None:
        self._answer = answer

    def __mapping__(self) -> Mapping[str, Handler]:
        async def fetch(stream: GrpcStream) -> None:
            await self._answer(stream)

        async def follow(stream: GrpcStream) -> None:
            await stream.send_initial_metadata()
            while await self._answer(stream):
                pass

        return {
            f"/{csds.SERVICE}/FetchClientStatus": Handler(fetch, Cardinality.UNARY_UNARY, bytes, bytes),
            f"/{csds.SERVICE}/StreamClientStatus": Handler(follow, Cardinality.STREAM_STREAM, bytes, bytes),
        }
