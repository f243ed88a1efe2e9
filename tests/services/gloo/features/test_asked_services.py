"""Requests that are put to services first, by a real Envoy: who may pass, and how often."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.support.asked_services import AuthService, HttpAuth, LimitService
from tests.support.backends import Backend, Reply
from tests.support.envoy import Envoy, running_envoy
from tests.support.golden import static_resources, translate_world
from tests.support.ports import free_port, free_ports

pytestmark = pytest.mark.asyncio(loop_scope="module")

Document = dict[str, Any]


def ref(name: str) -> Document:
    return {"name": name, "namespace": "ns"}


def auth(name: str = "", /, **facts: str) -> Document:
    return {"extauth": {"customAuth": {"name": name, "contextExtensions": facts}}}


FIRST_GROUP: Document = {
    "headerManipulation": {
        "responseHeadersToAdd": [{"header": {"key": "x-first-group", "value": "%REQ(x-group)%"}}]
    }
}
FREE: Document = {"extauth": {"disable": True}}
SERVER: Document = {"extauthzServerRef": ref("auth")}
DEAD: Document = {"extauthzServerRef": ref("dead"), "requestTimeout": "5s"}
SETTINGS: Document = {
    "namedExtauth": {
        "web": {
            "extauthzServerRef": ref("web"),
            "userIdHeader": "x-user",
            "requestTimeout": "5s",
            "requestBody": {"maxRequestBytes": 10, "allowPartialMessage": True},
            "httpService": {
                "pathPrefix": "/check/",
                "request": {
                    "allowedHeaders": ["X-Please"],
                    "allowedHeadersRegex": ["x-also-.*"],
                    "headersToAdd": {"x-from": "gateway"},
                },
                "response": {
                    "allowedUpstreamHeaders": ["x-role"],
                    "allowedUpstreamHeadersToAppend": ["x-group"],
                    "allowedClientHeaders": ["x-why"],
                },
            },
        },
        "open": {**DEAD, "failureModeAllow": True},
        "shut": {**DEAD, "statusOnError": 503},
        "bytes": {**SERVER, "requestTimeout": "5s", "requestBody": {"packAsBytes": True}},
        "short": {**SERVER, "requestTimeout": "5s", "requestBody": {"maxRequestBytes": 10}},
        "gone": {"extauthzServerRef": ref("gone")},
        "gone-web": {"extauthzServerRef": ref("gone"), "httpService": {}},
        "impatient": {**SERVER, "requestTimeout": "0.05s"},
    }
}


def route(path: str, /, upstream: str = "here", **options: Any) -> Document:
    return {
        "matchers": [{"prefix": path}],
        "routeAction": {"single": {"upstream": ref(upstream)}},
        "options": options,
    }


def weighted(path: str, /, **options: Any) -> Document:
    member = {"weight": 1, "destination": {"upstream": ref("here")}, "options": options}
    return {"matchers": [{"prefix": path}], "routeAction": {"multi": {"destinations": [member]}}}


def host(name: str, *routes: Document, **options: Any) -> Document:
    return {"name": name, "domains": [f"{name}.example.com"], "routes": list(routes), "options": options}


def limits(*limits: list[Document], **more: Any) -> Document:
    return {"rateLimits": [{"actions": actions} for actions in limits], **more}


def key(value: str) -> Document:
    return {"genericKey": {"descriptorValue": value}}


def asks(value: str) -> list[Document]:
    """What tells the service *value*, and that the request is one too many when it says so itself."""
    return [key(value), {"requestHeaders": {"headerName": "x-count", "descriptorKey": "count"}}]


def matching(expect: bool, *headers: Document) -> list[Document]:
    match = {"descriptorValue": "matched", "expectMatch": expect, "headers": list(headers)}
    return [{"headerValueMatch": match}]


METADATA: Document = {
    "descriptorKey": "team",
    "metadataKey": {"key": "team", "path": [{"key": "name"}]},
    "source": "ROUTE_ENTRY",
}
BY_USER: Document = {
    "descriptorKey": "user",
    "metadataKey": {"key": "envoy.filters.http.ext_authz", "path": [{"key": "user"}]},
}
MOVING: Document = {
    "requestTransformation": {
        "transformationTemplate": {"headers": {"x-moved": {"text": "yes"}}, "passthrough": {}}
    },
    "clearRouteCache": True,
}
MOVED: Document = {"stagedTransformations": {"early": {"requestTransforms": [MOVING]}}}
LISTENERS: dict[str, Document] = {
    # The way to services that are told apart by the authority they are asked for.
    "door": {"virtualHosts": [host(name, route("/", name)) for name in ("auth", "limits")]},
    "auth": {
        "options": {
            "extauth": {
                "extauthzServerRef": ref("door"),
                "requestTimeout": "5s",
                "userIdHeader": "X-User",
                "clearRouteCache": True,
                "statPrefix": "mine",
                "grpcService": {"authority": "auth.example.com"},
            }
        },
        "virtualHosts": [
            host("free", route("/asked", **auth()), weighted("/chosen", **auth()), route("/")),
            host(
                "asked",
                route("/free", **FREE),
                route("/strict", **auth(level="2")),
                route("/named", **auth("shut")),
                {
                    "matchers": [{"prefix": "/joined", "headers": [{"name": "x-team", "value": "pets"}]}],
                    "routeAction": {"single": {"upstream": ref("there")}},
                },
                weighted("/weighted", **FREE),
                weighted("/facts", **auth(level="3")),
                {
                    "matchers": [{"prefix": "/answer"}],
                    "directResponseAction": {"status": 200, "body": "answered"},
                },
                route("/"),
                **auth(team="pets", level="1"),
            ),
            host(
                "moving",
                {
                    "matchers": [{"prefix": "/secret", "headers": [{"name": "x-moved"}]}],
                    "routeAction": {"single": {"upstream": ref("there")}},
                    "options": auth(),
                },
                {
                    "matchers": [{"prefix": "/", "headers": [{"name": "x-moved"}]}],
                    "routeAction": {"single": {"upstream": ref("there")}},
                },
                route("/secret/asked", **MOVED, **auth()),
                route("/secret/free", **MOVED, **FREE),
                route("/", **MOVED),
            ),
        ],
    },
    "bare": {
        "virtualHosts": [
            host("default", route("/", **auth())),
            host("unknown", route("/free", **FREE), route("/", **auth("nobody"))),
            *(
                host(name, route("/free", **FREE), route("/", **FIRST_GROUP), **auth(name))
                for name in SETTINGS["namedExtauth"]
            ),
        ]
    },
    "limits": {
        "options": {
            "extauth": {**SERVER, "requestTimeout": "5s"},
            "ratelimitServer": {
                "ratelimitServerRef": ref("door"),
                "requestTimeout": "5s",
                "enableXRatelimitHeaders": True,
                "grpcService": {"authority": "limits.example.com"},
            },
        },
        "virtualHosts": [
            host(
                "host",
                route("/own", ratelimit=limits(asks("own"))),
                route("/both", ratelimit=limits(asks("own"), includeVhRateLimits=True)),
                route("/early", ratelimitEarly=limits(asks("early"))),
                route("/"),
                ratelimit=limits(asks("host")),
            ),
            host(
                "kinds",
                route("/source", ratelimit=limits([{"sourceCluster": {}}])),
                route("/destination", ratelimit=limits([{"destinationCluster": {}}])),
                route("/address", ratelimit=limits([{"remoteAddress": {}}])),
                route(
                    "/header",
                    ratelimit=limits([{"requestHeaders": {"headerName": ":path", "descriptorKey": "p"}}]),
                ),
                route(
                    "/team",
                    ratelimit=limits([{"metadata": METADATA}]),
                    envoyMetadata={"team": {"name": "pets"}},
                ),
                route(
                    "/none",
                    ratelimit=limits(
                        [{"metadata": {**METADATA, "defaultValue": "nobody", "source": "DYNAMIC"}}]
                    ),
                ),
                route("/match", ratelimit=limits(matching(True, {"name": "x-a", "prefixMatch": "a"}))),
                route("/unlike", ratelimit=limits(matching(False, {"name": "x-a", "presentMatch": True}))),
                route(
                    "/range",
                    ratelimit=limits(
                        matching(
                            True,
                            {"name": "x-n", "rangeMatch": {"start": 1, "end": 5}},
                            {"name": "x-n", "exactMatch": "3", "invertMatch": True},
                        )
                    ),
                ),
                route(
                    "/ends",
                    ratelimit=limits(
                        matching(
                            True, {"name": "x-a", "suffixMatch": "z"}, {"name": "x-a", "regexMatch": "[a-z]+"}
                        )
                    ),
                ),
                route("/two", ratelimit=limits([key("a"), key("b")], [key("c")])),
            ),
            host("free", route("/")),
            host(
                "ordered",
                route("/before", ratelimitEarly=limits(asks("early"))),
                route("/after", ratelimit=limits(asks("late"))),
                route("/user", ratelimit=limits([{"metadata": BY_USER}])),
                **auth(),
            ),
        ],
    },
    "first": {
        "options": {
            "extauth": {**SERVER, "requestTimeout": "5s"},
            "ratelimitServer": {
                "ratelimitServerRef": ref("limits"),
                "requestTimeout": "5s",
                "rateLimitBeforeAuth": True,
            },
        },
        "virtualHosts": [
            host(
                "ordered",
                route("/after", ratelimitRegular=limits(asks("late"))),
                route("/", ratelimit=limits(asks("early"))),
                **auth(),
            )
        ],
    },
    "lenient": {
        "options": {"ratelimitServer": {"ratelimitServerRef": ref("dead")}},
        "virtualHosts": [host("limited", route("/"), ratelimit=limits([key("a")]))],
    },
    "gone": {
        "options": {"ratelimitServer": {"ratelimitServerRef": ref("gone")}},
        "virtualHosts": [host("limited", route("/"), ratelimit=limits([key("a")]))],
    },
    "strict": {
        "options": {"ratelimitServer": {"ratelimitServerRef": ref("dead"), "denyOnFail": True}},
        "virtualHosts": [host("limited", route("/"), ratelimit=limits([key("a")]))],
    },
}


@dataclass(frozen=True, slots=True)
class World:
    """A running Envoy with everything above, and those it asks."""

    envoy: Envoy
    ports: dict[str, int]
    auth: AuthService
    web: HttpAuth
    limits: LimitService
    http: aiohttp.ClientSession

    async def ask(
        self, listener: str, host: str, path: str, /, *, method: str = "GET", data: Any = None, **headers: str
    ) -> Reply:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent["host"] = f"{host}.example.com"
        url = f"http://127.0.0.1:{self.ports[listener]}{path}"
        async with self.http.request(method, url, headers=sent, data=data) as answer:
            return Reply(answer.status, answer.headers, await answer.text())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with AsyncExitStack() as running:
        here = await running.enter_async_context(Backend("here"))
        there = await running.enter_async_context(Backend("there"))
        asked = await running.enter_async_context(AuthService())
        web = await running.enter_async_context(HttpAuth())
        counting = await running.enter_async_context(LimitService())
        admin, *ports = free_ports(1 + len(LISTENERS))
        by_name = dict(zip(LISTENERS, ports, strict=True))
        behind = {"here": here.port, "there": there.port, "web": web.port}
        behind |= {"auth": asked.port, "limits": counting.port, "dead": free_port(), "door": by_name["door"]}
        case = {
            "settings": SETTINGS,
            "proxy": {"listeners": [listener(name, http, by_name[name]) for name, http in LISTENERS.items()]},
            "upstreams": [upstream(name, port) for name, port in behind.items()],
        }
        made, reports = translate_world(case)
        assert [str(problem) for report in reports.values() for problem in report.errors] == []
        resources = static_resources({"": made}, port=1)
        for each in resources["listeners"]:
            each["address"]["socketAddress"]["portValue"] = by_name[each["name"]]
        at = {"socket_address": {"address": "127.0.0.1", "port_value": admin}}
        node = {"id": "envoy", "cluster": "gateway"}
        bootstrap = {"admin": {"address": at}, "static_resources": resources, "node": node}
        envoy = await running.enter_async_context(running_envoy(tmp_path_factory.mktemp("asked"), bootstrap))
        http = await running.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
        yield World(envoy, by_name, asked, web, counting, http)


def listener(name: str, http: Document, port: int) -> Document:
    return {"name": name, "bindAddress": "127.0.0.1", "bindPort": port, "httpListener": http}


def upstream(name: str, port: int) -> Document:
    found: Document = {"metadata": ref(name), "static": {"hosts": [{"addr": "127.0.0.1", "port": port}]}}
    return {**found, "useHttp2": True} if name in ("auth", "limits", "dead", "door") else found


async def test_nobody_is_asked_unless_a_host_route_or_destination_says_so(world: World) -> None:
    before = len(world.auth.asked)

    for host_name, path in (("free", "/"), ("asked", "/free"), ("asked", "/weighted")):
        assert (await world.ask("auth", host_name, path, x_please="deny")).status == 200

    assert len(world.auth.asked) == before
    for path in ("/asked", "/chosen"):
        assert (await world.ask("auth", "free", path, x_please="deny")).status == 401
    assert len(world.auth.asked) == before + 2


async def test_a_request_that_may_pass_carries_what_the_service_says(world: World) -> None:
    answer = await world.ask("auth", "asked", "/a?b=c", authorization="ann", x_secret="1", x_user="root")

    assert answer.echo["headers"]["x-user"] == "ann"
    assert "x-secret" not in answer.echo["headers"]
    assert answer.headers["x-seen"] == "yes"
    request = world.auth.last.request.http
    assert (request.method, request.path, request.host) == ("GET", "/a?b=c", "asked.example.com")
    assert (await world.envoy.stats("ext_authz.mine.ok"))["http.http.ext_authz.mine.ok"] > 0


async def test_who_a_user_is_only_the_service_says(world: World) -> None:
    for host_name, path in (("asked", "/"), ("free", "/")):
        answer = await world.ask("auth", host_name, path, x_user="root")

        assert "x-user" not in answer.echo["headers"]


async def test_a_request_that_may_not_pass_gets_the_services_answer(world: World) -> None:
    assert (await world.ask("auth", "asked", "/answer")).text == "answered"
    for path in ("/", "/answer"):
        answer = await world.ask("auth", "asked", path, x_please="deny")

        assert (answer.status, answer.text, answer.headers["x-why"]) == (401, "not you", "because")


async def test_the_service_is_told_what_host_route_and_destination_say(world: World) -> None:
    for path, level in (("/", "1"), ("/strict", "2"), ("/facts", "3")):
        assert (await world.ask("auth", "asked", path)).status == 200

        assert dict(world.auth.last.context_extensions) == {"team": "pets", "level": level}


async def test_the_route_is_chosen_anew_after_the_service_changed_headers(world: World) -> None:
    assert (await world.ask("auth", "asked", "/joined")).echo["backend"] == "here"
    assert (await world.ask("auth", "asked", "/joined", x_join="pets")).echo["backend"] == "there"


async def test_a_request_that_comes_to_a_guarded_route_unasked_does_not_pass(world: World) -> None:
    assert (await world.ask("auth", "moving", "/")).echo["backend"] == "there"
    assert (await world.ask("auth", "moving", "/secret/asked")).echo["backend"] == "there"
    assert (await world.ask("auth", "moving", "/secret/asked", x_please="deny")).status == 401
    assert (await world.ask("auth", "moving", "/secret")).status == 403
    assert (await world.ask("auth", "moving", "/secret/free")).status == 403


async def test_requests_are_refused_when_the_service_fails_unless_they_may_pass(world: World) -> None:
    assert (await world.ask("bare", "open", "/")).status == 200
    assert (await world.ask("bare", "shut", "/")).status == 503
    assert (await world.ask("bare", "shut", "/free")).status == 200
    assert (await world.ask("auth", "asked", "/named")).status == 503


async def test_requests_are_refused_when_there_is_no_service(world: World) -> None:
    assert (await world.ask("bare", "default", "/")).status == 403
    assert (await world.ask("bare", "unknown", "/")).status == 403
    assert (await world.ask("bare", "unknown", "/free")).status == 200
    assert (await world.ask("bare", "gone", "/")).status == 403
    assert (await world.ask("bare", "gone-web", "/")).status == 403


async def test_a_service_that_takes_too_long_has_failed(world: World) -> None:
    assert (await world.ask("bare", "impatient", "/", x_please="wait")).status == 403
    world.auth.released.set()


async def test_the_service_gets_the_body(world: World) -> None:
    assert (await world.ask("bare", "bytes", "/", method="POST", data=b"\xff\x00")).status == 200
    assert world.auth.last.request.http.raw_body == b"\xff\x00"

    assert (await world.ask("bare", "short", "/", method="POST", data="0123456789")).status == 200
    assert world.auth.last.request.http.body == "0123456789"
    assert (await world.ask("bare", "short", "/", method="POST", data="0123456789a")).status == 413

    assert (await world.ask("bare", "web", "/", method="POST", data="0123456789a")).status == 200
    assert world.web.asked[-1][3] == b"0123456789"


async def test_a_service_may_speak_plain_http(world: World) -> None:
    answer = await world.ask(
        "bare",
        "web",
        "/a?b=c",
        authorization="ann",
        x_please="pass",
        x_also_this="1",
        x_else="2",
        x_role="none",
        x_group="a",
        x_user="root",
    )

    method, path, told, _ = world.web.asked[-1]
    assert (method, path) == ("GET", "/check/a?b=c")
    assert told["host"] == "web.example.com"
    wanted = {"authorization": "ann", "x-please": "pass", "x-also-this": "1", "x-from": "gateway"}
    assert {name: told.get(name) for name in wanted} == wanted
    assert "x-else" not in told
    seen = answer.echo["headers"]
    assert (seen["x-user"], seen["x-role"]) == ("ann", "admin")
    assert (answer.headers["x-first-group"], seen["x-group"]) == ("a", "b")
    assert "x-inner" not in seen

    denied = await world.ask("bare", "web", "/", x_please="deny")
    assert (denied.status, denied.text, denied.headers["x-why"]) == (402, "pay first", "because")
    assert "x-inner" not in denied.headers
    assert (await world.ask("bare", "web", "/", x_please="fail")).status == 403


async def test_a_request_that_is_one_too_many_is_refused(world: World) -> None:
    answer = await world.ask("limits", "host", "/", x_count="1")
    assert answer.status == 200
    assert answer.headers["x-ratelimit-remaining"] == "7"
    assert world.limits.asked[-1].domain == "custom"
    assert (await world.ask("limits", "host", "/", x_count="over")).status == 429


async def test_a_routes_limits_take_the_place_of_the_hosts_or_stand_beside_them(world: World) -> None:
    own, of_host = ([("generic_key", name), ("count", "1")] for name in ("own", "host"))
    for path, wanted in (("/", [of_host]), ("/own", [own]), ("/both", [own, of_host])):
        assert (await world.ask("limits", "host", path, x_count="1")).status == 200

        assert world.limits.told == wanted


async def test_limits_before_authorization_leave_those_after_it_alone(world: World) -> None:
    before = len(world.limits.asked)

    assert (await world.ask("limits", "host", "/early", x_count="1")).status == 200

    told = [one.entries[0].value for request in world.limits.asked[before:] for one in request.descriptors]
    assert told == ["early", "host"]


async def test_the_service_is_told_of_each_kind(world: World) -> None:
    found = {}
    before = len(world.limits.asked)
    kinds: dict[str, dict[str, str]] = {
        "/source": {},
        "/destination": {},
        "/address": {},
        "/header": {},
        "/team": {},
        "/none": {},
        "/match": {"x_a": "abc"},
        "/unlike": {},
        "/range": {"x_n": "4"},
        "/ends": {"x_a": "xyz"},
        "/two": {},
    }
    for path, headers in kinds.items():
        assert (await world.ask("limits", "kinds", path, **headers)).status == 200
        found[path] = world.limits.told

    matched = [[("header_match", "matched")]]
    assert found == {
        "/source": [[("source_cluster", "gateway")]],
        "/destination": [[("destination_cluster", "here_ns")]],
        "/address": [[("remote_address", "127.0.0.1")]],
        "/header": [[("p", "/header")]],
        "/team": [[("team", "pets")]],
        "/none": [[("team", "nobody")]],
        "/match": matched,
        "/unlike": matched,
        "/range": matched,
        "/ends": matched,
        "/two": [[("generic_key", "a"), ("generic_key", "b")], [("generic_key", "c")]],
    }
    assert len(world.limits.asked) == before + len(kinds)


async def test_a_descriptor_that_a_request_does_not_have_is_not_told(world: World) -> None:
    before = len(world.limits.asked)
    for path, headers in (
        ("/match", {"x_a": "b"}),
        ("/unlike", {"x_a": "b"}),
        ("/range", {"x_n": "3"}),
        ("/range", {"x_n": "5"}),
        ("/ends", {"x_a": "1z"}),
        ("/", {}),
    ):
        host_name = "free" if path == "/" else "kinds"
        assert (await world.ask("limits", host_name, path, **headers)).status == 200

    assert len(world.limits.asked) == before


async def test_limits_stand_before_authorization_or_after_it(world: World) -> None:
    for name, path, first, over in (
        ("limits", "/before", world.limits, 429),
        ("limits", "/after", world.auth, 401),
        ("first", "/before", world.limits, 429),
        ("first", "/after", world.auth, 401),
    ):
        counts = [len(world.auth.asked), len(world.limits.asked)]
        answer = await world.ask(name, "ordered", path, x_please="deny", x_count="over")

        assert answer.status == over, (name, path)
        new = [len(world.auth.asked) - counts[0], len(world.limits.asked) - counts[1]]
        assert new == [first is world.auth, first is world.limits]


async def test_a_limit_may_be_each_users_as_the_authorization_service_names_them(world: World) -> None:
    assert (await world.ask("limits", "ordered", "/user", authorization="ann")).status == 200

    assert world.limits.told == [[("user", "ann")]]


async def test_a_limit_that_nobody_counts_holds_or_not_as_the_settings_say(world: World) -> None:
    assert (await world.ask("lenient", "limited", "/")).status == 200
    assert (await world.ask("gone", "limited", "/")).status == 200
    assert (await world.ask("strict", "limited", "/")).status == 500
