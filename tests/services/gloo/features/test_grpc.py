"""gRPC through a real Envoy: routes by service and method, and JSON for clients that do not speak it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from tests.support.bookstore import BOOKSTORE, Bookstore, base64_of, bookstore, serving
from tests.support.envoy import running_envoy
from tests.support.golden import static_resources, translate_world
from tests.support.ports import free_ports

DESCRIPTORS = base64_of(bookstore())
SERVICES = {"protoDescriptorBin": DESCRIPTORS, "services": [BOOKSTORE]}
ARCHIVE = "books.v1.Archive"
STORED = {"protoDescriptorConfigMap": {"configMapRef": {"name": "books", "namespace": "ns"}}}
LISTENERS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "transcoding": {
        **STORED,
        "services": [BOOKSTORE, ARCHIVE],
        "autoMapping": True,
        "ignoredQueryParameters": ["trace"],
        "convertGrpcStatus": True,
        "printOptions": {"preserveProtoFieldNames": True, "alwaysPrintEnumsAsInts": True},
    },
    "lenient": {
        **SERVICES,
        "matchIncomingRequestRoute": True,
        "ignoreUnknownQueryParameters": True,
        "printOptions": {"addWhitespace": True, "alwaysPrintPrimitiveFields": True},
    },
}


def to(upstream: str, **function: Any) -> dict[str, Any]:
    spec = {"destinationSpec": {"grpc": {"package": "books.v1", **function}}} if function else {}
    return {"single": {"upstream": {"name": upstream, "namespace": "ns"}, **spec}}


def route(matcher: Mapping[str, Any], action: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    return {"matchers": [matcher], "routeAction": action, "options": options}


ROUTES = [
    route(
        {"prefix": "/sold"},
        to("transcoded", service="Bookstore", function="SellBook", parameters={"path": "/sold/{id}"}),
    ),
    route({"prefix": "/find"}, to("discovered", service="Archive", function="Find")),
    route(
        {"prefix": "/shared"},
        {
            "multi": {
                "destinations": [
                    {
                        "weight": 1,
                        "destination": to("discovered", service="Archive", function="Find")["single"],
                    }
                ]
            }
        },
    ),
    route({"exact": f"/{BOOKSTORE}/SellBook"}, to("blue")),
    route({"prefix": f"/{ARCHIVE}/", "headers": [{"name": "x-store", "value": "blue"}]}, to("blue")),
    route({"prefix": f"/{BOOKSTORE}/"}, to("red")),
    route({"prefix": f"/{ARCHIVE}/"}, to("red")),
]
JSON_PATHS = {
    "plain": [route({"prefix": "/v1/"}, to("transcoded"))],
    "lenient": [route({"prefix": "/v1/"}, to("red"))],
}


@dataclass(slots=True)
class Gateway:
    """A running Envoy with three listeners before two bookstores."""

    http: aiohttp.ClientSession
    ports: Mapping[str, int]
    stores: Mapping[str, Bookstore]

    async def json(self, listener: str, path: str, method: str = "GET", **sent: Any) -> tuple[int, Any]:
        url = f"http://127.0.0.1:{self.ports[listener]}{path}"
        async with self.http.request(method, url, **sent) as answer:
            text = await answer.text()
            is_json = answer.headers.get("content-type") == "application/json"
            return answer.status, await answer.json() if is_json else text

    async def text(self, listener: str, path: str) -> str:
        async with self.http.get(f"http://127.0.0.1:{self.ports[listener]}{path}") as answer:
            return await answer.text()

    async def call(self, method: str, title: str = "x", **metadata: str) -> str:
        """A call by gRPC; who answered."""
        book = self.stores["red"].book
        channel = Channel("127.0.0.1", self.ports["plain"])
        try:
            named = {name.replace("_", "-"): value for name, value in metadata.items()}
            found = await UnaryUnaryMethod(channel, f"/{method}", book, book)(
                book(main_title=title), metadata=named, timeout=10
            )
            return str(found.main_title)
        finally:
            channel.close()


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with AsyncExitStack() as running:
        stores = {name: Bookstore(name) for name in ("red", "blue")}
        served = {name: await running.enter_async_context(serving(each)) for name, each in stores.items()}
        specs: dict[str, dict[str, Any]] = {
            "red": {},
            "blue": {},
            "transcoded": {
                "serviceSpec": {"grpcJsonTranscoder": {**SERVICES, "matchIncomingRequestRoute": True}}
            },
            "discovered": {"serviceSpec": {"grpc": {"descriptors": base64_of(DESCRIPTORS.encode())}}},
        }
        upstreams = [
            {
                "metadata": {"name": name, "namespace": "ns"},
                "static": {
                    "hosts": [{"addr": "127.0.0.1", "port": served["blue" if name == "blue" else "red"]}],
                    **spec,
                },
                **({} if name == "discovered" else {"useHttp2": True}),
            }
            for name, spec in specs.items()
        ]
        listeners = [
            {
                "name": name,
                "bindAddress": "127.0.0.1",
                "bindPort": i + 1,
                "httpListener": {
                    "virtualHosts": [
                        {"name": "all", "domains": ["*"], "routes": [*ROUTES, *JSON_PATHS.get(name, ())]}
                    ],
                    "options": {"grpcJsonTranscoder": given} if given else {},
                },
            }
            for i, (name, given) in enumerate(LISTENERS.items())
        ]
        artifact = {"metadata": {"name": "books", "namespace": "ns"}, "data": {"books.pb": DESCRIPTORS}}
        case = {"proxy": {"listeners": listeners}, "upstreams": upstreams, "artifacts": [artifact]}
        world, reports = translate_world(case)
        assert all(report.clean for report in reports.values()), reports
        admin, *ports = free_ports(4)
        found = dict(zip(LISTENERS, ports, strict=True))
        resources = static_resources({"": world}, port=1)
        for listener in resources["listeners"]:
            listener["address"]["socketAddress"]["portValue"] = found[listener["name"]]
        bootstrap = {
            "node": {"id": "envoy", "cluster": "gateway"},
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
            "static_resources": resources,
        }
        await running.enter_async_context(running_envoy(tmp_path, bootstrap))
        http = await running.enter_async_context(aiohttp.ClientSession())
        yield Gateway(http, found, stores)


async def test_calls_are_routed_by_service_method_and_metadata(gateway: Gateway) -> None:
    assert await gateway.call(f"{BOOKSTORE}/GetBook") == "GetBook of red: x"
    assert await gateway.call(f"{BOOKSTORE}/SellBook") == "SellBook of blue: x"
    assert await gateway.call(f"{ARCHIVE}/Find") == "Find of red: x"
    assert await gateway.call(f"{ARCHIVE}/Find", x_store="blue") == "Find of blue: x"
    with pytest.raises(GRPCError) as refused:
        await gateway.call("books.v1.Nothing/Find")
    assert refused.value.status is Status.UNIMPLEMENTED


async def test_a_listener_takes_json_for_calls(gateway: Gateway) -> None:
    found = await gateway.json("transcoding", "/v1/books/7?main_title=y&trace=1&kind=AUDIO")
    assert found == (200, {"id": 7, "main_title": "GetBook of red: y", "kind": 1})
    found = await gateway.json("transcoding", "/v1/books", "POST", json={"id": 8, "mainTitle": "z"})
    assert found == (200, {"id": 8, "main_title": "AddBook of red: z"})
    found = await gateway.json("transcoding", f"/{BOOKSTORE}/SellBook", "POST", json={"id": 9})
    assert found == (200, {"id": 9, "main_title": "SellBook of blue: "})
    assert (await gateway.json("transcoding", "/v1/books/7?nothing=1"))[0] == 404  # goes on as it is
    status, problem = await gateway.json("transcoding", "/v1/books/404")
    assert (status, problem["message"]) == (404, "no such book")

    assert await gateway.json("lenient", "/v1/books/404") == (404, "")
    text = await gateway.text("lenient", "/v1/books/7?nothing=1")
    assert '\n "kind": "PAPER"' in text


async def test_an_upstream_says_how_its_service_is_called_with_json(gateway: Gateway) -> None:
    found = await gateway.json("plain", "/v1/books/7?main_title=y", headers={"x-user": "me"})

    assert found == (200, {"id": 7, "mainTitle": "GetBook of red: y"})
    assert gateway.stores["red"].metadata["x-user"] == "me"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_route_calls_one_method_with_what_is_in_path_and_query(gateway: Gateway, method: str) -> None:
    found = await gateway.json("plain", "/sold/7?main_title=y", method)
    assert found == (200, {"id": 7, "mainTitle": "SellBook of red: y"})
    found = await gateway.json("plain", "/find/any/way?id=3", method)
    assert found == (200, {"id": 3, "mainTitle": "Find of red: "})
    assert (await gateway.json("plain", "/sold", method))[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_a_route_calls_one_method_with_what_is_in_the_body(gateway: Gateway, method: str) -> None:
    found = await gateway.json("plain", "/sold/7", method, json={"mainTitle": "y"})
    assert found == (200, {"id": 7, "mainTitle": "SellBook of red: y"})
    found = await gateway.json("plain", "/find?kind=AUDIO", method, json={"mainTitle": "y"})
    assert found == (200, {"mainTitle": "Find of red: y", "kind": "AUDIO"})
    found = await gateway.json("plain", "/shared", method, json={"mainTitle": "y"})
    assert found == (200, {"mainTitle": "Find of red: y"})
    assert (await gateway.json("plain", "/find", method, data=b"{"))[0] == 400
    assert (await gateway.json("plain", "/find", method))[0] == 200
