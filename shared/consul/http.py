"""The HTTP layer under py-consul: two connection pools, a deadline for every call, typed errors.

The stock layer starves writes behind parked long polls, gives up before Consul answers, lets foreign
exceptions through and sends transactions without a token. Here long polls and short calls have a pool
each, and token, datacenter and namespace go with every request.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import consul.base
import consul.exceptions
import orjson
from yarl import URL

from shared.consul.config import ConsulConfig
from shared.errors import ConsulConflict, ConsulDenied, ConsulError, ConsulRefused, ConsulUnavailable

T = TypeVar("T")
Params = Iterable[tuple[str, str | int]]
Consistency = Literal["default", "consistent", "stale"]
Pool = Literal["rpc", "watch"]

SHORT_CALL = 10.0
WHOLE_READ = 30.0
CONNECT = 5.0
RPC_CONNECTIONS = 16
IDLE = 75.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A usable answer (2xx, 404 or 409). ``index`` is 0 without the header."""

    status: int
    index: int
    body: bytes
    headers: Mapping[str, str]

    def json(self) -> Any:
        return orjson.loads(self.body)


class Http(consul.base.HTTPClient):  # type: ignore[misc]
    """The HTTP layer under py-consul: two connection pools, deadlines, typed errors.

    The watch pool has no limit of its own: each watch parks one connection, and a long poll that queued
    for a slot would only run into its deadline. The pools open with the first request, so that a client
    can be built outside the event loop.
    """

    def __init__(self, config: ConsulConfig) -> None:
        super().__init__(config.host, config.port, config.scheme)
        self._config = config
        self._base = config.address if not config.socket else "http://localhost"
        self._ssl = config.ssl_context()
        self._sessions: dict[Pool, aiohttp.ClientSession] = {}
        self._common = [
            (name, value) for name, value in (("dc", config.datacenter), ("ns", config.namespace)) if value
        ]

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Params = (),
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        deadline: float = SHORT_CALL,
        pool: Pool = "rpc",
        operation: str = "",
    ) -> Answer:
        """One call. *operation* names it in errors; it defaults to the method and path."""
        operation = operation or f"{method} {path}"
        try:
            async with (
                asyncio.timeout(deadline),
                self._session(pool).request(
                    method,
                    self._url(path, params),
                    data=body,
                    headers=headers,
                    allow_redirects=False,
                    server_hostname=self._config.server_name or None,
                ) as response,
            ):
                content = await response.read()
                answer = Answer(
                    response.status,
                    _index(response.headers.get("X-Consul-Index", "")),
                    content,
                    response.headers,
                )
        except TimeoutError as error:
            raise ConsulUnavailable(operation, f"no answer within {deadline:.0f} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ConsulUnavailable(operation, _reason(error)) from error
        _check(answer, operation)
        return answer

    def get(
        self,
        callback: Callable[[Any], T],
        path: str,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        raw: bool = False,
        connections_timeout: float | None = None,
    ) -> Any:
        given = list(params or ())
        wait = next((_seconds(str(value)) for name, value in given if name == "wait"), 0.0)
        deadline = connections_timeout or (blocking_deadline(wait) if wait else WHOLE_READ)
        return self._call(
            callback, "GET", path, given, None, headers, deadline, pool="watch" if wait else "rpc"
        )

    def put(
        self,
        callback: Callable[[Any], T],
        path: str,
        params: Params | None = None,
        data: str | bytes | None = "",
        headers: Mapping[str, str] | None = None,
        connections_timeout: float | None = None,
    ) -> Any:
        return self._call(callback, "PUT", path, params, data, headers, connections_timeout or SHORT_CALL)

    def post(
        self,
        callback: Callable[[Any], T],
        path: str,
        params: Params | None = None,
        data: str | bytes | None = "",
        headers: Mapping[str, str] | None = None,
        connections_timeout: float | None = None,
    ) -> Any:
        return self._call(callback, "POST", path, params, data, headers, connections_timeout or SHORT_CALL)

    def delete(
        self,
        callback: Callable[[Any], T],
        path: str,
        params: Params | None = None,
        data: str | bytes | None = "",
        headers: Mapping[str, str] | None = None,
        connections_timeout: float | None = None,
    ) -> Any:
        return self._call(callback, "DELETE", path, params, data, headers, connections_timeout or SHORT_CALL)

    async def _call(
        self,
        callback: Callable[[Any], T],
        method: str,
        path: str,
        params: Params | None,
        body: str | bytes | None,
        headers: Mapping[str, str] | None,
        deadline: float,
        *,
        pool: Pool = "rpc",
    ) -> T:
        """A call of py-consul's own methods: its callback gets the answer, its exceptions end here."""
        answer = await self.request(
            method,
            path,
            params=params or (),
            body=body or None,
            headers=headers,
            deadline=deadline,
            pool=pool,
        )
        operation = f"{method} {path}"
        if answer.status == 409:
            raise ConsulConflict(operation, _text(answer.body))
        try:
            return callback(consul.base.Response(answer.status, answer.headers, answer.body))
        except consul.exceptions.NotFound as error:
            raise ConsulRefused(operation, _text(answer.body) or "not found", status=404) from error
        except consul.exceptions.ConsulException as error:
            raise ConsulUnavailable(operation, str(error)) from error

    def _url(self, path: str, params: Params) -> URL:
        query = [*params, *self._common]
        return URL(
            f"{self._base}{quote(path, safe='/:')}{'?' + urlencode(query) if query else ''}", encoded=True
        )

    def _session(self, pool: Pool) -> aiohttp.ClientSession:
        session = self._sessions.get(pool)
        if session is None:
            limit = 0 if pool == "watch" else RPC_CONNECTIONS
            config = self._config
            connector: aiohttp.BaseConnector
            if config.socket:
                connector = aiohttp.UnixConnector(config.socket, limit=limit, keepalive_timeout=IDLE)
            else:
                connector = aiohttp.TCPConnector(limit=limit, ssl=self._ssl or True, keepalive_timeout=IDLE)
            session = self._sessions[pool] = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT),
                headers=_constant_headers(config),
            )
        return session

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()


def blocking_deadline(wait: float) -> float:
    """How long a long poll may take: Consul adds up to a sixteenth of *wait*; the rest is for the body."""
    return wait * 17 / 16 + 10


def parse(answer: Answer, operation: str) -> Any:
    """The answer's JSON; None for a 404."""
    if answer.status == 404:
        return None
    try:
        return answer.json()
    except orjson.JSONDecodeError as error:
        raise ConsulUnavailable(operation, f"the answer is not JSON: {error}") from error


def _constant_headers(config: ConsulConfig) -> Mapping[str, str]:
    # Consul would compress, which costs both sides more than the bytes do on a local network.
    headers = {"Accept-Encoding": "identity"}
    if config.token:
        headers["X-Consul-Token"] = config.token
    if config.username:
        credentials = f"{config.username}:{config.password}".encode()
        headers["Authorization"] = f"Basic {b64encode(credentials).decode()}"
    return headers


def _check(answer: Answer, operation: str) -> None:
    status = answer.status
    if status < 300 or status in (404, 409):
        return
    error: type[ConsulError] = ConsulRefused
    if status >= 500 or status == 429:
        error = ConsulUnavailable
    elif status in (401, 403):
        error = ConsulDenied
    raise error(operation, _text(answer.body) or "no reason given", status=status)


def _reason(error: BaseException) -> str:
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed without an answer (too many connections, or a restart)"
    return str(error) or type(error).__name__


def _text(body: bytes) -> str:
    return body[:500].decode("utf-8", "replace").strip()


def _index(header: str) -> int:
    """The index; 0 when there is none. Consul counts from 1, whatever an old version may answer."""
    return max(1, int(header)) if header.isascii() and header.isdigit() else 0


def _seconds(wait: str) -> float:
    """Consul's short durations (``30s``, ``5m``, ``250ms``) in seconds."""
    for unit, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)):
        if wait.endswith(unit):
            return float(wait.removesuffix(unit)) * factor
    return float(wait)
