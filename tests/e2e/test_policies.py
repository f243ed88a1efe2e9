"""Edits of policies: whatever changes on a route, connections live on and listeners stay as they are."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.backends import repeating
from tests.support.site import Site
from tests.support.stack import Stack, to_upstream

pytestmark = pytest.mark.e2e

Document = dict[str, Any]
ROUNDS = 5
ORIGIN = {"allowOrigin": ["https://example.org"], "exposeHeaders": ["x-a"]}
REWRITE = {"pattern": {"regex": "^/(.*)$"}, "substitution": "/\\1"}
BUCKET = {"localRatelimit": {"maxTokens": 1000}}
LIMITS = {"rateLimits": [{"actions": [{"remoteAddress": {}}]}]}
TEMPLATE = {"headers": {"x-greeting": {"text": "hello"}}}
TRANSFORMED = {"requestTransforms": [{"requestTransformation": {"transformationTemplate": TEMPLATE}}]}
OF_ROUTES: list[Document] = [
    {},
    {"cors": ORIGIN},
    {"cors": {"disableForRoute": True}},
    {"csrf": {"additionalOrigins": [{"exact": "example.org"}]}},
    {"bufferPerRoute": {"disabled": True}},
    {"faults": {"delay": {"percentage": 1, "fixedDelay": "0.001s"}}},
    {"lbHash": {"hashPolicies": [{"sourceIp": True}]}},
    {"regexRewrite": REWRITE, "hostRewriteHeader": "x-host", "appendXForwardedHost": True},
    {"shadowing": {"upstream": {"name": "raw", "namespace": "gloo-system"}, "percentage": 0}},
    {"timeout": "3600s", "idleTimeout": "3600s", "maxStreamDuration": {"maxStreamDuration": "3600s"}},
    {"retries": {"retryOn": "5xx"}, "envoyMetadata": {"team": {"name": "pets"}}},
    {"upgrades": [{"websocket": {}}]},
    {"internalRedirects": {"codes": [307]}},
    {"ratelimit": BUCKET | LIMITS},
    {"extauth": {"customAuth": {}}},
    {"stagedTransformations": {"early": TRANSFORMED, "regular": TRANSFORMED, "postRouting": TRANSFORMED}},
    {"compression": {"disabled": True}, "sessionAffinity": {"header": "x-instance"}},
    {"mirrors": [{"upstream": {"name": "raw", "namespace": "gloo-system"}, "percentage": 0}]},
]
OF_HOSTS: list[Document] = [
    {"cors": ORIGIN, "corsPolicyMergeSettings": {"exposeHeaders": "UNION"}},
    {"csrf": {}},
    {"bufferPerRoute": {"buffer": {"maxRequestBytes": 1000}}},
    {"includeRequestAttemptCount": True, "includeAttemptCountInResponse": True},
    {"stats": {"virtualClusters": [{"name": "all", "pattern": ".*"}]}},
    {"ratelimitEarly": BUCKET | LIMITS},
    {"extauth": {"disable": True}},
    {"headerManipulation": {"responseHeadersToAdd": [{"header": {"key": "x-a", "value": "b"}}]}},
    {"compression": {"disabled": True}, "sessionAffinity": {"cookie": {"name": "instance"}}},
]
UPDATES = "/stats?filter=lds.update_success|listener_modified|downstream_cx_drain_close"


class Conversation:
    """A connection through Envoy to something that repeats what it hears."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def begin(cls, port: int, *head: str, status: int) -> Conversation:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write("\r\n".join((*head, "", "")).encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.split()[1] == str(status).encode(), answer
        return cls(reader, writer)

    async def goes_on(self, word: str) -> None:
        self._writer.write(word.encode())
        assert await self._reader.readexactly(len(word)) == word.encode()

    def end(self) -> None:
        self._writer.close()


async def test_connections_survive_a_hundred_edits_of_policies(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack, repeating() as port:
        await stack.register("raw", port)
        await stack.status_is("Accepted", "Upstream", "raw")
        site = Site(stack, "policies")
        host = f"host: {site.domain}"

        async def serve(of_route: Document, of_host: Document) -> None:
            tunnel = {**to_upstream("/", "raw"), "matchers": [{"connectMatcher": {}}]}
            tunnel["options"] = {"upgrades": [{"connectTerminate": {}}]}
            domains = [site.domain, f"{site.domain}:80"]
            await site.serve(tunnel, to_upstream("/", "raw", **of_route), domains=domains, options=of_host)

        await serve({}, {})
        upgrade = ("connection: upgrade", "upgrade: websocket")
        socket = await Conversation.begin(stack.http_port, "GET / HTTP/1.1", host, *upgrade, status=101)
        connect = f"CONNECT {site.domain}:80 HTTP/1.1"
        tunnel = await Conversation.begin(stack.http_port, connect, host, status=200)
        before = await stack.envoy(UPDATES)

        for number in range(ROUNDS):
            for policy in OF_ROUTES:
                await serve(policy, {})
            for policy in OF_HOSTS:
                await serve({}, policy)
            await socket.goes_on(f"socket {number}")
            await tunnel.goes_on(f"tunnel {number}")

        assert ROUNDS * (len(OF_ROUTES) + len(OF_HOSTS)) >= 100
        assert await stack.envoy(UPDATES) == before
        await site.says("Accepted")
        socket.end()
        tunnel.end()
