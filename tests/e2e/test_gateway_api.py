"""The conformance cases of the Gateway API, by their names there, restated with our objects.

Not here, since it cannot be said with our objects: a redirect or a rewrite of one backend among several
(BackendRequestRedirect, BackendURLRewrite), reference grants (any object may refer to any other), and what is
about Kubernetes' own statuses. Paths are matched as Gloo does: a prefix is one of the text, not of its parts,
and the first route that matches is taken, as they were written.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio

from tests.services.gloo.features.test_tcp import greeting, who
from tests.support.backends import Backend, Echo, repeating
from tests.support.certificates import Authority, Certificate, server_context
from tests.support.datagrams import Client, echoing
from tests.support.https import client_context, https_get
from tests.support.ports import free_port, free_ports
from tests.support.stack import GATEWAY, Answer, Stack, direct, virtual_service
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

Document = dict[str, Any]
BACKENDS = ("v1", "v2", "v3")
NOT_HTTP = {name: value for name, value in GATEWAY.items() if name != "httpGateway"}
FIVE_DEVIATIONS = 36
"""How far the count of 200 requests may be from what was to be expected of a share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request, and what is to come of it: a status, the backend that answers, what is in the answer's
    headers, and what the backend saw."""

    path: str = "/"
    host: str = ""
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
    backend: str = ""
    answered: Mapping[str, str | None] = field(default_factory=dict)
    saw: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Routes of a virtual service of the case's own domain, or several by their domains; other objects."""

    asks: Sequence[Ask]
    routes: Sequence[Document] = ()
    services: Mapping[tuple[str, ...], Sequence[Document]] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Document]] = field(default_factory=dict)


def single(upstream: str) -> Document:
    return {"single": {"upstream": {"name": upstream, "namespace": "gloo-system"}}}


def to(upstream: str, *matchers: Document, **options: Any) -> Document:
    """A route to an Upstream; a case without matchers takes everything."""
    found = {"routeAction": single(upstream), "options": options}
    return {**found, "matchers": list(matchers)} if matchers else found


def multi(*shares: tuple[str, int], **options: Mapping[str, Any]) -> Document:
    """A route to several; *options* are of those of the name."""
    destinations = [
        {"destination": single(name)["single"], "weight": weight, "options": options.get(name, {})}
        for name, weight in shares
    ]
    return {"matchers": [{"prefix": "/"}], "routeAction": {"multi": {"destinations": destinations}}}


def redirect(prefix: str, **action: Any) -> Document:
    return {"matchers": [{"prefix": prefix}], "redirectAction": action}


def named(name: str, value: str) -> Document:
    return {"name": name, "value": value}


def header(name: str, value: str, **more: Any) -> Document:
    return {"prefix": "/", "headers": [named(name, value)], **more}


def exact(path: str) -> Document:
    return {"exact": path}


def prefix(path: str, **more: Any) -> Document:
    return {"prefix": path, **more}


def added(key: str, value: str, append: bool = True) -> Document:
    return {"header": {"key": key, "value": value}, "append": append}


def asks(backend: str, *paths: str, **request: Any) -> list[Ask]:
    return [Ask(path=path, backend=backend, **request) for path in paths]


def nobody(*paths: str, **request: Any) -> list[Ask]:
    return [Ask(path=path, status=404, **request) for path in paths]


def version(number: str) -> dict[str, str]:
    return {"version": number}


def query(name: str, value: str) -> Document:
    return {"prefix": "/", "queryParameters": [named(name, value)]}


CASES: dict[str, Case] = {
    # -- matching -------------------------------------------------------------------------------------
    "HTTPRouteExactPathMatching": Case(
        routes=[to("v1", exact("/one")), to("v2", exact("/two"))],
        asks=[*asks("v1", "/one", "/one?q=1"), *asks("v2", "/two"), *nobody("/", "/one/example", "/two/")],
    ),
    "HTTPRoutePathMatchOrder": Case(
        routes=[
            {
                "matchers": [prefix("/match")],
                "delegateAction": {"selector": {"labels": {"case": "path-match-order"}}},
            }
        ],
        tables={
            "path-match-order-a": [to("v2", exact("/match/exact")), to("v1", prefix("/match/prefix/"))],
            "path-match-order-b": [to("v1", exact("/match")), to("v2", prefix("/match/prefix/one"))],
            "path-match-order-c": [to("v3", prefix("/match/prefix")), to("v3", exact("/match/exact/one"))],
        },
        asks=[
            *asks("v3", "/match/exact/one", "/match/prefix"),
            *asks("v2", "/match/exact", "/match/prefix/one/any"),
            *asks("v1", "/match", "/match/prefix/any"),
            *nobody("/match/any"),
        ],
    ),
    "HTTPRouteHeaderMatching": Case(
        routes=[
            to("v1", {"prefix": "/", "headers": [named("version", "two"), named("color", "orange")]}),
            to("v1", header("version", "one")),
            to("v2", header("version", "two")),
            to("v1", header("color", "blue"), header("color", "green")),
            to("v2", header("color", "red"), header("color", "yellow")),
        ],
        asks=[
            *asks("v1", "/", headers=version("one")),
            *asks("v2", "/", headers=version("two")),
            *asks("v1", "/", headers={"Version": "two", "Color": "orange"}),
            *asks("v1", "/", headers={"color": "green"}),
            *asks("v2", "/", headers={"color": "yellow"}),
            *nobody("/"),
            *nobody("/", headers={"color": "orange"}),
            *nobody("/", headers=version("three")),
        ],
    ),
    "HTTPRouteMethodMatching": Case(
        routes=[
            to("v1", prefix("/path1", methods=["PATCH"])),
            to("v3", header("version", "four", methods=["PUT"])),
            to("v1", prefix("/", methods=["POST"])),
            to("v2", prefix("/", methods=["GET"])),
        ],
        asks=[
            *asks("v1", "/", method="POST"),
            *asks("v2", "/"),
            *asks("v1", "/path1", method="PATCH"),
            *asks("v3", "/", method="PUT", headers=version("four")),
            *nobody("/", method="DELETE"),
            *nobody("/", method="PUT"),
        ],
    ),
    "HTTPRouteQueryParamMatching": Case(
        routes=[
            to("v3", {**query("animal", "dolphin"), "headers": [named("version", "one")]}),
            to("v1", query("animal", "whale")),
            to("v2", query("animal", "dolphin")),
        ],
        asks=[
            *asks("v1", "/?animal=whale", "/?animal=whale&otherparam=irrelevant", "/?a=1&animal=whale"),
            *asks("v2", "/?animal=dolphin"),
            *asks("v3", "/?animal=dolphin", headers=version("one")),
            *nobody("/", "/?animal=shark", "/?animal=whales", "/?ANIMAL=whale"),
        ],
    ),
    "HTTPRouteMatching": Case(
        routes=[
            to("v2", exact("/v2"), prefix("/v2/"), header("version", "two")),
            to("v1"),
        ],
        asks=[
            *asks("v1", "/", "/example", "/v2example", "/foo/v2/example"),
            *asks("v2", "/v2", "/v2/", "/v2/example"),
            *asks("v2", "/", headers=version("two")),
            *asks("v1", "/", headers=version("one")),
        ],
    ),
    "HTTPRouteMatchingAcrossRoutes": Case(
        services={
            ("across.example.com", "across.example.net"): [to("v1"), to("v1", header("version", "one"))],
            ("across.example.net", "across.example.com"): [to("v2", prefix("/v2")), to("v2", prefix("/v2/"))],
        },
        asks=[
            *asks("v1", "/", "/example", host="across.example.com"),
            *asks("v1", "/", headers=version("one"), host="across.example.net"),
            *asks("v2", "/v2", "/v2/example", host="across.example.com"),
            *asks("v2", "/v2", host="across.example.net"),
        ],
    ),
    "HTTPRouteHostnameIntersection": Case(
        services={
            ("very.specific.com",): [to("v1", prefix("/s1")), to("v3", prefix("/s3"))],
            ("*.wildcard.io",): [to("v2", prefix("/s2"))],
            ("*.more.wildcard.io",): [to("v1", prefix("/s1"))],
        },
        asks=[
            *asks("v1", "/s1", host="very.specific.com"),
            *asks("v3", "/s3", host="very.specific.com"),
            *asks("v1", "/s1", host="VERY.specific.com"),
            *nobody("/s1", host="non.matching.com"),
            *nobody("/s1", host="specific.com"),
            *asks("v2", "/s2", host="foo.wildcard.io"),
            *asks("v2", "/s2", host="foo.bar.wildcard.io"),
            *nobody("/s2", host="wildcard.io"),
            *asks("v1", "/s1", host="foo.more.wildcard.io"),
            *nobody("/s2", host="foo.more.wildcard.io"),
        ],
    ),
    "HTTPRouteListenerHostnameMatching": Case(
        services={
            ("listener.bar.com",): [to("v1")],
            ("foo.listener.bar.com",): [to("v2")],
            ("*.listener.bar.com", "*.listener.foo.com"): [to("v3")],
        },
        asks=[
            *asks("v1", "/", host="listener.bar.com"),
            *asks("v2", "/", host="foo.listener.bar.com"),
            *asks("v3", "/", host="baz.listener.bar.com"),
            *asks("v3", "/", host="boo.listener.foo.com"),
            *asks("v3", "/", host="multiple.prefixes.listener.foo.com"),
            *nobody("/", host="listener.foo.com"),
            *nobody("/", host="no.matching.host"),
        ],
    ),
    "HTTPRouteNamedRule": Case(
        routes=[{**to("v1", exact("/named")), "name": "named-rule"}, to("v2", exact("/unnamed"))],
        asks=[*asks("v1", "/named"), *asks("v2", "/unnamed")],
    ),
    "HTTPRouteSimpleSameNamespace": Case(
        routes=[{"routeAction": {"single": {"upstream": {"name": "v1"}}}}], asks=asks("v1", "/")
    ),
    # -- headers --------------------------------------------------------------------------------------
    "HTTPRouteRequestHeaderModifier": Case(
        routes=[
            to(
                "v1",
                prefix("/set"),
                headerManipulation={"requestHeadersToAdd": [added("x-header-set", "set", False)]},
            ),
            to(
                "v1",
                prefix("/add"),
                headerManipulation={"requestHeadersToAdd": [added("x-header-add", "add")]},
            ),
            to("v1", prefix("/remove"), headerManipulation={"requestHeadersToRemove": ["x-header-remove"]}),
            to(
                "v1",
                prefix("/multiple"),
                headerManipulation={
                    "requestHeadersToAdd": [added("x-header-set", "set", False), added("x-new", "1")],
                    "requestHeadersToRemove": ["x-header-remove", "x-too"],
                },
            ),
        ],
        asks=[
            Ask(path="/set", headers={"some": "header"}, saw={"x-header-set": "set", "some": "header"}),
            Ask(path="/set", headers={"x-header-set": "other"}, saw={"x-header-set": "set"}),
            Ask(path="/add", saw={"x-header-add": "add"}),
            Ask(path="/add", headers={"x-header-add": "own"}, saw={"x-header-add": "add"}),
            Ask(path="/remove", headers={"x-header-remove": "x"}, saw={"x-header-remove": None}),
            Ask(
                path="/multiple",
                headers={"X-Header-Set": "other", "X-Header-Remove": "x", "X-Too": "x"},
                saw={"x-header-set": "set", "x-new": "1", "x-header-remove": None, "x-too": None},
            ),
        ],
    ),
    "HTTPRouteResponseHeaderModifier": Case(
        routes=[
            to(
                "v1",
                prefix("/set"),
                headerManipulation={"responseHeadersToAdd": [added("x-backend", "hidden", False)]},
            ),
            to("v1", prefix("/add"), headerManipulation={"responseHeadersToAdd": [added("x-new", "1")]}),
            to("v1", prefix("/remove"), headerManipulation={"responseHeadersToRemove": ["x-backend"]}),
        ],
        asks=[
            Ask(path="/set", answered={"x-backend": "hidden"}),
            Ask(path="/add", answered={"x-new": "1", "x-backend": "v1"}),
            Ask(path="/remove", answered={"x-backend": None}),
        ],
    ),
    # -- redirects ------------------------------------------------------------------------------------
    "HTTPRouteRedirectHostAndStatus": Case(
        routes=[
            redirect("/hostname-redirect", hostRedirect="example.org", responseCode="FOUND"),
            redirect("/status-code-301", responseCode="MOVED_PERMANENTLY", hostRedirect="example.org"),
        ],
        asks=[
            Ask(
                path="/hostname-redirect",
                status=302,
                answered={"location": "http://example.org/hostname-redirect"},
            ),
            Ask(
                path="/status-code-301?q=1",
                status=301,
                answered={"location": "http://example.org/status-code-301?q=1"},
            ),
        ],
    ),
    "HTTPRouteRedirectScheme": Case(
        routes=[redirect("/", httpsRedirect=True, responseCode="FOUND")],
        asks=[Ask(path="/scheme", status=302, answered={"location": "https://{host}/scheme"})],
    ),
    "HTTPRouteRedirectPort": Case(
        routes=[redirect("/", portRedirect=8083, hostRedirect="example.org", responseCode="FOUND")],
        asks=[Ask(path="/port", status=302, answered={"location": "http://example.org:8083/port"})],
    ),
    "HTTPRouteRedirectPortAndScheme": Case(
        routes=[
            redirect("/a", portRedirect=8443, httpsRedirect=True, responseCode="FOUND"),
            redirect("/b", portRedirect=443, httpsRedirect=True, responseCode="FOUND"),
        ],
        asks=[
            Ask(path="/a", status=302, answered={"location": "https://{host}:8443/a"}),
            Ask(path="/b", status=302, answered={"location": "https://{host}:443/b"}),
        ],
    ),
    "HTTPRouteRedirectPath": Case(
        routes=[
            redirect("/original-prefix", prefixRewrite="/replacement-prefix", responseCode="FOUND"),
            redirect("/full", pathRedirect="/full-path-replacement", responseCode="FOUND"),
            redirect(
                "/path-and-host",
                prefixRewrite="/replacement",
                hostRedirect="example.org",
                responseCode="FOUND",
            ),
            redirect("/query", pathRedirect="/without", stripQuery=True, responseCode="MOVED_PERMANENTLY"),
        ],
        asks=[
            Ask(
                path="/original-prefix/lemon",
                status=302,
                answered={"location": "http://{host}/replacement-prefix/lemon"},
            ),
            Ask(
                path="/full/path/original",
                status=302,
                answered={"location": "http://{host}/full-path-replacement"},
            ),
            Ask(
                path="/path-and-host/x",
                status=302,
                answered={"location": "http://example.org/replacement/x"},
            ),
            Ask(path="/query?q=1", status=301, answered={"location": "http://{host}/without"}),
        ],
    ),
    **{
        f"HTTPRoute{code}Redirect": Case(
            routes=[redirect("/", hostRedirect="example.org", responseCode=name)],
            asks=[Ask(path="/x", status=code, answered={"location": "http://example.org/x"})],
        )
        for code, name in ((303, "SEE_OTHER"), (307, "TEMPORARY_REDIRECT"), (308, "PERMANENT_REDIRECT"))
    },
    # -- rewrites and what else a filter does ---------------------------------------------------------
    "HTTPRouteRewriteHost": Case(
        routes=[
            to("v1", prefix("/one"), hostRewrite="one.example.org"),
            to("v2", prefix("/two"), hostRewrite="example.org", prefixRewrite="/prefix"),
            to("v3"),
        ],
        asks=[
            Ask(path="/one", backend="v1", saw={"host": "one.example.org"}),
            Ask(path="/two/x", backend="v2", saw={"host": "example.org", "path": "/prefix/x"}),
            Ask(path="/", backend="v3", saw={"host": "{host}"}),
        ],
    ),
    "HTTPRouteRewritePath": Case(
        routes=[
            to("v1", prefix("/prefix/one"), prefixRewrite="/one"),
            to("v1", prefix("/strip-prefix/"), prefixRewrite="/"),
            to(
                "v1",
                prefix("/full/one"),
                regexRewrite={"pattern": {"regex": "^/full/one.*$"}, "substitution": "/one"},
            ),
            to(
                "v1",
                prefix("/full/rewrite-path-and-modify-headers"),
                regexRewrite={"pattern": {"regex": "^.*$"}, "substitution": "/test"},
                headerManipulation={
                    "requestHeadersToAdd": [added("x-add", "a"), added("x-set", "s", False)],
                    "requestHeadersToRemove": ["x-remove"],
                },
            ),
        ],
        asks=[
            Ask(path="/prefix/one/two", saw={"path": "/one/two"}),
            Ask(path="/prefix/one/two?q=1", saw={"path": "/one/two?q=1"}),
            Ask(path="/strip-prefix/three", saw={"path": "/three"}),
            Ask(path="/full/one/two", saw={"path": "/one"}),
            Ask(path="/full/one/two?q=1", saw={"path": "/one?q=1"}),
            Ask(
                path="/full/rewrite-path-and-modify-headers/test",
                headers={"x-remove": "r", "x-set": "other"},
                saw={"path": "/test", "x-add": "a", "x-set": "s", "x-remove": None},
            ),
        ],
    ),
    "HTTPRouteCORS": Case(
        routes=[
            to(
                "v1",
                cors={
                    "allowOrigin": ["https://www.foo.com", "https://www.bar.com"],
                    "allowOriginRegex": ["https://[a-z]+\\.baz\\.com"],
                    "allowMethods": ["GET", "OPTIONS"],
                    "allowHeaders": ["x-header-1", "x-header-2"],
                    "exposeHeaders": ["x-header-3"],
                    "maxAge": "3600",
                    "allowCredentials": True,
                },
            )
        ],
        asks=[
            Ask(
                method="OPTIONS",
                headers={"origin": origin, "access-control-request-method": "GET"},
                answered={
                    "access-control-allow-origin": origin,
                    "access-control-allow-methods": "GET,OPTIONS",
                    "access-control-allow-headers": "x-header-1,x-header-2",
                    "access-control-max-age": "3600",
                    "access-control-allow-credentials": "true",
                    "x-backend": None,
                },
            )
            for origin in ("https://www.foo.com", "https://www.bar.com", "https://any.baz.com")
        ]
        + [
            Ask(
                headers={"origin": "https://www.foo.com"},
                backend="v1",
                answered={
                    "access-control-allow-origin": "https://www.foo.com",
                    "access-control-expose-headers": "x-header-3",
                },
            ),
            Ask(
                headers={"origin": "https://evil.com"},
                backend="v1",
                answered={"access-control-allow-origin": None},
            ),
        ],
    ),
}


class Api:
    """A stack in which all cases are served, each on a domain of its own, and two more Gateways."""

    def __init__(self, stack: Stack, backends: Mapping[str, Backend], ca: Path) -> None:
        self.stack = stack
        self.backends = backends
        self.authority = Authority(ca)
        self.other_port, self.tls_port = free_ports(2)

    def domain(self, name: str) -> str:
        return f"{name.lower()}.example"

    async def begin(self) -> None:
        await self.upstreams(**{name: each.port for name, each in self.backends.items()})
        await self.gateway("tls", self.tls_port, ssl=True)
        for name, case in CASES.items():
            for table, routes in case.tables.items():
                labels = {
                    "metadata": {"name": table, "namespace": "gloo-system", "labels": {"case": table[:-2]}}
                }
                await self.stack.put("RouteTable", table, {**labels, "routes": list(routes)})
            services = case.services or {(self.domain(name),): case.routes}
            for i, (domains, served) in enumerate(services.items()):
                await self.stack.put(
                    "VirtualService", f"{name.lower()}-{i}", virtual_service(*served, domains=domains)
                )
        await self.serve("last", direct("/", "served"))
        await self.stack.answers("/", host=self.domain("last"), within=20)
        for name, case in CASES.items():
            for i in range(len(case.services) or 1):
                await self.stack.status_is("Accepted", "VirtualService", f"{name.lower()}-{i}")

    async def upstreams(self, **ports: int) -> None:
        for name, port in ports.items():
            await self.stack.put(
                "Upstream", name, {"static": {"hosts": [{"addr": "127.0.0.1", "port": port}]}}
            )

    async def gateway(self, name: str, port: int, **fields: Any) -> None:
        await self.stack.put("Gateway", name, GATEWAY | {"bindPort": port} | fields)

    async def serve(self, name: str, *routes: Document, **fields: Any) -> str:
        """Have *routes* served on a domain of the name, and give the domain."""
        service = virtual_service(*routes, domains=[self.domain(name)])
        await self.stack.put("VirtualService", name.lower(), service | fields)
        return self.domain(name)

    async def get(self, host: str, path: str = "/", **how: Any) -> Answer:
        return await self.stack.get(path, host=host, **how)

    async def reaches(self, host: str, backend: str, path: str = "/") -> None:
        await eventually(
            lambda: self.get(host, path), until=lambda answer: answer.headers.get("x-backend") == backend
        )

    async def shares(self, host: str, requests: int = 200) -> Counter[str]:
        answers = [await self.get(host) for _ in range(requests)]
        assert {answer.status for answer in answers} == {200}
        return Counter(answer.headers["x-backend"] for answer in answers)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    folder = tmp_path_factory.mktemp("gateway-api")
    async with AsyncExitStack() as running:
        backends = {name: await running.enter_async_context(Backend(name)) for name in BACKENDS}
        gateway = {"disableAutoGenGateways": True, "isolateVirtualHostsBySslConfig": True}
        stack = await running.enter_async_context(Stack(folder, settings={"gateway": gateway}))
        found = Api(stack, backends, folder / "ca")
        await found.begin()
        yield found


@pytest.mark.parametrize("name", CASES)
async def test_requests_go_where(api: Api, name: str) -> None:
    for ask in CASES[name].asks:
        host = ask.host or api.domain(name)
        answer = await api.get(host, ask.path, method=ask.method, **ask.headers)

        assert answer.status == ask.status, (ask, answer)
        if ask.backend:
            assert answer.headers["x-backend"] == ask.backend, (ask, answer)
        for key, value in ask.answered.items():
            assert answer.headers.get(key) == (value and value.format(host=host)), (ask, answer)
        if ask.saw:
            echo = Echo.of(answer)
            seen = {**echo.headers, "path": echo.path, "host": echo.host}
            for key, value in ask.saw.items():
                assert seen.get(key) == (value and value.format(host=host)), (ask, answer)


# -- weights, mirrors, times ------------------------------------------------------------------------------


async def test_HTTPRouteWeight(api: Api) -> None:
    host = await api.serve("HTTPRouteWeight", multi(("v1", 70), ("v2", 30), ("v3", 0)))
    await eventually(lambda: api.get(host), until=lambda answer: answer.status == 200)

    found = await api.shares(host)

    assert set(found) == {"v1", "v2"}
    assert abs(found["v1"] - 140) < FIVE_DEVIATIONS


async def test_HTTPRouteRequestHeaderModifierBackendWeights(api: Api) -> None:
    def marked(value: str) -> Document:
        return {"headerManipulation": {"requestHeadersToAdd": [added("x-from", value, False)]}}

    host = await api.serve(
        "HTTPRouteRequestHeaderModifierBackendWeights",
        multi(("v1", 1), ("v2", 1), v1=marked("first"), v2=marked("second")),
    )
    await eventually(lambda: api.get(host), until=lambda answer: answer.status == 200)

    echoes = [Echo.of(await api.get(host)) for _ in range(40)]

    assert {(echo.backend, echo.headers["x-from"]) for echo in echoes} == {("v1", "first"), ("v2", "second")}


async def test_HTTPRouteRequestMirror(api: Api) -> None:
    async with Backend("copy") as copy:
        await api.upstreams(copy=copy.port)
        shadowing = {"upstream": {"name": "copy", "namespace": "gloo-system"}, "percentage": 100}
        host = await api.serve("HTTPRouteRequestMirror", to("v1", shadowing=shadowing))
        await api.reaches(host, "v1")

        await eventually(lambda: copy.asked)
        assert (await api.get(host, "/mirrored")).headers["x-backend"] == "v1"
        await eventually(lambda: copy.last["path"] == "/mirrored")


async def test_HTTPRouteRequestPercentageMirror(api: Api) -> None:
    async with Backend("fifth") as copy:
        await api.upstreams(fifth=copy.port)
        shadowing = {"upstream": {"name": "fifth", "namespace": "gloo-system"}, "percentage": 20}
        host = await api.serve("HTTPRouteRequestPercentageMirror", to("v1", shadowing=shadowing))
        await api.reaches(host, "v1")

        assert await api.shares(host) == {"v1": 200}
        assert await eventually(lambda: abs(copy.asked - 40) < FIVE_DEVIATIONS)


async def test_HTTPRouteRequestMultipleMirrors(api: Api) -> None:
    async with Backend("copy-1") as one, Backend("copy-2") as two:
        await api.upstreams(**{"copy-1": one.port, "copy-2": two.port})
        mirrors = [
            {"upstream": {"name": name, "namespace": "gloo-system"}, "percentage": 100}
            for name in ("copy-1", "copy-2")
        ]
        host = await api.serve("HTTPRouteRequestMultipleMirrors", to("v1", mirrors=mirrors))
        await api.reaches(host, "v1")

        assert (await api.get(host, "/mirrored")).headers["x-backend"] == "v1"
        for copy in (one, two):
            await eventually(lambda copy=copy: copy.last["path"] == "/mirrored")


async def test_HTTPRouteTimeoutRequest(api: Api) -> None:
    async with Backend("slow") as slow:
        slow.delay = 0.5
        await api.upstreams(slow=slow.port)
        host = await api.serve(
            "HTTPRouteTimeoutRequest",
            to("slow", prefix("/short"), timeout="0.1s"),
            to("slow", prefix("/long"), timeout="5s"),
            to("slow", prefix("/none"), timeout="0s"),
        )
        await eventually(lambda: api.get(host, "/long"), until=lambda answer: answer.status == 200)

        assert (await api.get(host, "/short")).status == 504
        assert (await api.get(host, "/none")).status == 200


async def test_HTTPRouteTimeoutBackendRequest(api: Api) -> None:
    async with Backend("slower") as slow:
        slow.delay = 0.5
        await api.upstreams(slower=slow.port)
        tries = {"retryOn": "5xx", "numRetries": 1, "perTryTimeout": "0.1s"}
        host = await api.serve(
            "HTTPRouteTimeoutBackendRequest",
            to("slower", prefix("/once"), retries=tries),
            to("slower", prefix("/long")),
        )
        await eventually(lambda: api.get(host, "/long"), until=lambda answer: answer.status == 200)
        before = slow.asked

        assert (await api.get(host, "/once")).status == 504
        assert slow.asked == before + 2


async def test_HTTPRouteRetry(api: Api) -> None:
    async with Backend("failing") as failing:
        await api.upstreams(failing=failing.port)
        host = await api.serve(
            "HTTPRouteRetry",
            to("failing", prefix("/twice"), retries={"retryOn": "5xx", "numRetries": 2}),
            to("failing", prefix("/other"), retries={"retryOn": "gateway-error", "numRetries": 1}),
            to("failing"),
        )
        await api.reaches(host, "failing")

        for path, failures, status, asked in (
            ("/twice", 2, 200, 3),
            ("/twice", 3, 503, 3),
            ("/other", 1, 200, 2),
            ("/never", 1, 503, 1),
        ):
            before, failing.failures = failing.asked, failures
            assert (await api.get(host, path)).status == status, (path, failures)
            assert failing.asked == before + asked
            failing.failures = 0


async def test_HTTPRouteRetryConnectionError(api: Api) -> None:
    hosts = [{"addr": "127.0.0.1", "port": port} for port in (free_port(), api.backends["v1"].port)]
    await api.stack.put("Upstream", "half", {"static": {"hosts": hosts}})
    retries = {"retryOn": "connect-failure", "numRetries": 3}
    host = await api.serve(
        "HTTPRouteRetryConnectionError",
        to("half", prefix("/retried"), retries=retries),
        to("half", prefix("/")),
    )
    await api.reaches(host, "v1", "/retried")

    assert {(await api.get(host)).status for _ in range(20)} == {200, 503}
    assert {(await api.get(host, "/retried")).status for _ in range(20)} == {200}


async def test_HTTPRouteRetryWithTimeouts(api: Api) -> None:
    async with Backend("stuck") as stuck:
        await api.upstreams(stuck=stuck.port)
        tries = {"retryOn": "5xx", "numRetries": 5, "perTryTimeout": "0.4s"}
        host = await api.serve("HTTPRouteRetryWithTimeouts", to("stuck", retries=tries, timeout="0.7s"))
        await api.reaches(host, "stuck")
        before, stuck.delay = stuck.asked, 5.0

        assert (await api.get(host)).status == 504
        assert stuck.asked == before + 2  # the time for all is over in the second


# -- where services come from, and how they speak ---------------------------------------------------------


async def test_HTTPRouteServiceTypes(api: Api) -> None:
    port = api.backends["v2"].port
    await api.stack.register("registered", port)
    await api.stack.put("Upstream", "by-name", {"static": {"hosts": [{"addr": "localhost", "port": port}]}})
    consul = {"single": {"consul": {"serviceName": "registered"}}}
    host = await api.serve(
        "HTTPRouteServiceTypes",
        to("v2", prefix("/address")),
        to("by-name", prefix("/name")),
        to("registered", prefix("/discovered")),
        {"matchers": [prefix("/consul")], "routeAction": consul},
    )

    for path in ("/address", "/name", "/discovered", "/consul"):
        await api.reaches(host, "v2", path)


async def test_HTTPRouteCrossNamespace(api: Api) -> None:
    domain = api.domain("cross-namespace")
    service = virtual_service(to("v1", prefix("/there")), to("v1"), domains=[domain])
    service["virtualHost"]["routes"][1]["routeAction"]["single"]["upstream"] = {"name": "own"}
    await api.stack.put("VirtualService", "web", service, "team")
    await api.stack.put(
        "Upstream",
        "own",
        {"static": {"hosts": [{"addr": "127.0.0.1", "port": api.backends["v3"].port}]}},
        "team",
    )

    await api.reaches(domain, "v3")
    await api.reaches(domain, "v1", "/there")


async def test_HTTPRouteBackendProtocolWebSocket(api: Api) -> None:
    async with repeating() as port:
        await api.upstreams(repeating=port)
        host = await api.serve(
            "HTTPRouteBackendProtocolWebSocket", to("repeating", upgrades=[{"websocket": {}}])
        )

        async def upgraded() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", api.stack.http_port)
            try:
                asked = "connection: upgrade\r\nupgrade: websocket"
                writer.write(f"GET / HTTP/1.1\r\nhost: {host}\r\n{asked}\r\n\r\n".encode())
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
                assert head.startswith(b"HTTP/1.1 101")
                writer.write(b"hello")
                return await asyncio.wait_for(reader.readexactly(5), 5)
            finally:
                writer.close()

        assert await eventually(upgraded) == b"hello"


# -- gateways ---------------------------------------------------------------------------------------------


async def test_HTTPRouteListenerPortMatching(api: Api) -> None:
    """HTTPRouteMultipleGateways, GatewayHTTPListenerIsolation and GatewayModifyListeners, too."""
    stack, port = api.stack, api.other_port
    for name, labels in (("port-one", {"on": "other"}), ("port-both", {"on": "other"})):
        domain = {"virtualHost": {"domains": [api.domain(name)], "routes": [to("v1")]}}
        metadata = {"metadata": {"name": name, "namespace": "gloo-system", "labels": labels}}
        await stack.put("VirtualService", name, {**domain, **metadata})
    only = {"virtualServiceSelector": {"on": "other"}}
    await api.gateway("other", port, httpGateway=only)
    host = api.domain("port-both")

    await eventually(lambda: api.get(host, port=port), until=lambda answer: answer.status == 200)
    await api.reaches(host, "v1")
    assert (await api.get(api.domain("last"), port=port)).status == 404
    assert (await api.get(api.domain("last"))).status == 200

    moved = free_port()
    await api.gateway("other", moved, httpGateway=only)
    await eventually(lambda: api.get(host, port=moved), until=lambda answer: answer.status == 200)
    await eventually(lambda: api.get(host, port=port), until=lambda answer: answer.status == 0)
    await stack.delete("Gateway", "other")
    await eventually(lambda: api.get(host, port=moved), until=lambda answer: answer.status == 0)


async def test_GatewayWithAttachedRoutes(api: Api) -> None:
    proxy = {"proxyNames": ["lonely"], "httpGateway": {"virtualServiceSelector": {"on": "lonely"}}}
    await api.gateway("lonely", free_port(), **proxy)
    await api.stack.status_is("Accepted", "Gateway", "lonely")
    state = await api.stack.debug("gateway", "gateway")
    (listener,) = state["proxies"]["lonely"].values()
    assert listener["virtualHosts"] == {}

    metadata = {"metadata": {"name": "joining", "namespace": "gloo-system", "labels": {"on": "lonely"}}}
    await api.stack.put(
        "VirtualService", "joining", {**virtual_service(to("v1"), domains=["joining"]), **metadata}
    )
    status = await eventually(
        lambda: api.stack.status("VirtualService", "joining"),
        until=lambda found: len(found.get("subresourceStatuses", {})) == 2,
    )
    assert any("lonely" in name for name in status["subresourceStatuses"])
    await api.stack.delete("Gateway", "lonely")


async def test_GatewayInvalidRouteKind(api: Api) -> None:
    await api.stack.put("Gateway", "untyped", NOT_HTTP | {"bindPort": free_port(), "ftpGateway": {}})

    await api.stack.status_is("Rejected", "Gateway", "untyped", saying="ftpGateway: unknown field")
    await api.stack.delete("Gateway", "untyped")


async def test_GatewayInvalidParametersRef(api: Api) -> None:
    await api.gateway("nonsense", 70_000)

    await api.stack.status_is("Rejected", "Gateway", "nonsense", saying="bindPort: must be from 1 to 65535")
    await api.stack.delete("Gateway", "nonsense")


async def test_HTTPRouteInvalidParentRefNotMatchingSectionName(api: Api) -> None:
    refs = {"virtualServices": [{"name": "nowhere", "namespace": "gloo-system"}]}
    await api.gateway("misses", free_port(), httpGateway=refs)

    missing = "httpGateway.virtualServices[0]: virtual service gloo-system.nowhere not found"
    await api.stack.status_is("Rejected", "Gateway", "misses", saying=missing)
    await api.stack.delete("Gateway", "misses")


# -- mistakes ---------------------------------------------------------------------------------------------


async def test_HTTPRouteInvalidNonExistentBackendRef(api: Api) -> None:
    """HTTPRoutePartiallyInvalidViaInvalidReferenceGrant, too: what is right is served."""
    host = await api.serve("invalid-backend", to("nonexistent", prefix("/missing")), to("v1"))

    missing = "*v1.Upstream { gloo-system.nonexistent } not found"
    await api.stack.status_is("Warning", "VirtualService", "invalid-backend", saying=missing)
    assert (await api.get(host, "/missing")).status == 503
    await api.reaches(host, "v1")


async def test_HTTPRouteInvalidBackendRefUnknownKind(api: Api) -> None:
    """HTTPRouteOmittedBackendRefs and HTTPRouteDisallowedKind, too."""
    host = await api.serve("invalid-kind", to("v1"))
    await api.reaches(host, "v1")
    mistakes = {
        "routeAction.single.service: unknown field": {"routeAction": {"single": {"service": {"name": "v1"}}}},
        "routeAction": {"routeAction": {}},
        "has no action": {"matchers": [prefix("/")]},
        "tcpAction: unknown field": {"tcpAction": {"single": "v1"}},
    }
    for saying, route in mistakes.items():
        await api.serve("invalid-kind", route)
        status = await api.stack.status_is("Rejected", "VirtualService", "invalid-kind", saying=saying)
        assert "virtualHost.routes[0]" in status["reason"]
        assert (await api.get(host)).headers["x-backend"] == "v1"


async def test_HTTPRouteObservedGenerationBump(api: Api) -> None:
    """The version that a status is about stands in it once gloo has judged that version."""

    async def observed(before: str = "") -> str:
        status = await eventually(
            lambda: api.stack.status("VirtualService", "observed"),
            until=lambda found: found.get("details", {}).get("observed", before) != before,
        )
        assert status["state"] == "Accepted"
        return str(status["details"]["observed"])

    await api.serve("observed", to("v1"))
    first = await observed()
    await api.serve("observed", to("v2"))
    await observed(first)


# -- TLS --------------------------------------------------------------------------------------------------


def files(certificate: Certificate, *domains: str, **ssl: Any) -> Document:
    made = {"tlsCert": str(certificate.cert), "tlsKey": str(certificate.key), **ssl.pop("files", {})}
    return {"sslConfig": {"sslFiles": made, "sniDomains": list(domains), **ssl}}


async def test_HTTPRouteHTTPSListener(api: Api) -> None:
    """GatewayInvalidTLSConfiguration, too: a certificate that is not there costs only who names it."""
    certificate = api.authority.issue("secure", f"DNS:{api.domain('secure')}")
    host = await api.serve("secure", to("v1"), **files(certificate, api.domain("secure")))
    trusting = client_context(api.authority)
    met = await eventually(
        lambda: https_get(api.tls_port, host, context=trusting), until=lambda met: met.status == 200
    )
    assert met.shows(certificate)
    assert (await api.get(host)).status == 404  # it is not on the other port

    missing = {"sslConfig": {"secretRef": {"name": "nowhere", "namespace": "gloo-system"}}}
    missing["sslConfig"] |= {"sniDomains": [api.domain("no-secret")]}
    await api.serve("no-secret", to("v1"), **missing)
    await api.stack.status_is("Rejected", "VirtualService", "no-secret", saying="sslConfig.secretRef")
    assert (await https_get(api.tls_port, host, context=trusting)).status == 200
    assert (await https_get(api.tls_port, api.domain("no-secret"))).status == 0


async def test_HTTPRouteHTTPSListenerDetectMisdirectedRequests(api: Api) -> None:
    """By ``isolateVirtualHostsBySslConfig``: 404 where the Gateway API has 421."""
    hosts = []
    for name in ("one-name", "other-name"):
        certificate = api.authority.issue(name, f"DNS:{api.domain(name)}")
        hosts.append(await api.serve(name, to("v1"), **files(certificate, api.domain(name))))
    for host in hosts:
        await eventually(lambda host=host: https_get(api.tls_port, host), until=lambda met: met.status == 200)

    assert (await https_get(api.tls_port, hosts[0], sni=hosts[1])).status == 404


async def test_GatewayFrontendClientCertificateValidation(api: Api) -> None:
    """GatewayFrontendClientCertificateValidationInsecureFallback, too, which is ``oneWayTls``."""
    trusting = {"files": {"rootCa": str(api.authority.cert)}}
    ours = client_context(api.authority, api.authority.issue("client", "DNS:client"))
    nobody = client_context(api.authority)
    hosts = {}
    for name, more in (("mutual", {}), ("one-way", {"oneWayTls": True})):
        certificate = api.authority.issue(name, f"DNS:{api.domain(name)}")
        config = files(certificate, api.domain(name), **more, **trusting)
        hosts[name] = await api.serve(name, to("v1"), **config)

    for name, context, status in (
        ("mutual", ours, 200),
        ("mutual", nobody, 0),
        ("one-way", nobody, 200),
        ("one-way", ours, 200),
    ):
        await eventually(
            lambda name=name, context=context: https_get(api.tls_port, hosts[name], context=context),
            until=lambda met, status=status: met.status == status,
        )


# -- gRPC -------------------------------------------------------------------------------------------------


class Calls(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers every call with the name of the server, the method and one of its headers."""

    def __init__(self, name: str) -> None:
        self.name = name

    def service(self, details: Any) -> Any:
        async def answer(request: bytes, context: Any) -> bytes:
            sent = dict(context.invocation_metadata())
            return f"{self.name} {details.method} {sent.get('x-set', '')}".encode()

        return grpc.unary_unary_rpc_method_handler(answer)


@contextlib.asynccontextmanager
async def calls(name: str) -> AsyncIterator[int]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([Calls(name)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


async def call(api: Api, host: str, method: str, **headers: str) -> str:
    """Who answers a call; the status when it is no success."""
    options = [("grpc.default_authority", host), ("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{api.stack.http_port}", options) as channel:
        try:
            answer: bytes = await channel.unary_unary(method)(b"", metadata=list(headers.items()), timeout=5)
            return answer.decode()
        except grpc.aio.AioRpcError as error:
            return error.code().name


async def test_GRPCRoute(api: Api) -> None:
    """GRPCExactMethodMatching, -HeaderMatching, -ListenerHostnameMatching, -NamedRule,
    -RequestHeaderModifier, -Weight, and HTTPRouteBackendProtocolH2C, since all of it is HTTP/2."""
    one, two = "/grpcecho.GrpcEcho/Echo", "/grpcecho.GrpcEcho/EchoTwo"
    async with calls("first") as first, calls("second") as second:
        for name, port in (("first", first), ("second", second)):
            hosts = [{"addr": "127.0.0.1", "port": port}]
            await api.stack.put("Upstream", name, {"useHttp2": True, "static": {"hosts": hosts}})
        setting = {"requestHeadersToAdd": [added("x-set", "set", False)]}
        host = await api.serve(
            "grpc",
            {**to("first", exact(one)), "name": "named-rule"},
            to("second", {**header("version", "two"), "prefix": "/grpcecho.GrpcEcho/"}),
            to("first", exact(two), headerManipulation=setting),
            multi(("first", 70), ("second", 30)),
        )
        other = await api.serve("grpc-other", to("second", prefix("/grpcecho.GrpcEcho")))
        await eventually(lambda: call(api, other, two), until=lambda said: said.startswith("second"))

        assert await call(api, host, one) == f"first {one} "
        assert await call(api, host, two) == f"first {two} set"
        assert await call(api, host, two, version="two") == f"second {two} "
        assert await call(api, other, one) == f"second {one} "
        assert await call(api, other, "/grpcecho.Other/Echo") == "UNIMPLEMENTED"
        assert await call(api, "nobody.example", one) == "UNIMPLEMENTED"
        shares = Counter([(await call(api, host, "/grpcecho.Weighed/Echo")).split()[0] for _ in range(100)])
        assert abs(shares["first"] - 70) < FIVE_DEVIATIONS
        assert shares["first"] + shares["second"] == 100


# -- TCP and TLS ------------------------------------------------------------------------------------------


def tcp_host(name: str, *upstreams: str, **ssl: Any) -> Document:
    destinations = [
        {"destination": {"upstream": {"name": upstream, "namespace": "gloo-system"}}, "weight": weight}
        for upstream, weight in zip(upstreams, (3, 1), strict=False)
    ]
    action = (
        {"single": destinations[0]["destination"]}
        if len(upstreams) == 1
        else {"multi": {"destinations": destinations}}
    )
    return {"name": name, "destination": action, **({"sslConfig": ssl} if ssl else {})}


async def test_TCPRouteWeight(api: Api) -> None:
    port = free_port()
    async with greeting("first") as first, greeting("second") as second:
        await api.upstreams(**{"tcp-1": first, "tcp-2": second})
        tcp = {"tcpHosts": [tcp_host("all", "tcp-1", "tcp-2")]}
        await api.stack.put("Gateway", "tcp", NOT_HTTP | {"bindPort": port, "tcpGateway": tcp})
        await eventually(lambda: who(port))

        found = Counter([await who(port) for _ in range(100)])
        assert abs(found["first"] - 75) < FIVE_DEVIATIONS
        assert found["first"] + found["second"] == 100

        tcp = {"tcpHosts": [tcp_host("all", "nonexistent")]}
        await api.stack.put("Gateway", "tcp", NOT_HTTP | {"bindPort": port, "tcpGateway": tcp})
        await api.stack.status_is("Warning", "Gateway", "tcp", saying="gloo-system.nonexistent } not found")
        await eventually(lambda: who(port), until=lambda said: not said)
        await api.stack.delete("Gateway", "tcp")


async def test_TLSRouteSimpleSameNamespace(api: Api) -> None:
    """TLSRouteHostnameIntersection, -TerminateSimpleSameNamespace and -MixedTerminationSameNamespace, too."""
    port = free_port()
    inner, outer = (api.authority.issue(name, "DNS:*.tls.example") for name in ("inner", "outer"))
    terminating = {"tlsCert": str(outer.cert), "tlsKey": str(outer.key)}
    async with greeting("passed on", server_context(inner)) as tls, greeting("plain") as plain:
        await api.upstreams(**{"tls-1": tls, "tls-2": plain})
        tcp = {
            "tcpHosts": [
                tcp_host("exact", "tls-1", sniDomains=["abc.tls.example"]),
                tcp_host("wildcard", "tls-1", sniDomains=["*.more.tls.example"]),
                tcp_host("terminated", "tls-2", sniDomains=["term.tls.example"], sslFiles=terminating),
            ]
        }
        await api.stack.put("Gateway", "tls-tcp", NOT_HTTP | {"bindPort": port, "tcpGateway": tcp})
        await eventually(lambda: who(port, "abc.tls.example"))

        assert await who(port, "abc.tls.example") == "passed on"
        assert await who(port, "x.more.tls.example") == "passed on"
        assert await who(port, "term.tls.example") == "plain"
        assert not await who(port, "other.tls.example")
        assert not await who(port, "more.tls.example")
        await api.stack.delete("Gateway", "tls-tcp")


async def test_UDPRoute(api: Api) -> None:
    port = free_port()
    async with echoing("udp-1") as echo:
        await api.upstreams(**{"udp-1": echo.port})
        udp = {"destination": {"upstream": {"name": "udp-1", "namespace": "gloo-system"}}}
        await api.stack.put("Gateway", "udp", NOT_HTTP | {"bindPort": port, "udpGateway": udp})
        await api.stack.status_is("Accepted", "Gateway", "udp")

        async def answer() -> bytes:
            async with Client.to(port) as client:
                return await client.ask(b"hello", within=1)

        assert await eventually(answer) == b"udp-1 hears hello"
        await api.stack.delete("Gateway", "udp")
