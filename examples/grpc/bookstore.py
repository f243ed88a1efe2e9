"""A bookstore that speaks gRPC, and a client to call it with: for the recipe beside this file.

``bookstore.py serve --port 8091 --name red [--ill]`` serves, and says how well it is to gRPC health checks;
``bookstore.py call HOST:PORT SERVICE/METHOD [JSON] [--host NAME]`` calls a method. Both know the services
by their descriptors, ``bookstore.pb``, which protoc has written.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.health.check import ServiceStatus
from grpclib.health.service import OVERALL, Health
from grpclib.server import Server, Stream
from grpclib.utils import graceful_exit

DESCRIPTORS = Path(__file__).with_name("bookstore.pb")
TITLES = {1: "The Trial", 2: "Emma"}


def book_class() -> Any:
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName("bookstore.Book"))


class Bookstore:
    """All methods: books are found and added by number."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.book = book_class()
        self.titles = dict(TITLES)

    def __mapping__(self) -> dict[str, Handler]:
        known = {"Bookstore/GetBook": self.get, "Bookstore/AddBook": self.add, "Archive/Find": self.get}
        return {
            f"/bookstore.{path}": Handler(method, Cardinality.UNARY_UNARY, self.book, self.book)
            for path, method in known.items()
        }

    async def get(self, stream: Stream[Any, Any]) -> None:
        asked = await stream.recv_message()
        title = self.titles.get(asked.id) if asked is not None else None
        if asked is None or title is None:
            raise GRPCError(Status.NOT_FOUND, "no such book")
        await stream.send_message(self.book(id=asked.id, title=title, answered_by=self.name))

    async def add(self, stream: Stream[Any, Any]) -> None:
        asked = await stream.recv_message()
        if asked is None or not asked.title:
            raise GRPCError(Status.INVALID_ARGUMENT, "a book needs a title")
        self.titles[asked.id] = asked.title
        await stream.send_message(self.book(id=asked.id, title=asked.title, answered_by=self.name))


async def serve(options: argparse.Namespace) -> None:
    status = ServiceStatus()
    status.set(not options.ill)
    server = Server([Bookstore(options.name), Health({OVERALL: [status]})])
    with graceful_exit([server]):
        await server.start("127.0.0.1", options.port)
        await server.wait_closed()


async def call(options: argparse.Namespace) -> None:
    book = book_class()
    address, _, port = options.address.rpartition(":")
    channel = Channel(address, int(port))
    if options.host:
        channel._authority = options.host  # there is no other way to say it
    try:
        method = UnaryUnaryMethod(channel, f"/{options.method}", book, book)
        answer = await method(json_format.Parse(options.json, book()), timeout=10)
        print(json_format.MessageToJson(answer, indent=None))
    except GRPCError as error:
        print(f"{error.status.name}: {error.message}")
    finally:
        channel.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(required=True)
    serving = commands.add_parser("serve")
    serving.add_argument("--port", type=int, default=8091)
    serving.add_argument("--name", default="red")
    serving.add_argument("--ill", action="store_true", help="tell health checks so")
    serving.set_defaults(run=serve)
    calling = commands.add_parser("call")
    calling.add_argument("address", metavar="HOST:PORT")
    calling.add_argument("method", metavar="SERVICE/METHOD")
    calling.add_argument("json", nargs="?", default="{}")
    calling.add_argument("--host", default="", help="the host to ask for, in place of the address")
    calling.set_defaults(run=call)
    options = parser.parse_args()
    asyncio.run(options.run(options))


if __name__ == "__main__":
    main()
