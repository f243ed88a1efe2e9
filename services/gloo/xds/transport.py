"""What we need of grpclib beyond its public face, kept in one place.

Messages are received with a limit and sent as framed bytes that many streams share; connections are told
when we go. (grpclib encodes and frames once a stream, and on closing leaves its connections open.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any
from weakref import WeakSet

from grpclib.const import Status
from grpclib.encoding.base import CodecBase
from grpclib.encoding.proto import ProtoCodec
from grpclib.exceptions import GRPCError
from grpclib.protocol import H2Protocol
from grpclib.server import Server, Stream
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

GrpcStream = Stream[bytes, bytes]
WRITE_AT_ONCE = 32 * 1024  # below a socket's own buffer


class Bytes(CodecBase):
    """Passes our bytes through; health and reflection bring messages of their own."""

    __content_subtype__ = "proto"

    def __init__(self) -> None:
        self._messages = ProtoCodec()

    def encode(self, message: Any, message_type: Any) -> bytes:
        return message if isinstance(message, bytes) else self._messages.encode(message, message_type)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return data if message_type is bytes else self._messages.decode(data, message_type)


async def receive(stream: GrpcStream, limit: int) -> bytes | None:
    """The next message; None when the client has ended the stream."""
    raw = stream._stream
    try:
        frame = await raw.recv_data(5)
        if not frame:
            return None
        if frame[0]:
            raise GRPCError(Status.UNIMPLEMENTED, "compressed messages are not supported")
        size = int.from_bytes(frame[1:], "big")
        if size > limit:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"a message of {size} bytes; {limit} are allowed")
        return await raw.recv_data(size)
    except AssertionError as error:  # grpclib's word for a stream that ends within a message
        raise GRPCError(Status.INVALID_ARGUMENT, "the stream ended within a message") from error


async def send(stream: GrpcStream, framed: bytes) -> None:
    """Write *framed* as the client's windows allow; bytes are not copied but for a frame at a time."""
    await stream._stream.send_data(framed)


def fits(stream: GrpcStream, size: int) -> bool:
    """Whether *size* bytes can be written at once: the client's windows are open and nothing is held up."""
    raw = stream._stream
    if raw.id is None or not raw.connection.write_ready.is_set() or size > WRITE_AT_ONCE:
        return False
    try:
        return size <= raw._h2_connection.local_flow_control_window(raw.id)
    except ProtocolError:
        return False


def abort(stream: GrpcStream) -> None:
    """Cut the connection off, what is unsent included."""
    stream._stream._transport.abort()


def peer_certificate(stream: GrpcStream) -> Mapping[str, Any] | None:
    return stream.peer.cert()


def peer_address(stream: GrpcStream) -> str:
    match stream.peer.addr():
        case (str(host), int(port), *_):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case other:
            return str(other or "unknown")


class XdsGrpcServer(Server):
    """grpclib's server, which remembers its connections so that it can end them."""

    def __init__(self, handlers: Any, *, streams_per_connection: int) -> None:
        super().__init__(handlers, codec=Bytes())
        self._streams_per_connection = streams_per_connection
        self._connections: WeakSet[_Connection] = WeakSet()

    def _protocol_factory(self) -> H2Protocol:
        protocol = _Connection(super()._protocol_factory(), self._streams_per_connection)
        self._connections.add(protocol)
        return protocol

    @property
    def port(self) -> int:
        """The port bound, where it was left to the system."""
        sockets = getattr(self._server, "sockets", None) or ()
        return next((int(sock.getsockname()[1]) for sock in sockets), 0)

    def goodbye(self) -> None:
        """Send every connection a GOAWAY and close it."""
        for protocol in tuple(self._connections):
            connection = getattr(protocol, "connection", None)
            if connection is None or connection.is_closing():
                continue
            with contextlib.suppress(ProtocolError):
                connection._connection.close_connection()
                connection.flush()
            protocol.processor.close("The server is stopping")

    def abort(self) -> None:
        """Cut off what is still open, as to a client that does not read."""
        for protocol in tuple(self._connections):
            if protocol.transport is not None:
                protocol.transport.abort()


class _Connection(H2Protocol):
    """One connection, with more streams than the hundred h2 allows by default."""

    def __init__(self, made: H2Protocol, streams: int) -> None:
        super().__init__(made.handler, made.config, made.h2_config)
        self._streams = streams
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        super().connection_made(transport)
        self.connection._connection.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: self._streams})
        self.connection.flush()
