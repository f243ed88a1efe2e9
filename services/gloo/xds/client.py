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
from services.gloo.xds import csds, delta, transport, wire
from services.gloo.xds.audience import Audiences
from services.gloo.xds.cache import Cache
from services.gloo.xds.holdings import Holdings
from services.gloo.xds.line import Line, Peer
from services.gloo.xds.nack import normalise
from services.gloo.xds.options import Options
from services.gloo.xds.progress import Blame, concerned, missing, refused
from services.gloo.xds.sessions import LimitExceeded, Outgoing, Session
from services.gloo.xds.subscription import DeltaRequest, Node, Receipt, SotwRequest, Subscription, Verdict
from services.gloo.xds.turns import Places, Turn, Turns
from shared.incremental.units import Steps, at_once
from shared.ref import Source

log = logging.getLogger(__name__)

BIG_REQUEST = 64 * 1024  # of these few are taken in at a time, since they lie in memory
LONG_REQUEST = 4 * 1024  # these are taken in by and by
SHORT_REQUEST = 512  # such as others send as well, to acknowledge the same
BYTES_A_TOKEN = 16 * 1024  # of a request; it pays for its bytes as others do for their number
NAMES_SHOWN = 100
ROLES_NAMED = 5
PUSH_TURN, ADMISSION_TURN = 0.25, 0.1  # so long may a big push, or a new client, keep others waiting
REQUEST_MOMENT, ANSWER_MOMENT = 1.0, 5.0  # and a big request that does not end, or a status that nobody reads
FEW_STREAMS = 10  # on a connection: they need not make room for another's


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
whatever the type, ``("coalesced", "", snapshots)``, ``("turned away", "", 1)`` and
``("handshake failed", "", 1)``."""

Admit = Callable[[Node, Any], str | None]
"""Why this node, with this TLS certificate (or None), may not have its role; None when it may."""


class Shared:
    """What all clients of a server take turns at, and have part in."""

    def __init__(self, options: Options, cache: Cache) -> None:
        self.line = Line()
        self.audiences = Audiences(cache, self.line)
        self.big_pushes = Turns(options.max_big_pushes, PUSH_TURN)
        self.admissions = Turns(options.max_admissions, ADMISSION_TURN)
        self.big_requests = Places(
            options.max_big_requests, moment=REQUEST_MOMENT, longest=options.send_timeout
        )
        self.answering = Places(2, moment=ANSWER_MOMENT, longest=options.send_timeout)
        self.clients: dict[str, Client] = {}
        self.streams = Holdings(options.max_streams)
        self.names = Holdings(options.max_names_in_all)

    def make_room(self, peer: Peer) -> bool:
        """Whether *peer* may have one more stream; the connection that has most may have to give one up."""
        if self.streams.room(1):
            return True
        most = self.streams.most()
        if most is None or self.streams.of(most) <= max(FEW_STREAMS, self.streams.of(peer) + 1):
            return False
        last = [client for client in self.clients.values() if client.peer is most and client.counted][-1]
        last.turn_away("too many streams are open, and most of them on this connection")
        return True

    def too_many_names(self) -> None:
        most = self.names.most()
        for client in tuple(self.clients.values()):
            if client.peer is most and client.counted:
                client.turn_away("too many names are subscribed to, and most of them on this connection")


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
        self.peer = transport.peer(stream)
        self.counted = True
        self._names = 0
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
        shared.streams.change(self.peer, 1)

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
            transport.forget(self._stream)
            self.session.forget()
            self._leave()
            self._settle_in()
            self._give_back()
            if self.node is not None:
                self._observer.disconnected(self.id)
        if self._failure is not None:
            raise self._failure

    def close(self, failure: GRPCError | None = None) -> None:
        """End the stream as soon as what is being written is written."""
        if failure is not None:  # its traceback would keep all that was read
            failure.__cause__ = failure.__context__ = failure.__traceback__ = None
        self._ended = True
        self._failure = self._failure or failure
        self._wake.set()

    def turn_away(self, problem: str, status: Status = Status.RESOURCE_EXHAUSTED) -> None:
        """End the stream, and have it told to operators why."""
        self._tell(problem)
        self._give_back()
        self.close(GRPCError(status, problem))

    def _tell(self, problem: str) -> None:
        node = self.node or Node(id="", cluster="", role="")
        address = transport.peer_address(self._stream)
        self._turned_away(problem=problem, address=address, node=node.id, role=node.role)

    def _give_back(self) -> None:
        """It counts no more among those who hold streams and names."""
        if self.counted:
            self.counted = False
            self._turns.streams.change(self.peer, -1)
            self._turns.names.change(self.peer, -self._names)

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
                transport.write(self._stream, message.data)
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
                await transport.send(self._stream, data, self._turn if self._late() else None)

    async def _turn(self) -> None:
        await self._turns.line.turn(self.peer)

    def _late(self) -> bool:
        return self.session.lags(self._clock())

    # --- reading ------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        greeting = True  # the first request names the node and all its extensions
        try:
            while (
                size := await transport.receive_size(self._stream, self._options.max_message_bytes)
            ) is not None:
                await self._spend(1 + size / BYTES_A_TOKEN)
                if size < (BIG_REQUEST if greeting else LONG_REQUEST):
                    data = await transport.receive(self._stream, size)
                    await self._admitted()
                    self._take(self._decode(data))
                else:
                    await self._take_long(size)
                greeting = False
        except (wire.TooMany, LimitExceeded) as error:
            self.turn_away(str(error))
        except wire.Malformed as error:
            self.turn_away(f"not a discovery request: {error}", Status.INVALID_ARGUMENT)
        except GRPCError as error:
            self.close(error)
        else:
            self.close()

    async def _take_long(self, size: int) -> None:
        """Take in a long request in turns; of the big ones few at a time."""
        line = self._turns.line
        try:
            async with self._turns.big_requests.take() if size >= BIG_REQUEST else contextlib.nullcontext():
                data = await transport.receive(self._stream, size)
                await self._admitted()
                request = await line.between(self.peer, self._decode_slowly(data))
        except TimeoutError as error:
            raise GRPCError(Status.DEADLINE_EXCEEDED, "the request takes too long to arrive") from error
        for part in delta.parts(request) if isinstance(request, DeltaRequest) else (request,):
            await line.turn(self.peer)
            self._take(part)

    async def _spend(self, tokens: float) -> None:
        """Pay for a request, a big one as for many; the allowance fills up again with time."""
        rate, now = self._options.max_requests_per_second, self._clock()
        self._tokens = min(self._tokens + (now - self._refilled) * rate, rate * 10)
        self._refilled = now
        if self._tokens < 1:
            await asyncio.sleep((1 - self._tokens) / rate)
        self._tokens -= min(tokens, rate * 10)

    async def _admitted(self) -> None:
        """A new client waits for its turn, which lasts until it has its first answers: when all come at
        once they are served one after the other, and those already here are not kept waiting."""
        if self._admission is None:
            self._admission = await self._turns.admissions.take()

    def _decode(self, data: bytes) -> SotwRequest | DeltaRequest:
        if len(data) > SHORT_REQUEST:
            return at_once(self._decode_slowly(data))
        return (wire.read_delta if self.session.delta else wire.read_sotw)(data, self._options.max_names)

    def _decode_slowly(self, data: bytes) -> Steps[SotwRequest | DeltaRequest]:
        return (wire.delta_steps if self.session.delta else wire.sotw_steps)(data, self._options.max_names)

    def _take(self, request: SotwRequest | DeltaRequest) -> None:
        if self.node is None and request.node is not None:
            self._introduce(request.node)
        type_url = TypeUrl(request.type_url) or self._type_url
        if type_url is None or (self._type_url is not None and type_url != self._type_url):
            raise GRPCError(Status.INVALID_ARGUMENT, f"type {request.type_url!r} is not served here")
        now = self._clock()
        receipt = self.session.receive(type_url, request, now)
        self._count_names()
        if receipt.verdict is not Verdict.ACKED or not self.session.at_rest:
            self._wake.set()
        self._report(receipt, type_url, now)

    def _count_names(self) -> None:
        if not self.counted:
            return
        names = self.session.names
        if names == self._names:
            return
        self._turns.names.change(self.peer, names - self._names)
        self._names = names
        if not self._turns.names.room():
            self._turns.too_many_names()

    def _introduce(self, node: Node) -> None:
        self._check(node)
        self.node = node
        if node.role:
            self._leave = self._turns.audiences.join(node.role, self.peer, self)
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

    def look(self, changes: int, *, first: bool) -> bool:
        """The role's snapshot is another; that most of its clients need not look at it must cost little."""
        snapshot = self._cache.get(self.role)
        late = self._late()
        if snapshot is None or not self.session.due(snapshot, self._clock):
            return late
        known, self._changes = self._changes, self._changes + changes
        if known:  # woken, and not there yet
            return late
        if first and not late:
            self._wake.set()
        else:
            self._turns.line.add(self.peer, self._wake.set)
        return late

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
            message=message,
            at=now,
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

    def observe(self, node: Node) -> csds.ClientState:
        """The client as it is now, for whoever asks over CSDS."""
        snapshot = self._cache.get(self.role) or Snapshot()
        states = self.session.subscriptions.values()
        return csds.ClientState(
            node=node,
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
        blamed = self._blamed.get(state.type_url)
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
            if blamed is None
            else {
                "message": blamed.message,
                "resources": blamed.resources[:NAMES_SHOWN],
                "objects": blamed.objects[:NAMES_SHOWN],
                "secondsAgo": round(now - blamed.at, 3),
            },
        }
