"""One stream of one client: requests into its session, the session's messages out, at the client's pace.

The handler writes, a task of its own reads. Nothing queues: the writer asks the session for the next
message when the last one is written, so a slow client gets the newest state late, not every state.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from time import time
from typing import Any, Protocol

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from h2.exceptions import ProtocolError

from services.gloo.resources import CLUSTER, LISTENER, ROUTES, Resource, Snapshot, TypeUrl
from services.gloo.xds import csds, transport, wire
from services.gloo.xds.cache import Cache
from services.gloo.xds.nack import normalise
from services.gloo.xds.options import Options
from services.gloo.xds.progress import Blame, concerned, missing, refused
from services.gloo.xds.sessions import LimitExceeded, Outgoing, Session
from services.gloo.xds.subscription import DeltaRequest, Node, Receipt, SotwRequest, Subscription, Verdict
from services.gloo.xds.turns import Line, Turn, Turns, Wakes
from shared.ref import Source

log = logging.getLogger(__name__)

BIG_REQUEST = 64 * 1024  # larger ones are decoded in a thread
BYTES_A_TOKEN = 16 * 1024  # of a request; it pays for its bytes as others do for their number
LONG_REQUEST = 4 * 1024  # after these nothing is read for a while
PAUSE_A_BYTE, LONGEST_PAUSE = 1e-6, 0.05  # seconds; about thrice what the names in it cost
NAMES_SHOWN = 100
ROLES_NAMED = 5
PUSH_TURN, ADMISSION_TURN = 0.25, 0.1  # so long may a big push, or a new client, keep others waiting


class Observer(Protocol):
    """Who wants to know what clients make of what they are sent."""

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
    ) -> None:
        """*resources* are what the refusal is about; none while that is still being found out."""


Measure = Callable[[str, TypeUrl, float], None]
"""Called as ``("sent", type, bytes)``, ``("acked", type, seconds)``, ``("refused", type, seconds)`` and,
whatever the type, ``("coalesced", "", snapshots)`` and ``("handshake failed", "", 1)``."""

Admit = Callable[[Node, Any], str | None]
"""Why this node, with this TLS certificate (or None), may not have its role; None when it may."""


class Shared:
    """What all clients of a server take turns at."""

    def __init__(self, options: Options) -> None:
        self.line = Line()
        self.wakes = Wakes()
        self.big_pushes = Turns(options.max_big_pushes, PUSH_TURN)
        self.admissions = Turns(options.max_admissions, ADMISSION_TURN)
        self.big_requests = asyncio.Semaphore(options.max_big_requests)
        self.decoding = asyncio.Semaphore(1)
        self.answering = asyncio.Semaphore(2)


class Client:
    """The stream's life, from its first request to its end."""

    def __init__(
        self,
        client_id: str,
        stream: transport.GrpcStream,
        session: Session,
        *,
        type_url: TypeUrl | None,
        cache: Cache,
        options: Options,
        observer: Observer,
        measure: Measure,
        admit: Admit,
        shared: Shared,
        turned_away: Callable[..., None],
    ) -> None:
        self.id = client_id
        self.node: Node | None = None
        self.session = session
        self._stream = stream
        self._type_url = type_url
        self._cache = cache
        self._options = options
        self._observer = observer
        self._measure = measure
        self._admit = admit
        self._turns = shared
        self._turned_away = turned_away
        self._admission: Turn | None = None
        self._clock = asyncio.get_running_loop().time
        self._since = datetime.now(UTC)
        self._wake = asyncio.Event()
        self._changes = 0
        self._blamed: dict[TypeUrl, Blame] = {}
        self._ended = False
        self._failure: GRPCError | None = None
        self._tokens = options.max_requests_per_second * 10
        self._refilled = self._clock()
        self._leave: Callable[[], None] = lambda: None

    async def run(self) -> None:
        """Serve until the client ends the stream; a failure is raised as a gRPC status."""
        await self._stream.send_initial_metadata()
        try:
            async with asyncio.TaskGroup() as tasks:
                reader = tasks.create_task(self._read())
                try:
                    await self._write()
                finally:
                    reader.cancel()
        finally:
            self._leave()
            self._settle_in()
            if self.node is not None:
                self._observer.disconnected(self.id)
        if self._failure is not None:
            raise self._failure

    def close(self, failure: GRPCError | None = None) -> None:
        """End the stream as soon as what is being written is written."""
        self._ended = True
        self._failure = self._failure or failure
        self._wake.set()

    def abort(self) -> None:
        transport.abort(self._stream)

    # --- writing ------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        while not self._ended:
            self._wake.clear()
            now = self._clock()
            if self._changes > 1:
                self._measure("coalesced", TypeUrl(""), self._changes - 1)
            self._changes = 0
            snapshot = self._cache.get(self.role)
            message = self.session.next(snapshot, now) if snapshot is not None else None
            if message is not None:
                await self._send(message)
                continue
            self._settle_in()
            await self._woken(self.session.wake_at(now))

    def _settle_in(self) -> None:
        if self._admission is not None:
            self._admission.end()

    async def _woken(self, at: float | None) -> None:
        if at is None:
            await self._wake.wait()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(at):
                await self._wake.wait()

    async def _send(self, message: Outgoing) -> None:
        try:
            if transport.fits(self._stream, len(message.data)):
                await transport.send(self._stream, message.data)
            else:
                await self._send_slowly(message.data)
        except TimeoutError:
            log.warning("an xDS client reads nothing, its connection is cut off", extra=self._fields())
            self.close(GRPCError(Status.UNAVAILABLE, "nothing was read for too long"))
            self.abort()
            return
        except ProtocolError:  # the stream was closed meanwhile
            self.close()
            return
        self._measure("sent", message.push.type_url, len(message.data))

    async def _send_slowly(self, data: bytes) -> None:
        """At the reader's pace, if it has one. Few big pushes at a time, but none waits long for another."""
        big = len(data) >= self._options.big_push_bytes
        with await self._turns.big_pushes.take() if big else contextlib.nullcontext():
            async with asyncio.timeout(self._options.send_timeout):
                await transport.send(self._stream, data)

    # --- reading ------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        greeting = True  # the first request names the node and all its extensions
        try:
            while (data := await self._receive()) is not None:
                await self._admitted()
                long = len(data) >= (BIG_REQUEST if greeting else LONG_REQUEST)
                greeting = False
                if long:
                    await self._turns.line.turn()
                self._take(await self._decode(data))
                if long:  # it made work; the others come first
                    await asyncio.sleep(min(len(data) * PAUSE_A_BYTE, LONGEST_PAUSE))
        except (wire.TooMany, LimitExceeded) as error:
            self.close(GRPCError(Status.RESOURCE_EXHAUSTED, str(error)))
        except wire.Malformed as error:
            self.close(GRPCError(Status.INVALID_ARGUMENT, f"not a discovery request: {error}"))
        except GRPCError as error:
            self.close(error)
        else:
            self.close()

    async def _receive(self) -> bytes | None:
        """The next request; of the big ones few are taken in at a time, since they lie in memory."""
        size = await transport.receive_size(self._stream, self._options.max_message_bytes)
        if size is None:
            return None
        self._spend(1 + size / BYTES_A_TOKEN)
        if size < BIG_REQUEST:
            return await transport.receive(self._stream, size)
        async with self._turns.big_requests:
            try:
                async with asyncio.timeout(self._options.send_timeout):
                    return await transport.receive(self._stream, size)
            except TimeoutError as error:
                raise GRPCError(Status.DEADLINE_EXCEEDED, "the request takes too long to arrive") from error

    def _spend(self, tokens: float) -> None:
        """Pay for a request, a big one as for many; the allowance fills up again with time."""
        rate, now = self._options.max_requests_per_second, self._clock()
        self._tokens = min(self._tokens + (now - self._refilled) * rate, rate * 10)
        self._refilled = now
        if self._tokens < 1:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"more than {rate:g} requests a second")
        self._tokens -= min(tokens, rate * 10)

    async def _admitted(self) -> None:
        """A new client waits for its turn, which lasts until it has its first answers: when all come at
        once they are served one after the other, and those already here are not kept waiting."""
        if self._admission is None:
            self._admission = await self._turns.admissions.take()

    async def _decode(self, data: bytes) -> SotwRequest | DeltaRequest:
        read = wire.read_delta if self.session.delta else wire.read_sotw
        if len(data) < BIG_REQUEST:
            return read(data, self._options.max_names)
        async with self._turns.decoding:
            return await asyncio.to_thread(read, data, self._options.max_names)

    def _take(self, request: SotwRequest | DeltaRequest) -> None:
        if self.node is None and request.node is not None:
            self._introduce(request.node)
        type_url = TypeUrl(request.type_url) or self._type_url
        if type_url is None or (self._type_url is not None and type_url != self._type_url):
            raise GRPCError(Status.INVALID_ARGUMENT, f"type {request.type_url!r} is not served here")
        now = self._clock()
        receipt = self.session.receive(type_url, request, now)
        if receipt.verdict is not Verdict.ACKED or not self.session.at_rest:
            self._wake.set()
        self._report(receipt, type_url, now)

    def _introduce(self, node: Node) -> None:
        self._check(node)
        self.node = node
        if node.role:
            self._leave = self._cache.watch(node.role, self._snapshot_changed)
        self._observer.connected(self.id, node.role, node.id)
        if self.problem:
            log.warning("an xDS client is not served: %s", self.problem, extra=self._fields())

    def _check(self, node: Node) -> None:
        reason = self._admit(node, transport.peer_certificate(self._stream))
        if reason is None:
            return
        address = transport.peer_address(self._stream)
        self._turned_away(problem=reason, address=address, node=node.id, role=node.role)
        raise GRPCError(Status.PERMISSION_DENIED, reason)

    def readmit(self) -> None:
        """End the stream if its client may no longer have its role."""
        try:
            if self.node is not None:
                self._check(self.node)
        except GRPCError as error:
            self.close(error)

    def _snapshot_changed(self) -> None:
        """The role's snapshot is another; that most of its clients need not look at it must cost little."""
        snapshot = self._cache.get(self.role)
        if snapshot is not None and self.session.due(snapshot, self._clock):
            self._changes += 1
            if self._changes == 1:
                self._turns.wakes.add(self._wake.set, late=self.session.lags)

    def _report(self, receipt: Receipt, type_url: TypeUrl, now: float) -> None:
        flight = receipt.flight
        if flight is None:
            return
        seconds = now - flight.at
        if receipt.verdict is Verdict.ACKED:
            self._measure("acked", type_url, seconds)
            taken, removed = flight.changed, flight.removed
            self._observer.acked(self.id, self.role, type_url, flight.target, taken, removed)
            return
        message = normalise(receipt.message)
        sources = {source for resource in receipt.guilty for source in resource.sources}
        self._blamed[type_url] = Blame(
            resources=tuple(sorted(resource.name for resource in receipt.guilty)),
            objects=tuple(map(str, sorted(sources))),
        )
        self._measure("refused", type_url, seconds)
        self._observer.nacked(self.id, self.role, type_url, flight.target, receipt.guilty, message)

    # --- showing ------------------------------------------------------------------------------------------

    @property
    def role(self) -> str:
        return self.node.role if self.node else ""

    @property
    def problem(self) -> str:
        """Why the client is sent nothing, in words for its operator; empty when it is served."""
        if self.node is None:
            return "it has not said who it is: the first request carries no node"
        if not self.role:
            return "node.metadata.role is missing: set it to <namespace>~<proxy name> in the bootstrap"
        if self._cache.get(self.role) is None:
            known = sorted(self._cache.roles())
            served = ", ".join(known[:ROLES_NAMED]) + ("…" if len(known) > ROLES_NAMED else "")
            return (
                f"there is no configuration for role {self.role!r}: it names no Proxy"
                f"{f', served are {served}' if known else ', and nothing is served yet'}"
            )
        return ""

    def _fields(self) -> dict[str, str]:
        return {"client": self.id, "role": self.role, "address": transport.peer_address(self._stream)}

    def describe(self) -> dict[str, Any]:
        """The client as ``GET /debug/xds`` shows it."""
        now = self._clock()
        return {
            "client": self.id,
            "node": self.node.id if self.node else "",
            "cluster": self.node.cluster if self.node else "",
            "role": self.role,
            "address": transport.peer_address(self._stream),
            "connectedSince": self._since.isoformat(timespec="milliseconds"),
            "mode": "delta" if self.session.delta else "state-of-the-world",
            "problem": self.problem,
            "types": {
                type_url: self._describe_type(state, now)
                for type_url, state in self.session.subscriptions.items()
            },
        }

    def observe(self) -> csds.ClientState | None:
        """The client as it is now, for whoever asks over CSDS; None before it has said who it is."""
        if self.node is None:
            return None
        snapshot = self._cache.get(self.role) or Snapshot()
        states = self.session.subscriptions.values()
        return csds.ClientState(
            node=self.node,
            clock=time() - self._clock(),
            types=tuple(csds.observe(state, snapshot.of(state.type_url)) for state in states),
        )

    def behind(self, source: Source | None = None) -> dict[TypeUrl, int]:
        """How many resources (of an object, or all) it should take and has not, by type; what it refused is
        left out, and what is only kept for the traffic still on its way."""
        snapshot, found = self._cache.get(self.role) or Snapshot(), {}
        for type_url, state in self.session.subscriptions.items():
            target = snapshot.of(type_url)
            names = missing(state, target, self.session.compare) - refused(state, target)
            if type_url == CLUSTER:
                names -= self.session.retiring.keys()
            if source is not None:
                names = concerned(names, state, target, source)
            if names:
                found[type_url] = len(names)
        if source is not None:
            for type_url in self._unasked(snapshot, source):
                found.setdefault(type_url, 1)
        return found

    def _unasked(self, snapshot: Snapshot, source: Source) -> Iterator[TypeUrl]:
        """Types of which an Envoy will take resources of *source*, and has not asked for them yet.

        It asks for listeners when its clusters are there, and for a listener's routes when it has taken that.
        """
        states = self.session.subscriptions
        listeners = states.get(LISTENER)
        if self._type_url is not None or (listeners is not None and not listeners.wildcard):
            return
        served = snapshot.of(LISTENER)
        out = refused(listeners, served) if listeners is not None else frozenset()
        bodies = [each.body for name, each in served.by_name.items() if name not in out]
        for type_url in (LISTENER, ROUTES):
            state = states.get(type_url)
            if any(
                source in resource.sources
                and (state is None or not state.covers(name))
                and (type_url == LISTENER or any(name.encode() in body for body in bodies))
                for name, resource in snapshot.of(type_url).by_name.items()
            ):
                yield type_url

    def _describe_type(self, state: Subscription, now: float) -> dict[str, Any]:
        nacked, blamed = state.nacked, self._blamed.get(state.type_url, Blame())
        target = (self._cache.get(self.role) or Snapshot()).of(state.type_url)
        return {
            "versionServed": target.version,
            "lag": len(missing(state, target, self.session.compare)),
            "subscribed": (["*"] if state.wildcard else []) + sorted(state.names)[:NAMES_SHOWN],
            "subscribedCount": len(state.names),
            "versionSent": state.sent,
            "versionAcked": state.acked,
            "pending": bool(state.flights) or bool(state.differs),
            "refused": sorted(state.refused)[:NAMES_SHOWN],
            "lastRefusal": None
            if nacked is None
            else {
                "message": normalise(nacked[0]),
                "resources": blamed.resources[:NAMES_SHOWN],
                "objects": blamed.objects[:NAMES_SHOWN],
                "secondsAgo": round(now - nacked[1], 3),
            },
        }
