"""A gRPC service to call in every way: its descriptors, and a server that says what it was asked."""

from __future__ import annotations

import contextlib
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.health.service import Health
from grpclib.server import Server, Stream

from protos.envoy import google_api
from shared.codec.encode import encode, length_delimited
from tests.support.ports import free_port

HTTP = 72295728  # google.api.http
BOOKSTORE = "books.v1.Bookstore"
STRING, INT32, ENUM = (
    FieldDescriptorProto.TYPE_STRING,
    FieldDescriptorProto.TYPE_INT32,
    FieldDescriptorProto.TYPE_ENUM,
)


def annotated(method: Any, rule: google_api.HttpRule) -> None:
    method.options.MergeFromString(length_delimited(HTTP, encode(rule)))


def bookstore() -> bytes:
    """The descriptors: two services, of whose methods some have an annotation."""
    file = FileDescriptorProto(name="books.proto", package="books.v1", syntax="proto3")
    kind = file.enum_type.add(name="Kind")
    kind.value.add(name="PAPER", number=0)
    kind.value.add(name="AUDIO", number=1)
    book = file.message_type.add(name="Book")
    for number, (name, type_) in enumerate((("id", INT32), ("main_title", STRING), ("kind", ENUM)), 1):
        field = book.field.add(
            name=name, number=number, type=type_, label=FieldDescriptorProto.LABEL_OPTIONAL
        )
        if type_ == ENUM:
            field.type_name = ".books.v1.Kind"
    store = file.service.add(name="Bookstore")
    rules = {
        "GetBook": google_api.HttpRule(get="/v1/books/{id}"),
        "AddBook": google_api.HttpRule(post="/v1/books", body="*"),
        "SellBook": None,
    }
    for name, rule in rules.items():
        method = store.method.add(name=name, input_type=".books.v1.Book", output_type=".books.v1.Book")
        if rule is not None:
            annotated(method, rule)
    file.service.add(name="Archive").method.add(
        name="Find", input_type=".books.v1.Book", output_type=".books.v1.Book"
    )
    return FileDescriptorSet(file=[file]).SerializeToString(deterministic=True)


def base64_of(raw: bytes) -> str:
    return b64encode(raw).decode()


def message_class(name: str = "books.v1.Book") -> Any:
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(bookstore()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName(name))


class Bookstore:
    """Answers every method with the book it was asked about, whose title names the method and the server.

    ``metadata`` are the headers of the last call.
    """

    def __init__(self, name: str = "books") -> None:
        self.name = name
        self.book = message_class()
        self.metadata: dict[str, Any] = {}

    def __mapping__(self) -> dict[str, Handler]:
        paths = [f"/{BOOKSTORE}/{name}" for name in ("GetBook", "AddBook", "SellBook")]
        return {path: self._handler(path) for path in (*paths, "/books.v1.Archive/Find")}

    def _handler(self, path: str) -> Handler:
        async def answer(stream: Stream[Any, Any]) -> None:
            asked = await stream.recv_message()
            assert asked is not None
            self.metadata = dict(stream.metadata or {})
            if asked.id == 404:
                raise GRPCError(Status.NOT_FOUND, "no such book")
            told = f"{path.rpartition('/')[2]} of {self.name}: {asked.main_title}"
            await stream.send_message(self.book(id=asked.id, main_title=told, kind=asked.kind))

        return Handler(answer, Cardinality.UNARY_UNARY, self.book, self.book)


@contextlib.asynccontextmanager
async def serving(store: Bookstore, health: Health | None = None) -> AsyncIterator[int]:
    """Serve *store*; the port."""
    server, port = Server([store, health or Health()]), free_port()
    await server.start("127.0.0.1", port)
    try:
        yield port
    finally:
        server.close()
        await server.wait_closed()
