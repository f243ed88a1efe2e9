"""Services of the outside world that Envoy asks about requests: two that authorize them, one that counts."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.service.auth.v3.external_auth_pb2 import (
    CheckRequest,
    CheckResponse,
    DeniedHttpResponse,
    OkHttpResponse,
)
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest, RateLimitResponse
from grpclib.const import Cardinality, Handler
from grpclib.server import Server, Stream

from tests.support.ports import free_port

UNAUTHENTICATED = 16


class GrpcService:
    """A service with one method, from its start to its end."""

    path: str
    request: type[Any]
    response: type[Any]

    def __init__(self) -> None:
        self.port = free_port()
        self.asked: list[Any] = []
        self._server: Server | None = None

    async def __aenter__(self) -> Self:
        self._server = Server([self])
        await self._server.start("127.0.0.1", self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    def __mapping__(self) -> dict[str, Handler]:
        return {self.path: Handler(self._answer, Cardinality.UNARY_UNARY, self.request, self.response)}

    async def _answer(self, stream: Stream[Any, Any]) -> None:
        request = await stream.recv_message()
        self.asked.append(request)
        await stream.send_message(await self.judge(request))

    async def judge(self, request: Any) -> Any:
        raise NotImplementedError


class AuthService(GrpcService):
    """Lets requests pass unless they say ``x-please: deny``; knows who ``authorization`` is, and tells
    the upstream in ``x-user``, and Envoy in the metadata ``user``.

    To ``x-please: wait`` it says nothing before it is ``released``.
    """

    path = "/envoy.service.auth.v3.Authorization/Check"
    request = CheckRequest
    response = CheckResponse

    def __init__(self) -> None:
        super().__init__()
        self.released = asyncio.Event()

    @property
    def last(self) -> Any:
        """What it was told of the last request."""
        return self.asked[-1].attributes

    async def judge(self, request: Any) -> Any:
        headers = request.attributes.request.http.headers
        if headers.get("x-please") == "wait":
            await self.released.wait()
        if headers.get("x-please") == "deny":
            denied = DeniedHttpResponse(headers=[option("x-why", "because")], body="not you")
            denied.status.code = 401
            out = CheckResponse(denied_response=denied)
            out.status.code = UNAUTHENTICATED
            return out
        passed = OkHttpResponse(
            headers_to_remove=["x-secret"], response_headers_to_add=[option("x-seen", "yes")]
        )
        if user := headers.get("authorization"):
            passed.headers.append(option("x-user", user))
        if team := headers.get("x-join"):
            passed.headers.append(option("x-team", team))
        found = CheckResponse(ok_response=passed)
        found.dynamic_metadata.update({"user": user} if user else {})
        return found


class LimitService(GrpcService):
    """Says that a request is one too many when a descriptor has the value ``over``."""

    path = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
    request = RateLimitRequest
    response = RateLimitResponse

    @property
    def told(self) -> list[list[tuple[str, str]]]:
        """The descriptors of the last request."""
        return [[(entry.key, entry.value) for entry in one.entries] for one in self.asked[-1].descriptors]

    async def judge(self, request: Any) -> Any:
        out = RateLimitResponse(overall_code=RateLimitResponse.OK)
        for descriptor in request.descriptors:
            over = any(entry.value == "over" for entry in descriptor.entries)
            status = out.statuses.add(code=RateLimitResponse.OVER_LIMIT if over else RateLimitResponse.OK)
            status.current_limit.requests_per_unit = 10
            status.current_limit.unit = RateLimitResponse.RateLimit.MINUTE
            status.limit_remaining = 0 if over else 7
            if over:
                out.overall_code = RateLimitResponse.OVER_LIMIT
        return out


class HttpAuth:
    """Authorizes over plain HTTP, unless the request says ``x-please: deny`` or ``fail``."""

    def __init__(self) -> None:
        self.port = free_port()
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append((request.method, request.path_qs, headers, await request.read()))
        if headers.get("x-please") == "fail":
            return web.Response(status=502)
        if headers.get("x-please") == "deny":
            told = {"x-why": "because", "x-inner": "secret"}
            return web.Response(status=402, text="pay first", headers=told)
        return web.Response(headers={"x-user": "ann", "x-role": "admin", "x-group": "b", "x-inner": "secret"})


def option(name: str, value: str) -> Any:
    return HeaderValueOption(header=HeaderValue(key=name, value=value))
