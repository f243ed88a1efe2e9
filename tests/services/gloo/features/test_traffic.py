"""What the options of listeners, virtual hosts and routes do to real requests through a real Envoy."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.support.backends import Backend, Reply, repeating
from tests.support.envoy import Envoy, running_envoy
from tests.support.golden import static_resources, translate_world
from tests.support.ports import free_ports
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

Document = dict[str, Any]
ORIGIN = "https://pages.example.com"
ONCE = {"localRatelimit": {"maxTokens": 1, "fillInterval": "3600s"}}
LIMIT = {"buffer": {"maxRequestBytes": 10}}


def to(upstream: str) -> Document:
    return {"upstream": {"name": upstream, "namespace": "ns"}}


def route(path: str, upstream: str = "here", /, **options: Any) -> Document:
    return {"matchers": [{"prefix": path}], "routeAction": {"single": to(upstream)}, "options": options}


def direct(path: str, /, **options: Any) -> Document:
    return {"matchers": [{"prefix": path}], "directResponseAction": {"status": 200}, "options": options}


def weighted(path: str, /, **options: Any) -> Document:
    """A route whose only destination has *options*."""
    destinations = [{"destination": to("here"), "weight": 1, "options": options}]
    return {"matchers": [{"prefix": path}], "routeAction": {"multi": {"destinations": destinations}}}


def host(name: str, *routes: Document, **options: Any) -> Document:
    return {
        "name": name,
        "domains": [f"{name}.example.com", f"{name}.example.com:80"],
        "routes": list(routes),
        "options": options,
    }


def rewrite(pattern: str, substitution: str) -> Document:
    return {"pattern": {"regex": pattern}, "substitution": substitution}


CORS = {"allowOrigin": [ORIGIN], "allowMethods": ["GET", "PUT"], "exposeHeaders": ["x-common", "x-host"]}
OTHER = {"allowOriginRegex": ["https://[a-z]+\\.example\\.org"], "exposeHeaders": ["x-common", "x-route"]}
HOSTS = [
    host(
        "cors",
        route("/other", cors={**OTHER, "allowHeaders": ["x-a"], "maxAge": "60", "allowCredentials": True}),
        route("/off", cors={"disableForRoute": True}),
        direct("/direct", cors={"allowOrigin": [ORIGIN], "allowHeaders": ["x-a"], "maxAge": "60"}),
        route("/"),
        cors=CORS,
        corsPolicyMergeSettings={"exposeHeaders": "UNION"},
    ),
    host("cors-default", route("/", cors=OTHER), cors=CORS),
    host(
        "csrf",
        route("/friends", csrf={"additionalOrigins": [{"suffix": ".example.com"}]}),
        route("/off", csrf={"filterEnabled": {"defaultValue": {"numerator": 0}}}),
        route("/"),
        csrf={},
    ),
    host(
        "buffer",
        route("/more", bufferPerRoute={"buffer": {"maxRequestBytes": 100}}),
        route("/off", bufferPerRoute={"disabled": True}),
        route("/"),
        bufferPerRoute=LIMIT,
    ),
    host("weights", weighted("/csrf", csrf={}), weighted("/buffer", bufferPerRoute=LIMIT), weighted("/")),
    host(
        "hash",
        route("/header", "both", lbHash={"hashPolicies": [{"header": "x-user"}]}),
        route(
            "/cookie", "both", lbHash={"hashPolicies": [{"cookie": {"name": "c", "ttl": "60s", "path": "/"}}]}
        ),
        route("/address", "both", lbHash={"hashPolicies": [{"sourceIp": True}]}),
        route(
            "/terminal",
            "both",
            lbHash={"hashPolicies": [{"header": "x-a", "terminal": True}, {"header": "x-b"}]},
        ),
    ),
    host(
        "rewrite",
        route("/path", regexRewrite=rewrite("^/path/(\\w+)/(.*)$", "/\\2/of/\\1")),
        route(
            "/host",
            hostRewritePathRegex=rewrite("^/host/(\\w+).*", "\\1.internal"),
            appendXForwardedHost=True,
        ),
        route("/header", hostRewriteHeader="x-host"),
    ),
    host(
        "shadow",
        route("/all", shadowing={"upstream": to("next")["upstream"], "percentage": 100}),
        route(
            "/same",
            shadowing={
                "upstream": to("next")["upstream"],
                "percentage": 100,
                "disableShadowHostSuffixAppend": True,
            },
        ),
        route("/none", shadowing={"upstream": to("next")["upstream"], "percentage": 0}),
    ),
    host(
        "time",
        route("/idle", "slow", idleTimeout="0.1s", timeout="0s"),
        route("/stream", "slow", maxStreamDuration={"maxStreamDuration": "0.1s"}),
        route("/grpc", "slow", maxStreamDuration={"grpcTimeoutHeaderMax": "0.1s"}),
    ),
    host(
        "upgrades",
        route("/on", "raw"),
        route("/off", "raw", upgrades=[{"websocket": {"enabled": False}}]),
        {**route("", "raw", upgrades=[{"connectTerminate": {}}]), "matchers": [{"connectMatcher": {}}]},
    ),
    host(
        "facts",
        {
            **route("/", envoyMetadata={"team": {"name": "pets", "size": 3}}),
            "matchers": [{"prefix": "/"}],
        },
        headerManipulation={
            "responseHeadersToAdd": [{"header": {"key": "x-team", "value": "%METADATA(ROUTE:team:name)%"}}]
        },
    ),
    host(
        "attempts",
        route("/", retries={"retryOn": "5xx", "numRetries": 3}),
        includeRequestAttemptCount=True,
        includeAttemptCountInResponse=True,
    ),
    host(
        "ranks",
        route(
            "/others",
            "ranked",
            retries={"retryOn": "5xx", "numRetries": 1, "previousPriorities": {"updateFrequency": 1}},
        ),
        route("/same", "ranked", retries={"retryOn": "5xx", "numRetries": 1}),
    ),
    host(
        "stats",
        route("/"),
        stats={"virtualClusters": [{"name": "one.pet", "pattern": "/pets/\\d+|/x", "method": "GET"}]},
    ),
    host("named", {"matchers": [{"prefix": "/"}], "routeAction": {"clusterHeader": "x-cluster"}}),
    host(
        "limited",
        route("/route", ratelimit=ONCE),
        route("/early", ratelimitEarly=ONCE),
        route("/"),
        ratelimit=ONCE,
    ),
]
TUNED = {
    "gzip": {"contentLength": 10},
    "healthCheck": {"path": "/healthz"},
    "grpcWeb": {"disable": True},
    "buffer": {"maxRequestBytes": 10},
    "csrf": {},
    "router": {"suppressEnvoyHeaders": True, "dynamicStats": False},
}
COUNTED = {
    "httpLocalRatelimit": {
        "defaultLimit": {"maxTokens": 2, "tokensPerFill": 1, "fillInterval": "3600s"},
        "enableXRatelimitHeaders": True,
    }
}
BY_CONNECTION = {
    "httpLocalRatelimit": {
        "defaultLimit": ONCE["localRatelimit"],
        "localRateLimitPerDownstreamConnection": True,
    }
}
LISTENERS = {
    "plain": {"virtualHosts": HOSTS},
    "tuned": {"virtualHosts": [host("here", route("/alone", "alone"), route("/"))], "options": TUNED},
    "counted": {
        "virtualHosts": [host("here", direct("/own", ratelimit=ONCE), route("/"))],
        "options": COUNTED,
    },
    "by-connection": {"virtualHosts": [host("here", route("/"))], "options": BY_CONNECTION},
}


@dataclass(frozen=True, slots=True)
class World:
    """A running Envoy with everything above, and what stands behind it."""

    envoy: Envoy
    ports: dict[str, int]
    here: Backend
    next: Backend
    http: aiohttp.ClientSession

    async def ask(
        self,
        host: str,
        path: str,
        method: str = "GET",
        listener: str = "plain",
        data: Any = None,
        **headers: str,
    ) -> Reply:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"http://127.0.0.1:{self.ports[listener]}{path}"
        sent = {"host": f"{host}.example.com", **sent}
        async with self.http.request(method, url, headers=sent, data=data) as answer:
            return Reply(answer.status, answer.headers, await answer.text())

    async def connect(self, head: str) -> tuple[str, asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection with *head*: the first line of the answer, and the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports["plain"])
        writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        answer = await reader.readuntil(b"\r\n\r\n")
        return answer.decode().partition("\r\n")[0], reader, writer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with AsyncExitStack() as running:
        here, beside, slow = [
            await running.enter_async_context(Backend(name)) for name in ("here", "next", "slow")
        ]
        slow.delay = 1
        raw = await running.enter_async_context(repeating())
        admin, *ports = free_ports(1 + len(LISTENERS))
        by_name = dict(zip(LISTENERS, ports, strict=True))
        behind = {
            "here": [here.port],
            "next": [beside.port],
            "alone": [beside.port],
            "slow": [slow.port],
            "both": [here.port, beside.port],
            "raw": [raw],
            "ranked": [here.port, beside.port],
        }
        case = {
            "proxy": {"listeners": [listener(name, http, by_name[name]) for name, http in LISTENERS.items()]},
            "upstreams": [upstream(name, members) for name, members in behind.items()],
        }
        made, reports = translate_world(case)
        assert [str(problem) for report in reports.values() for problem in report.errors] == []
        resources = static_resources({"": made}, port=1)
        for each in resources["listeners"]:
            each["address"]["socketAddress"]["portValue"] = by_name[each["name"]]
        rank(next(each for each in resources["clusters"] if each["name"] == "ranked_ns"))
        at = {"socket_address": {"address": "127.0.0.1", "port_value": admin}}
        bootstrap = {"admin": {"address": at}, "static_resources": resources}
        envoy = await running.enter_async_context(
            running_envoy(tmp_path_factory.mktemp("traffic"), bootstrap)
        )
        http = await running.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
        yield World(envoy, by_name, here, beside, http)


def listener(name: str, http: Document, port: int) -> Document:
    return {"name": name, "bindAddress": "127.0.0.1", "bindPort": port, "httpListener": http}


def upstream(name: str, ports: list[int]) -> Document:
    hosts = [{"addr": "127.0.0.1", "port": port} for port in ports]
    balanced = {"loadBalancerConfig": {"ringHash": {}}} if name == "both" else {}
    return {"metadata": {"name": name, "namespace": "ns"}, "static": {"hosts": hosts}, **balanced}


def rank(cluster: Document) -> None:
    """Give each host a priority of its own."""
    [locality] = cluster["loadAssignment"]["endpoints"]
    members = locality["lbEndpoints"]
    cluster["loadAssignment"]["endpoints"] = [
        {"lbEndpoints": [member], "priority": i} for i, member in enumerate(members)
    ]


async def test_cors_tells_browsers_what_other_sites_pages_may_do(world: World) -> None:
    asking = {"origin": ORIGIN, "access_control_request_method": "PUT"}
    friend = {"origin": "https://other.example.org", "access_control_request_method": "PUT"}

    answer = await world.ask("cors", "/", "OPTIONS", **asking)
    stranger = await world.ask("cors", "/", "OPTIONS", **friend)
    other = await world.ask("cors", "/other", "OPTIONS", **friend)
    off = await world.ask("cors", "/off", "OPTIONS", **asking)
    plain = await world.ask("cors", "/", origin=ORIGIN)

    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["access-control-allow-methods"] == "GET,PUT"
    assert "access-control-allow-origin" not in stranger.headers
    assert "access-control-allow-origin" not in off.headers
    assert other.headers["access-control-allow-origin"] == friend["origin"]
    assert other.headers["access-control-allow-headers"] == "x-a"
    assert other.headers["access-control-max-age"] == "60"
    assert other.headers["access-control-allow-credentials"] == "true"
    assert other.headers["access-control-allow-methods"] == "GET,PUT", "the host's, for the route has none"
    assert plain.headers["access-control-expose-headers"] == "x-common,x-host"


async def test_a_routes_cors_takes_the_hosts_place_or_is_united_with_it(world: World) -> None:
    friend = "https://other.example.org"

    default = await world.ask("cors-default", "/", origin=friend)
    united = await world.ask("cors", "/other", origin=friend)

    assert default.headers["access-control-expose-headers"] == "x-common,x-route"
    assert united.headers["access-control-expose-headers"] == "x-common,x-host,x-route"


async def test_cors_holds_for_direct_responses(world: World) -> None:
    answer = await world.ask("cors", "/direct", origin=ORIGIN)

    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["access-control-allow-headers"] == "x-a"
    assert answer.headers["access-control-max-age"] == "60"


async def test_csrf_refuses_changes_that_come_from_other_sites(world: World) -> None:
    other = {"origin": ORIGIN}

    assert (await world.ask("csrf", "/", "POST", **other)).status == 403
    assert (await world.ask("csrf", "/", "POST", origin="http://csrf.example.com")).status == 200
    assert (await world.ask("csrf", "/", "POST", referer="http://csrf.example.com/page")).status == 200
    assert (await world.ask("csrf", "/", "POST")).status == 403, "nobody knows whence"
    assert (await world.ask("csrf", "/", "GET", **other)).status == 200
    assert (await world.ask("csrf", "/friends", "POST", **other)).status == 200
    assert (await world.ask("csrf", "/friends", "POST", origin="https://evil.org")).status == 403
    assert (await world.ask("csrf", "/off", "POST", **other)).status == 200
    assert (await world.ask("weights", "/csrf", "POST", **other)).status == 403
    assert (await world.ask("weights", "/", "POST", **other)).status == 200
    assert (await world.ask("here", "/", "POST", "tuned", **other)).status == 403


async def test_bodies_that_are_too_long_to_collect_are_refused(world: World) -> None:
    body = b"x" * 50

    assert (await world.ask("buffer", "/", "POST", data=body)).status == 413
    assert (await world.ask("buffer", "/more", "POST", data=body)).status == 200
    assert (await world.ask("buffer", "/off", "POST", data=body)).status == 200
    assert (await world.ask("weights", "/buffer", "POST", data=body)).status == 413
    assert (await world.ask("weights", "/", "POST", data=body)).status == 200
    assert (await world.ask("here", "/", "POST", "tuned", data=body)).status == 413


async def test_requests_that_are_alike_go_to_the_same_instance(world: World) -> None:
    async def instance(path: str, **headers: str) -> str:
        return str((await world.ask("hash", path, **headers)).echo["backend"])

    users = {user: await instance("/header", x_user=str(user)) for user in range(20)}
    again = {user: await instance("/header", x_user=str(user)) for user in range(20)}
    first = await world.ask("hash", "/cookie")
    cookie = first.headers["set-cookie"].partition(";")[0]
    with_cookie = {await instance("/cookie", cookie=cookie) for _ in range(5)}
    decided = {await instance("/terminal", x_a="1", x_b=str(i)) for i in range(10)}
    undecided = {await instance("/terminal", x_b=str(i)) for i in range(20)}

    assert users == again
    assert set(Counter(users.values())) == {"here", "next"}
    assert "path=/" in first.headers["set-cookie"].lower()
    assert with_cookie == {first.echo["backend"]}
    assert len({await instance("/address") for _ in range(10)}) == 1
    assert len(decided) == 1
    assert undecided == {"here", "next"}


async def test_paths_and_hosts_are_rewritten(world: World) -> None:
    path = (await world.ask("rewrite", "/path/a/b?q=1")).echo
    from_path = (await world.ask("rewrite", "/host/one/x")).echo
    from_header = (await world.ask("rewrite", "/header", x_host="two.internal")).echo

    assert path["path"] == "/b/of/a?q=1"
    assert from_path["host"] == "one.internal"
    assert from_path["headers"]["x-forwarded-host"] == "rewrite.example.com"
    assert from_header["host"] == "two.internal"
    assert "x-forwarded-host" not in from_header["headers"]


async def test_requests_are_copied_to_another_upstream(world: World) -> None:
    async def copied(path: str) -> Any:
        assert (await world.ask("shadow", path)).echo["backend"] == "here"
        return await eventually(lambda: world.next.last, until=lambda seen: seen.get("path") == path)

    assert (await world.ask("shadow", "/none")).status == 200
    assert (await copied("/all/1"))["host"] == "shadow.example.com-shadow"
    assert (await copied("/same/2"))["host"] == "shadow.example.com"
    assert world.next.last["path"] == "/same/2"


async def test_slow_answers_are_cut_off(world: World) -> None:
    idle, stream, grpc = await asyncio.gather(
        world.ask("time", "/idle"),
        world.ask("time", "/stream"),
        world.ask("time", "/grpc", grpc_timeout="50m"),
    )

    head = "POST /idle HTTP/1.1\nhost: time.example.com\ncontent-length: 5"
    unfinished, _, writer = await world.connect(head)
    writer.close()

    assert (idle.status, idle.text) == (504, "stream timeout")
    assert unfinished.split()[1] == "408"
    assert stream.status == 504
    assert grpc.status == 504


async def test_upgrades_are_switched_by_route(world: World) -> None:
    upgrade = "connection: upgrade\nupgrade: websocket"

    on, reader, writer = await world.connect(f"GET /on HTTP/1.1\nhost: upgrades.example.com\n{upgrade}")
    writer.write(b"hello")
    said = await reader.readexactly(5)
    writer.close()
    off, _, writer = await world.connect(f"GET /off HTTP/1.1\nhost: upgrades.example.com\n{upgrade}")
    writer.close()

    assert on.split()[1] == "101"
    assert said == b"hello"
    assert off.split()[1] == "403"


async def test_connect_reaches_an_upstream_as_plain_tcp(world: World) -> None:
    answer, reader, writer = await world.connect(
        "CONNECT upgrades.example.com:80 HTTP/1.1\nhost: upgrades.example.com"
    )
    writer.write(b"anything")
    said = await reader.readexactly(8)
    writer.close()

    assert answer.split()[1] == "200"
    assert said == b"anything"


async def test_a_routes_metadata_is_there_for_header_values(world: World) -> None:
    assert (await world.ask("facts", "/")).headers["x-team"] == "pets"


async def test_attempts_are_told(world: World) -> None:
    world.here.failures = 2

    answer = await world.ask("attempts", "/")

    assert answer.headers["x-envoy-attempt-count"] == "3"
    assert answer.echo["headers"]["x-envoy-attempt-count"] == "3"


async def test_retries_may_turn_to_other_priorities(world: World) -> None:
    world.here.failures = 1
    others = (await world.ask("ranks", "/others")).echo["backend"]
    world.here.failures = 1
    same = (await world.ask("ranks", "/same")).echo["backend"]

    assert others == "next"
    assert same == "here"


async def test_groups_of_requests_are_counted_apart(world: World) -> None:
    for path, method in (("/pets/12?q=1", "GET"), ("/x", "GET"), ("/pets/12", "POST"), ("/pets/12/b", "GET")):
        await world.ask("stats", path, method)

    found = await world.envoy.stats("vhost.stats.vcluster.one_pet.upstream_rq_total")

    assert list(found.values()) == [2]


async def test_a_header_names_the_cluster(world: World) -> None:
    assert (await world.ask("named", "/", x_cluster="next_ns")).echo["backend"] == "next"
    assert (await world.ask("named", "/", x_cluster="none")).status == 503
    assert (await world.ask("named", "/")).status == 503
    assert (await world.ask("rewrite", "/header")).echo["host"] == "rewrite.example.com"


async def test_answers_are_compressed(world: World) -> None:
    tuned = await world.ask("here", "/", "GET", "tuned", accept_encoding="gzip")
    plain = await world.ask("stats", "/", accept_encoding="gzip")

    assert tuned.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers


async def test_envoy_answers_health_checks_itself(world: World) -> None:
    asked = world.here.asked

    assert (await world.ask("unknown", "/healthz", "GET", "tuned")).status == 200
    assert (await world.ask("unknown", "/healthz/x", "GET", "tuned")).status == 404
    assert (await world.ask("unknown", "/healthz")).status == 404
    assert world.here.asked == asked


async def test_the_router_keeps_its_headers_and_statistics_to_itself(world: World) -> None:
    plain = await world.ask("stats", "/")
    tuned = await world.ask("here", "/", "GET", "tuned")

    assert "x-envoy-upstream-service-time" in plain.headers
    assert "x-envoy-upstream-service-time" not in tuned.headers
    assert "x-envoy-expected-rq-timeout-ms" not in tuned.echo["headers"]

    assert (await world.ask("here", "/alone", "GET", "tuned")).status == 200
    assert await world.envoy.stats("cluster.here_ns.upstream_rq_2xx")
    assert not await world.envoy.stats("cluster.alone_ns.upstream_rq_2xx")


async def test_grpc_web_becomes_grpc_unless_that_is_off(world: World) -> None:
    web = {"content_type": "application/grpc-web+proto"}

    await world.ask("weights", "/", "POST", **web)
    spoken = world.here.last["headers"]["content-type"]
    await world.ask("here", "/", "POST", "tuned", origin="http://here.example.com", **web)
    plain = world.here.last["headers"]["content-type"]

    assert spoken == "application/grpc"
    assert plain == "application/grpc-web+proto"


async def test_a_limit_holds_for_a_host_or_a_route(world: World) -> None:
    async def twice(path: str) -> list[int]:
        return [(await world.ask("limited", path)).status for _ in range(2)]

    assert await twice("/route") == [200, 429]
    assert await twice("/early") == [200, 429]
    assert await twice("/") == [200, 429]


async def test_a_listeners_limit_holds_for_all_that_have_none_of_their_own(world: World) -> None:
    answers = [await world.ask("here", "/", "GET", "counted") for _ in range(3)]
    own = [await world.ask("here", "/own", "GET", "counted") for _ in range(2)]

    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[0].headers["x-ratelimit-remaining"] == "1"
    assert [answer.status for answer in own] == [200, 429]
    assert own[0].headers["x-ratelimit-limit"] == "1", "as the listener's settings have it"


async def test_a_limit_may_be_each_connections(world: World) -> None:
    async def twice() -> list[int]:
        async with aiohttp.ClientSession() as http:
            own = World(world.envoy, world.ports, world.here, world.next, http)
            return [(await own.ask("here", "/", "GET", "by-connection")).status for _ in range(2)]

    assert await twice() == [200, 429]
    assert await twice() == [200, 429]
