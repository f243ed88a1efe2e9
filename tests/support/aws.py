"""AWS as far as it is asked here: an HTTP server that takes requests with the right signature only."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, quote, unquote

from aiohttp import web

from tests.support.ports import free_port

AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8}/([^/]+)/([^/]+)/aws4_request), ?"
    r"SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})"
)
INVOCATION = re.compile(r"/2015-03-31/functions/([^/]+)/invocations")


class Forged(Exception):
    """A request whose signature is not the key's; the text says why."""


@dataclass(frozen=True, slots=True)
class Signed:
    """Who signed a request, and for which service of which region."""

    key: str
    region: str
    service: str


def check_signature(
    method: str, path: str, headers: Mapping[str, str], body: bytes, keys: Mapping[str, str]
) -> Signed:
    """As AWS does it; *keys* are secrets by the key's id, *path* is as it was sent."""
    found = AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    if found is None:
        raise Forged("not signed")
    key, scope, region, service, names, signature = found.groups()
    if key not in keys:
        raise Forged(f"no key {key}")
    signed = names.split(";")
    if not {"host", *(name for name in headers if name.startswith("x-amz-"))} <= set(signed):
        raise Forged("host and x-amz-… must be signed")
    bare, _, query = path.partition("?")
    pairs = sorted(parse_qsl(query, keep_blank_values=True))
    canonical = "\n".join(
        (
            method,
            quote(bare, safe="/-_.~"),
            "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs),
            *(f"{name}:{' '.join(headers[name].split())}" for name in signed),
            "",
            names,
            hashlib.sha256(body).hexdigest(),
        )
    )
    text = "\n".join(
        ("AWS4-HMAC-SHA256", headers["x-amz-date"], scope, hashlib.sha256(canonical.encode()).hexdigest())
    )
    derived = f"AWS4{keys[key]}".encode()
    for part in (*scope.split("/"), text):
        derived = hmac.new(derived, part.encode(), hashlib.sha256).digest()
    if derived.hex() != signature:
        raise Forged(f"the signature is of something else than {canonical}")
    return Signed(key, region, service)


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """A call of a function that was signed."""

    function: str
    qualifier: str
    kind: str
    body: bytes
    headers: Mapping[str, str]
    by: Signed


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A machine of EC2."""

    private: str
    public: str = ""
    state: str = "running"
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Aws:
    """Functions answer with what ``returns`` has for them, else with ``{}``; ``calls`` is what was called,
    ``forged`` what was turned away. EC2 has ``instances`` and tells of two at a time; ``questions`` are those
    it was asked for the first of."""

    keys: dict[str, str]
    port: int = field(default_factory=free_port)
    returns: dict[str, web.Response] = field(default_factory=dict)
    failures: int = 0  # of the next calls
    calls: list[Invocation] = field(default_factory=list)
    forged: list[str] = field(default_factory=list)
    instances: list[Instance] = field(default_factory=list)
    questions: list[dict[str, str]] = field(default_factory=list)
    trouble: int = 0  # the status of EC2's answers
    _running: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=16 << 20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.5)
        await runner.setup()
        self._running.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._running.aclose()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            by = check_signature(request.method, request.raw_path, headers, body, self.keys)
        except Forged as problem:
            self.forged.append(str(problem))
            return web.json_response({"message": str(problem)}, status=403)
        if by.service == "ec2":
            return self._describe(dict(parse_qsl(body.decode(), keep_blank_values=True)))
        return self._invoke(request, headers, body, by)

    def _describe(self, asked: dict[str, str]) -> web.StreamResponse:
        if self.trouble:
            said = "<Code>Busy</Code><Message>come again</Message>"
            text = f"<Response><Errors><Error>{said}</Error></Errors></Response>"
            return web.Response(status=self.trouble, text=text, content_type="text/xml")
        assert (asked["Action"], asked["Version"]) == ("DescribeInstances", "2016-11-15")
        at = int(asked.get("NextToken", "0"))
        if not at:
            self.questions.append(asked)
        names = [name for name in asked if name.endswith(".Name")]
        wanted = {asked[name]: asked[name.replace(".Name", ".Value.1")] for name in names}
        found = [each for each in self.instances if fits(each, wanted)]
        page = "".join(
            f"<item><instancesSet><item><privateIpAddress>{each.private}</privateIpAddress>"
            + (f"<ipAddress>{each.public}</ipAddress>" if each.public else "")
            + "</item></instancesSet></item>"
            for each in found[at : at + 2]
        )
        more = f"<nextToken>{at + 2}</nextToken>" if len(found) > at + 2 else ""
        space = 'xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"'
        text = f"<DescribeInstancesResponse {space}><reservationSet>{page}</reservationSet>{more}"
        return web.Response(text=f"{text}</DescribeInstancesResponse>", content_type="text/xml")

    def _invoke(
        self, request: web.Request, headers: Mapping[str, str], body: bytes, by: Signed
    ) -> web.StreamResponse:
        bare, _, query = request.raw_path.partition("?")
        found = INVOCATION.fullmatch(bare)
        if found is None or request.method != "POST" or by.service != "lambda":
            return web.json_response({"message": f"{request.method} {bare}"}, status=404)
        asked = Invocation(
            function=unquote(found[1]),
            qualifier=dict(parse_qsl(query)).get("Qualifier", ""),
            kind=headers.get("x-amz-invocation-type", ""),
            body=body,
            headers=headers,
            by=by,
        )
        self.calls.append(asked)
        if self.failures:
            self.failures -= 1
            return web.json_response({"message": "busy"}, status=503)
        if asked.kind == "Event":
            return web.Response(status=202)
        return copy_of(self.returns.get(asked.function) or web.json_response({}))


def fits(instance: Instance, filters: Mapping[str, str]) -> bool:
    """Whether EC2's *filters* let an instance pass; the values take ``*`` for anything."""
    facts = {"instance-state-name": instance.state, **{f"tag:{k}": v for k, v in instance.tags.items()}}
    return all(
        name in facts and (value == "*" or facts[name] == re.sub(r"\\(.)", r"\1", value))
        for name, value in filters.items()
    )


def copy_of(answer: web.Response) -> web.Response:
    """An answer cannot be sent twice."""
    return web.Response(status=answer.status, body=answer.body, headers=dict(answer.headers.items()))


def returned(document: Any, **headers: str) -> web.Response:
    """What a function returns; *headers* are Lambda's own."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.json_response(document, headers=named)
