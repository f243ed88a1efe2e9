"""What we need of grpclib beyond its public face, kept in one place.

Messages are received with a limit and sent as framed bytes that many streams share; connections are
bounded, pinged, and told when we go. (grpclib encodes and frames once a stream, and on closing leaves its
connections open.)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from ssl import SSLContext
from time import thread_time
from typing import Any, cast

from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.encoding.base import CodecBase
from grpclib.encoding.proto import ProtoCodec
from grpclib.exceptions import GRPCError
from grpclib.protocol import EventsProcessor, H2Protocol
from grpclib.server import Handler, Server, Stream
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from services.gloo.xds.door import Door, Failed
from services.gloo.xds.line import Line, Peer
from services.gloo.xds.options import Options

GrpcStream = Stream[bytes, bytes]
WINDOW = 64 * 1024  # bytes a client may send before we have looked at them; HTTP/2's own default
_WINDOWS = Configuration(http2_connection_window_size=WINDOW, http2_stream_window_size=WINDOW)
SPARE_STREAMS = 1_000  # beyond those of discovery: health, reflection, status
WRITE_AT_ONCE = 32 * 1024  # below a socket's own buffer
READ_AT_ONCE = 2 * 1024  # of one connection's bytes; more waits in line
PIECE, LARGEST_PIECE = 512, 16 * 1024  # it is then read in pieces, larger ones while that is quick,
READ_SECONDS = 0.0003  # for so long
WORK_A_READ = 2.0  # times as long as reading takes what comes of it in tasks
UNREAD = 2**20  # bytes of answers to pings and the like; discovery waits when a connection takes nothing


class Bytes(CodecBase):
    """Passes our bytes through; health and reflection bring messages of their own."""

    __content_subtype__ = "proto"

    def __init__(self) -> None:
        self._messages = ProtoCodec()

    def encode(self, message: Any, message_type: Any) -> bytes:
        return message if isinstance(message, bytes) else self._messages.encode(message, message_type)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return data if message_type is bytes else self._messages.decode(data, message_type)


async def receive_size(stream: GrpcStream, limit: int) -> int | None:
    """The size of the next message, which ``receive`` is to take in; None when the client has ended the
    stream."""
    frame = await _receive(stream, 5)
    if not frame:
        return None
    if frame[0]:
        raise GRPCError(Status.UNIMPLEMENTED, "compressed messages are not supported")
    size = int.from_bytes(frame[1:], "big")
    if size > limit:
        raise GRPCError(Status.RESOURCE_EXHAUSTED, f"a message of {size} bytes; {limit} are allowed")
    return size


async def receive(stream: GrpcStream, size: int) -> bytes:
    return await _receive(stream, size)


async def _receive(stream: GrpcStream, size: int) -> bytes:
    try:
        return await stream._stream.buffer.read(size)
    except AssertionError as error:  # grpclib's word for a stream that ends within a message
        raise GRPCError(Status.INVALID_ARGUMENT, "the stream ended within a message") from error


async def send(stream: GrpcStream, framed: bytes, turn: Callable[[], Awaitable[None]] | None = None) -> None:
    """Write *framed* as the client's windows allow; bytes are not copied but for a frame at a time. What is
    more than goes at once waits for a *turn* each time.

    A connection's streams take turns, a frame each: grpclib would let all that wait for a connection write
    at once.
    """
    raw: Any = stream._stream
    connection, sent, waits_at = raw.connection, 0, WRITE_AT_ONCE
    while sent < len(framed):
        if turn is not None and sent >= waits_at:
            waits_at = sent + WRITE_AT_ONCE
            await turn()
        if raw._h2_connection.local_flow_control_window(raw.id) <= 0:
            raw.window_updated.clear()
            await raw.window_updated.wait()
            continue
        async with connection.turn:
            await connection.write_ready.wait()
            sent += _write_frame(raw, framed, sent)


def _write_frame(raw: Any, framed: bytes, at: int) -> int:
    """Write one frame of *framed* from *at*; how many bytes that was."""
    window = raw._h2_connection.local_flow_control_window(raw.id)
    size = min(window, raw._h2_connection.max_outbound_frame_size, len(framed) - at)
    if size <= 0:
        return 0
    raw._h2_connection.send_data(raw.id, framed if size == len(framed) else framed[at : at + size])
    raw.connection.flush()
    return int(size)


def fits(stream: GrpcStream, size: int) -> bool:
    """Whether *size* bytes can be written at once: the client's windows are open and nothing is held up."""
    raw = stream._stream
    if raw.id is None or not raw.connection.write_ready.is_set() or size > WRITE_AT_ONCE:
        return False
    try:
        return size <= raw._h2_connection.local_flow_control_window(raw.id)
    except ProtocolError:
        return False


def write(stream: GrpcStream, framed: bytes) -> None:
    """Write at once what ``fits``."""
    raw: Any = stream._stream
    most = raw._h2_connection.max_outbound_frame_size
    for at in range(0, len(framed), most):
        raw._h2_connection.send_data(raw.id, framed[at : at + most])
    raw.connection.flush()


def forget(stream: GrpcStream) -> None:
    """Let go of what was taken in of a message that never ended; the stream itself may live until garbage is
    collected."""
    buffer = stream._stream.buffer
    buffer._acked.clear()
    buffer._acked_size = 0


def abort(stream: GrpcStream) -> None:
    """Cut the connection off, what is unsent included."""
    stream._stream._transport.abort()


def peer_certificate(stream: GrpcStream) -> Mapping[str, Any] | None:
    return stream.peer.cert()


def peer(stream: GrpcStream) -> Peer:
    """The connection in the line."""
    found: Peer = stream._stream.connection.made_for  # type: ignore[attr-defined]
    return found


def peer_address(stream: GrpcStream) -> str:
    match stream.peer.addr():
        case (str(host), int(port), *_):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case other:
            return str(other or "unknown")


class XdsGrpcServer(Server):
    """grpclib's server, which remembers its connections: to bound them, to see them die and to end them."""

    def __init__(self, handlers: Any, *, options: Options, failed: Failed, line: Line) -> None:
        super().__init__(handlers, codec=Bytes(), config=_WINDOWS)
        self.options = options
        self.connections: dict[_Connection, None] = {}  # the first has been here the longest
        self.empty = asyncio.Event()
        self.streams = 0
        self.line = line
        self.door = Door(self._connection, failed, line)

    def _connection(self, peer: Peer) -> H2Protocol:
        made = self._protocol_factory()
        handler = _Handler(self, peer)
        self._handlers.add(handler)
        self._handlers.discard(made.handler)
        return _Connection(self, handler, made, peer)

    async def serve(self, host: str, port: int, ssl: SSLContext | None) -> None:
        self._server_closed_fut = asyncio.get_running_loop().create_future()
        self._server = cast(asyncio.AbstractServer, self.door)  # all that grpclib asks of it is its end
        await self.door.open(host, port, ssl)

    @property
    def port(self) -> int:
        """The port bound, where it was left to the system."""
        return next((int(each.getsockname()[1]) for each in self.door.sockets), 0)

    def has_room(self) -> bool:
        """Whether one more connection may stay; one on which nothing is asked makes room for it."""
        if self._server_closed_fut is None or self._server_closed_fut.done():
            return False
        if len(self.connections) < self.options.max_streams + SPARE_STREAMS:
            return True
        for connection in self.connections:
            if connection.idle:
                connection.transport.abort()
                del self.connections[connection]
                return True
        return False

    def goodbye(self) -> None:
        """Send every connection a GOAWAY and close it."""
        for protocol in tuple(self.connections):
            connection = getattr(protocol, "connection", None)
            if connection is None or connection.is_closing():
                continue
            with contextlib.suppress(ProtocolError):
                connection._connection.close_connection()
                connection.flush()
            protocol.processor.close("The server is stopping")

    async def wait_closed(self) -> None:
        """Until no handler runs and no connection is open."""
        await super().wait_closed()
        while self.connections:
            self.empty.clear()
            await self.empty.wait()

    def abort(self) -> None:
        """Cut off what is still open, as to a client that does not read."""
        for protocol in tuple(self.connections):
            protocol.transport.abort()


class _Handler(Handler):
    """Accepts streams of any method, up to a number over all connections, and begins one after the other."""

    def __init__(self, server: XdsGrpcServer, peer: Peer) -> None:
        super().__init__(server._mapping, server._codec, server._status_details_codec, server.__dispatch__)
        self._server = server
        self._peer = peer
        self._in_line: dict[Any, tuple[Any, Callable[[], Any]]] = {}  # by stream

    @property
    def idle(self) -> bool:
        return not self._in_line and all(task.done() for task in self._tasks.values())

    def accept(self, stream: Any, headers: Any, release_stream: Callable[[], Any]) -> None:
        if self._server.streams >= self._server.options.max_streams + SPARE_STREAMS:
            stream.reset_nowait(ErrorCodes.REFUSED_STREAM)
            release_stream()
            return
        self._server.streams += 1
        self._in_line[stream] = headers, release_stream
        if len(self._in_line) == 1:
            self._server.line.add(self._peer, self._begin)

    def _begin(self) -> None:
        """Begin the stream that has waited longest."""
        if not self._in_line:
            return
        stream = next(iter(self._in_line))
        super().accept(stream, *self._in_line.pop(stream))
        self._tasks[stream].add_done_callback(self._ended)
        if self._in_line:
            self._server.line.add(self._peer, self._begin)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._server.streams -= 1

    def cancel(self, stream: Any) -> None:
        if waiting := self._in_line.pop(stream, None):
            self._server.streams -= 1
            waiting[1]()
        else:
            super().cancel(stream)

    def close(self) -> None:
        self._server.streams -= len(self._in_line)
        self._in_line.clear()
        super().close()


class _Connection(H2Protocol):
    """One connection: more streams than the hundred h2 allows by default, no more bytes than are allowed,
    and a ping now and then, since a peer may be gone without a word."""

    transport: Any
    _alive = True
    _timer: asyncio.TimerHandle | None = None

    def __init__(self, server: XdsGrpcServer, handler: _Handler, made: H2Protocol, peer: Peer) -> None:
        super().__init__(handler, made.config, made.h2_config)
        self._server = server
        self._peer = peer
        self._unread = bytearray()
        self._in_line = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        super().connection_made(transport)
        if not self._server.has_room():
            transport.abort()
            return
        self._server.connections[self] = None
        options = self._server.options
        self.connection.turn = asyncio.Lock()  # type: ignore[attr-defined]
        self.connection.made_for = self._peer  # type: ignore[attr-defined]
        streams = max(100, options.max_streams_per_connection)
        self.connection._connection.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: streams})
        self.connection.flush()
        self.processor = _Processor(self.processor, options.max_message_bytes + WINDOW)
        self._timer = asyncio.get_running_loop().call_later(options.keepalive, self._ping)

    @property
    def idle(self) -> bool:
        handler: _Handler = self.handler  # type: ignore[assignment]
        return handler.idle

    def data_received(self, data: bytes) -> None:
        self._alive = True
        line = self._server.line
        if not self._unread and len(data) <= READ_AT_ONCE and line.passing(self._peer):
            began = thread_time()
            self._feed(data)
            line.passed(self._peer, (thread_time() - began) * WORK_A_READ)
            return
        self._unread += data
        if not self._in_line:
            self._in_line = True
            self.transport.pause_reading()
            line.add(self._peer, self._read_on)

    def _read_on(self) -> None:
        """Take in part of what has come, since a few bytes may make much work."""
        began, size, spent = thread_time(), PIECE, 0.0
        while self._unread and not self.transport.is_closing() and spent < READ_SECONDS:
            piece = bytes(self._unread[:size])
            del self._unread[:size]
            self._feed(piece)
            spent = thread_time() - began
            if spent < READ_SECONDS / 10:
                size = min(size * 2, LARGEST_PIECE)
        if self.transport.is_closing():
            self._unread.clear()
        elif self._unread:
            self._server.line.add(self._peer, self._read_on)
        else:
            self._in_line = False
            self.transport.resume_reading()

    def _feed(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.get_write_buffer_size() > UNREAD:
            self.transport.abort()

    def connection_lost(self, error: BaseException | None) -> None:
        self._server.connections.pop(self, None)
        if not self._server.connections:
            self._server.empty.set()
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(error)

    def _ping(self) -> None:
        if self.transport.is_closing():
            return
        if not self._alive:
            self.transport.abort()
            return
        self._alive = False
        with contextlib.suppress(ProtocolError):
            self.connection._connection.ping(bytes(8))
            self.connection.flush()
        self._timer = asyncio.get_running_loop().call_later(self._server.options.keepalive, self._ping)


class _Processor(EventsProcessor):
    """Takes HTTP/2's events as grpclib does, but bears more from clients."""

    def __init__(self, made: EventsProcessor, buffered: int) -> None:
        super().__init__(made.handler, made.connection)
        self._buffered = buffered

    def process(self, event: Event) -> None:
        """Frames of unknown types are to be ignored."""
        if event.__class__ in getattr(self, "processors", ()):
            super().process(event)

    def process_data_received(self, event: DataReceived) -> None:
        """Health and reflection would wait for a message of any size; and grpclib takes a frame without
        data for the end of the stream."""
        if not event.flow_controlled_length:
            return
        super().process_data_received(event)
        stream = self.streams.get(event.stream_id)
        if stream is not None and stream.buffer._acked_size > self._buffered:
            self.connection._transport.abort()

    def close(self, reason: str = "Connection closed") -> None:
        super().close(reason)
        self.connection.flush = _nowhere  # type: ignore[method-assign] # handlers may yet read what came


def _nowhere() -> None: ...
