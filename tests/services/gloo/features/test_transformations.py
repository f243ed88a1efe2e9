"""What transformations do to real requests and answers through a real Envoy."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from tests.support.envoy import running_envoy
from tests.support.golden import static_resources, translate_world
from tests.support.ports import free_ports

pytestmark = pytest.mark.asyncio(loop_scope="module")

Document = dict[str, Any]
PET = {"pet": {"name": "Rex", "tags": ["a", "b"], "age": 3, "none": None, "big": 12345678901234567890}}

# A template, the body and headers it is given, and what it comes to (None: the request is refused).
TEMPLATES: list[tuple[str, Any, Document, str | None]] = [
    ("plain", {}, {}, "plain"),
    ("{{ pet.name }} is {{ pet.age }}", PET, {}, "Rex is 3"),
    ("{{ pet.tags.1 }}{{ pet.none }}{{ pet.big }}", PET, {}, "b12345678901234567890"),
    ("{{ pet }}", PET, {}, json.dumps(PET["pet"], sort_keys=True, separators=(",", ":"))),
    ("{{ gone }}", PET, {}, None),
    ('{{ default(gone, "none") }}{{ default(pet.name, "none") }}', PET, {}, "noneRex"),
    ('{{ header("x-user") }}|{{ request_header("X-User") }}|{{ header("no") }}', {}, {"x-user": "u"}, "u|u|"),
    ('{{ exists("pet.name") }} {{ exists("pet.gone") }}', PET, {}, "true false"),
    ('{{ existsIn(pet, "age") }} {{ existsIn(pet, "name.x") }}', PET, {}, "true false"),
    ("{{ body() }}", {"a": 1}, {}, '{"a": 1}'),
    ("{{ context() }}", {"b": [1.5, True, {}], "a": "\u00e9\n"}, {}, '{"a":"\u00e9\\n","b":[1.5,true,{}]}'),
    ('{{ base64_encode("a") }}{{ base64_encode("ab") }}{{ base64_encode("abc") }}', {}, {}, "YQ==YWI=YWJj"),
    ('{{ base64_decode("YQ==") }}{{ base64_decode("YWI=") }}{{ base64_decode("?") }}', {}, {}, "aab"),
    ('{{ base64url_encode("~~?>") }} {{ base64url_decode("fn4_Pg") }}', {}, {}, "fn4_Pg ~~?>"),
    (
        '{{ substring("hello", 1) }} {{ substring("hello", 1, 2) }}|{{ substring("a", 9) }}',
        {},
        {},
        "ello el|",
    ),
    ("{{ upper(pet.name) }}{{ lower(pet.name) }}", PET, {}, "REXrex"),
    ("{{ length(pet.tags) }}{{ length(pet) }}{{ length(pet.name) }}", PET, {}, "253"),
    ("{{ first(pet.tags) }}{{ last(pet.tags) }}{{ at(pet.tags, 0) }}", PET, {}, "aba"),
    ('{{ join(pet.tags, ", ") }}', PET, {}, "a, b"),
    ("{% for tag in pet.tags %}{{ loop.index1 }}{{ tag }}{% endfor %}", PET, {}, "1a2b"),
    ("{% for x in range(3) %}{{ x }}{% if not loop.is_last %},{% endif %}{% endfor %}", {}, {}, "0,1,2"),
    ('{% for k, v in {"b": 1, "a": 2} %}{{ k }}={{ v }};{% endfor %}', {}, {}, "a=2;b=1;"),
    ("{% if pet.age > 5 %}old{% else if pet.age >= 3 %}grown{% else %}young{% endif %}", PET, {}, "grown"),
    ("{% set a = 2 %}{{ a + 3 * 2 ^ 2 - 1 }} {{ 7 % 4 }} {{ 1 / 4 }}", {}, {}, "13 3 0.25"),
    ('{{ "a" + "b" }} {{ "a" in pet.tags and not ("z" in pet.tags) }}', PET, {}, "ab true"),
    ("{{ false or 1 == 1.0 }} {{ 10 < 9 }} {{ pet.none == null }}", PET, {}, "true false true"),
    ("{% set n = 0 %}{% for x in range(4) %}{% set n = n + x %}{% endfor %}{{ n }}", {}, {}, "6"),
    ("{{ 1" + " + 1" * 80 + " }}" + "{% if true %}" * 20 + "a" + "{% endif %}" * 20, {}, {}, "81a"),
    ("{# nothing #}a {{- 1 -}} b {%- if true -%} c {%- endif %} d", {}, {}, "a1bc d"),
    ('{{ int("12") + 1 }} {{ float("1.5") }} {{ round(2.345, 2) }}', {}, {}, "13 1.5 2.35"),
    ("{{ isString(pet.name) }}{{ isNumber(pet.big) }}{{ isObject(pet.tags) }}", PET, {}, "truetruefalse"),
    ('{{ raw_string("a\\"b\\n") }}', {}, {}, 'a\\"b\\n'),
    ("{{ pet.name / 2 }}", PET, {}, None),
    ("{{ 1 / 0 }}", {}, {}, None),
    # What would be code, if texts were
    (']] .. os.exit() -- {{ "\\" .. os.exit() .. \\"" }}', {}, {}, ']] .. os.exit() -- " .. os.exit() .. "'),
    ("{{ pet.x }}", {"pet": {"x": "{{ pet }} ]] \n%1"}}, {}, "{{ pet }} ]] \n%1"),
]


# An expression and its group, the text, what is extracted.
EXPRESSIONS: list[tuple[str, int, str, str]] = [
    ("/users/([^/]+)(?:/.*)?", 1, "/users/ann/x", "ann"),
    ("/users/([^/]+)", 1, "/users/ann/x", ""),
    ("(a+?)(a*)", 1, "aaa", "a"),
    ("(a+)(a*)", 2, "aaa", ""),
    ("(?:(x)|y)+", 1, "yy", ""),
    ("(?i)bearer (.+)", 1, "BEARER Token", "Token"),
    ("(\\d{2,4})-(\\w*)", 1, "123-ab_9", "123"),
    ("(?P<year>[0-9]{4})[[:punct:]].*", 1, "2026-11", "2026"),
    ("([^\\s,;]+)[\\s,;].*", 1, "a,b", "a"),
    ("\\Qa.b\\E\\x2e(.)", 1, "a.b.c", "c"),
    (".*\\b(foo)\\b.*", 1, "a foo b", "foo"),
    (".*\\b(foo)\\b.*", 1, "a food b", ""),
    ("^(a|ab)(c|bcd)$", 1, "abcd", "a"),
    ("(a|ab)(c|bcd)?(d*)", 1, "abd", "ab"),
    ("((a*)*)*b", 1, "aaab", "aaa"),
    ("(x?){3}y", 0, "xxy", "xxy"),
    ("(?s:.)(.)", 1, "ab", "b"),
    ("(caf\u00e9s?)!", 1, "caf\u00e9!", "caf\u00e9"),
    ("(a*)*" * 20 + "b", 0, "a" * 60, ""),
]


def request(**of_template: Any) -> Document:
    return {"transformations": {"requestTransformation": {"transformationTemplate": of_template}}}


def response(**of_template: Any) -> Document:
    return {"transformations": {"responseTransformation": {"transformationTemplate": of_template}}}


def texts(**named: str) -> Document:
    return {name.replace("_", "-"): {"text": text} for name, text in named.items()}


def route(path: str, options: Document) -> Document:
    destination = {"single": {"upstream": {"name": "here", "namespace": "ns"}}}
    return {"matchers": [{"prefix": path}], "routeAction": destination, "options": options}


def extracting(regex: str, group: int = 0, **more: Any) -> Document:
    return {"header": "x-source", "regex": regex, "subgroup": group, **more}


def choosing(**matcher: Any) -> Document:
    return {
        "matcher": matcher,
        "requestTransformation": {
            "transformationTemplate": {"passthrough": {}, "headers": texts(x_a="chosen")}
        },
    }


HEADERS = {
    "headers": {**texts(x_set='{{ header("x-source") }}', x_empty=""), ":path": {"text": "/new?{{ 1 }}"}},
    "headersToAppend": [{"key": "x-more", "value": {"text": "b"}}, {"key": "x-more", "value": {"text": "c"}}],
    "headersToRemove": ["x-gone", "x-kept"],
    "passthrough": {},
}
SLOW = {"body": {}, "regex": "(a*)*" * 20}
REPLACING = {
    "one": extracting("(.*)@.*", 1, mode="SINGLE_REPLACE", replacementText="me"),
    "all": extracting("[aeiou]+", mode="REPLACE_ALL", replacementText="*"),
    "empty": extracting("x*", mode="REPLACE_ALL", replacementText="-"),
}
STAGES = {
    "early": {
        "requestTransforms": [
            {
                "clearRouteCache": True,
                "requestTransformation": {
                    "transformationTemplate": {"passthrough": {}, "headers": {":path": {"text": "/moved"}}}
                },
                "responseTransformation": {
                    "transformationTemplate": {
                        "headers": texts(x_answer='early {{ request_header(":path") }}')
                    }
                },
            }
        ]
    }
}
KEPT = '{"list": [1, null, {}, 1.0], "text": "{{ header("x-source") }}"}'
METADATA = {
    "early": {
        "requestTransforms": [
            {
                "requestTransformation": {
                    "transformationTemplate": {
                        "passthrough": {},
                        "dynamicMetadataValues": [
                            {"key": "plain", "value": {"text": "p"}},
                            {
                                "metadataNamespace": "a.b",
                                "key": "whole",
                                "value": {"text": KEPT},
                                "jsonToProto": True,
                            },
                            {
                                "metadataNamespace": "a.b",
                                "key": "one",
                                "value": {"text": "2.5"},
                                "jsonToProto": True,
                            },
                        ],
                    }
                }
            }
        ]
    },
    "regular": {
        "requestTransforms": [
            {
                "requestTransformation": {
                    "transformationTemplate": {
                        "passthrough": {},
                        "headers": texts(
                            x_plain='{{ dynamic_metadata("plain") }}',
                            x_one='{{ dynamic_metadata("one", "a.b") }}',
                        ),
                    }
                }
            }
        ]
    },
}
BOTH = request(headers=texts(x_a="{{ a }}"))
LONG = {"regex": "/matchslow/" + "(a*)*" * 50}
MATCHERS = [
    {"prefix": "/match/P", "caseSensitive": False},
    {"exact": "/match/exact"},
    {"regex": "/match/r[0-9]+"},
    {"prefix": "/match/h", "headers": [{"name": "x-a", "value": "1"}, {"name": "x-b", "invertMatch": True}]},
    {"prefix": "/match/q", "queryParameters": [{"name": "q", "value": "[0-9]", "regex": True}]},
    {"prefix": "/match/m", "methods": ["PUT"]},
]
JSON_KEYS = {"a.b": {"tmpl": {"text": "{{ body() }}"}}, "kept": {"tmpl": {"text": ""}}}
JSON_KEYS |= {"gone": {"tmpl": {"text": ""}, "overrideEmpty": True}}
POST_ROUTING = {
    "postRouting": {
        "requestTransforms": [
            {
                "requestTransformation": {
                    "transformationTemplate": {
                        "headers": {
                            **texts(x_try='{{ header("x-envoy-attempt-count") }}'),
                            ":path": {"text": "/behind"},
                        },
                        "body": {"text": "{{ a }}"},
                    }
                }
            }
        ],
        "responseTransforms": [
            {
                "responseTransformation": {
                    "transformationTemplate": {
                        "passthrough": {},
                        "headers": texts(x_asked='{{ request_header(":path") }}'),
                    }
                }
            }
        ],
    }
}
DETAILS = {
    "early": {
        "responseTransforms": [
            {
                "responseCodeDetails": "via_upstream",
                "responseTransformation": {
                    "transformationTemplate": {"passthrough": {}, "headers": texts(x_early="of the upstream")}
                },
            }
        ]
    },
    "regular": {
        "responseTransforms": [
            {
                "responseCodeDetails": "direct_response",
                "responseTransformation": {
                    "transformationTemplate": {"passthrough": {}, "headers": texts(x_regular="of Envoy")}
                },
            }
        ]
    },
}
BY_STATUS = [
    {
        "matchers": [{"name": ":status", "value": "404"}],
        "responseTransformation": {
            "transformationTemplate": {
                "headers": {":status": {"text": "200"}},
                "body": {"text": 'nothing at {{ request_header(":path") }}'},
                "parseBodyBehavior": "DontParse",
            }
        },
    },
    {"responseTransformation": {"headerBodyTransform": {}}},
]
ROUTES = [
    *(route(f"/templates/{i}/", request(body={"text": text})) for i, (text, *_) in enumerate(TEMPLATES)),
    *(
        route(
            f"/expressions/{i}/",
            request(extractors={"x": extracting(regex, group)}, body={"text": '[{{ extraction("x") }}]'}),
        )
        for i, (regex, group, *_) in enumerate(EXPRESSIONS)
    ),
    route("/headers", request(**HEADERS)),
    route("/replacing", request(extractors=REPLACING, body={"text": "{{ one }} {{ all }} {{ empty }}"})),
    route("/advanced", request(advancedTemplates=True, body={"text": "{{ pet/tags/1 }}"})),
    route("/merge", request(extractors={"pet.id": extracting("(.*)")}, mergeExtractorsToBody={})),
    route("/keys", request(mergeJsonKeys={"jsonKeys": JSON_KEYS})),
    route("/escaped", request(escapeCharacters=True, body={"text": '{"a":"{{ a }}"}'})),
    route("/ignoring", request(ignoreErrorOnParse=True, body={"text": '{{ default(a, "no JSON") }}'})),
    route("/unparsed", request(parseBodyBehavior="DontParse", body={"text": "<{{ body() }}>"})),
    route("/injected", request(headers=texts(x_a="{{ a }}"))),
    route("/path", request(headers={":path": {"text": "{{ a }}"}})),
    route(
        "/all",
        {"transformations": {"requestTransformation": {"headerBodyTransform": {"addRequestMetadata": True}}}},
    ),
    route(
        "/body",
        request(
            extractors={"x": {"body": {}, "regex": "[^:]*: (.*)}", "subgroup": 1}}, body={"text": "{{ x }}"}
        ),
    ),
    route(
        "/answer",
        response(
            headers=texts(x_backend="", x_name="{{ name }}"),
            body={"text": '{{ name }} for {{ request_header("x-user") }}'},
        ),
    ),
    route("/bystatus", {"stagedTransformations": {"regular": {"responseTransforms": BY_STATUS}}}),
    route("/stages", {"stagedTransformations": STAGES}),
    route("/moved", {}),
    route("/matchslow", {"stagedTransformations": {"regular": {"requestTransforms": [choosing(**LONG)]}}}),
    route("/metadata", {"stagedTransformations": METADATA}),
    route("/tunnel", {**request(body={"text": "{{ a }}"}), "upgrades": [{"websocket": {}}]}),
    route("/both", {"transformations": {**BOTH["transformations"], **response()["transformations"]}}),
    route("/slow", request(extractors={"x": SLOW}, parseBodyBehavior="DontParse")),
    route(
        "/match",
        {
            "stagedTransformations": {
                "regular": {"requestTransforms": [choosing(**each) for each in MATCHERS]}
            }
        },
    ),
    route("/around", {}),
    route("/details", {"stagedTransformations": DETAILS}),
    {
        "matchers": [{"prefix": "/direct"}],
        "directResponseAction": {"status": 200},
        "options": {"stagedTransformations": DETAILS},
    },
    route("/post", {"stagedTransformations": POST_ROUTING, "retries": {"retryOn": "5xx", "numRetries": 1}}),
    {
        "matchers": [{"prefix": "/destination"}],
        "routeAction": {
            "multi": {
                "destinations": [
                    {
                        "destination": {"upstream": {"name": "here", "namespace": "ns"}},
                        "weight": 1,
                        "options": {"stagedTransformations": POST_ROUTING},
                    }
                ]
            }
        },
    },
]
HOST = {
    "name": "gloo-system.default",
    "domains": ["*"],
    "routes": ROUTES,
    "options": {
        **request(headers=texts(x_around="yes"), passthrough={}),
        "stagedTransformations": {
            "postRouting": {
                "requestTransforms": [
                    {
                        "requestTransformation": {
                            "transformationTemplate": {"passthrough": {}, "headers": texts(x_behind="yes")}
                        }
                    }
                ]
            }
        },
        "includeRequestAttemptCount": True,
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    headers: Document
    text: str

    @property
    def seen(self) -> Any:
        assert self.status == 200, self
        return json.loads(self.text)


class Gateway:
    """A running Envoy with the routes above, and the backend behind it."""

    def __init__(self, http: aiohttp.ClientSession, port: int) -> None:
        self.http = http
        self.port = port

    async def ask(self, path: str, body: Any = None, method: str = "POST", **headers: str) -> Answer:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        text = body if isinstance(body, (str, bytes)) else None if body is None else json.dumps(body)
        url = f"http://127.0.0.1:{self.port}{path}"
        async with self.http.request(method, url, data=text, headers=given) as answer:
            return Answer(
                status=answer.status,
                headers={name.lower(): value for name, value in answer.headers.items()},
                text=await answer.text(),
            )


async def answer_as_told(asked: web.Request) -> web.StreamResponse:
    """Tells what it saw, or answers what the header ``x-answer`` says; echoes a WebSocket."""
    if asked.headers.get("upgrade") == "websocket":
        socket = web.WebSocketResponse()
        await socket.prepare(asked)
        await socket.send_str(await socket.receive_str())
        return socket
    text = asked.headers.get("x-answer")
    if text is None:
        headers = {name.lower(): ", ".join(asked.headers.getall(name)) for name in asked.headers}
        seen = {"method": asked.method, "path": asked.raw_path, "headers": headers}
        text = json.dumps({**seen, "body": await asked.text()})
    status = int(asked.headers.get("x-status", "200"))
    return web.Response(status=status, text=text, headers={"x-backend": "b", "x-twice": "1"})


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    port, admin, behind = free_ports(3)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer_as_told)
    hosts = [{"addr": "127.0.0.1", "port": behind}]
    upstream = {"metadata": {"name": "here", "namespace": "ns"}, "static": {"hosts": hosts}}
    world, reports = translate_world({"virtualHost": HOST, "upstreams": [upstream]})
    assert [str(report) for report in reports.values() if not report.clean] == []
    at = {"socket_address": {"address": "127.0.0.1", "port_value": admin}}
    config = {"admin": {"address": at}, "static_resources": static_resources({"": world}, port=port)}
    async with AsyncExitStack() as stack:
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", behind).start()
        http = await stack.enter_async_context(aiohttp.ClientSession())
        await stack.enter_async_context(running_envoy(tmp_path_factory.mktemp("envoy"), config))
        yield Gateway(http, port)


async def test_templates_come_to_what_inja_makes_of_them(gateway: Gateway) -> None:
    for i, (text, body, headers, wanted) in enumerate(TEMPLATES):
        answer = await gateway.ask(f"/templates/{i}/", body, **headers)
        if wanted is None:
            assert (answer.status, answer.text) == (400, "bad request"), text
        else:
            assert answer.status == 200, (text, answer)
            assert answer.seen["body"] == wanted, text


async def test_expressions_match_as_re2_does(gateway: Gateway) -> None:
    for i, (regex, group, text, wanted) in enumerate(EXPRESSIONS):
        answer = await gateway.ask(f"/expressions/{i}/", x_source=text)
        assert answer.seen["body"] == f"[{wanted}]", (regex, group, text)


async def test_headers_are_removed_then_set_then_added(gateway: Gateway) -> None:
    seen = (await gateway.ask("/headers", x_source="s", x_empty="1", x_gone="1", x_more="a")).seen

    assert seen["path"] == "/new?1"
    assert seen["headers"]["x-set"] == "s"
    assert seen["headers"]["x-more"] == "a, b, c"
    assert not {"x-empty", "x-gone"} & seen["headers"].keys()


async def test_extractors_replace_a_group_or_all(gateway: Gateway) -> None:
    assert (await gateway.ask("/replacing", x_source="aoe@b")).seen["body"] == "me@b *@b -a-o-e-@-b-"


async def test_bodies_are_made_and_merged(gateway: Gateway) -> None:
    async def body_of(path: str, body: Any = None, **headers: str) -> str:
        return str((await gateway.ask(path, body, **headers)).seen["body"])

    assert await body_of("/advanced", PET) == "b"
    assert json.loads(await body_of("/merge", PET, x_source="7")) == {"pet": {**PET["pet"], "id": "7"}}
    merged = json.loads(await body_of("/keys", {"a": {"c": 1}, "kept": 2, "gone": 3}))
    assert merged == {"a": {"b": '{"a": {"c": 1}, "kept": 2, "gone": 3}', "c": 1}, "kept": 2, "gone": ""}
    assert json.loads(await body_of("/escaped", {"a": 'x"\\\n\u0001'})) == {"a": 'x"\\\n\u0001'}
    assert await body_of("/ignoring", "<a/>") == "no JSON"
    assert await body_of("/unparsed", "<a/>") == "<<a/>>"
    assert await body_of("/body", {"a": "b"}) == '"b"'
    whole = json.loads(await body_of("/all?q=1", "text", x_a="1"))
    assert (whole["httpMethod"], whole["path"], whole["queryString"]) == ("POST", "/all", "q=1")
    assert (whole["body"], whole["headers"]["x-a"]) == ("text", "1")


@pytest.mark.parametrize(
    "body", ["{", "[1,]", '{"a" 1}', '"\t"', "01", "1 2", '"\\ud800"', "nul", "1e999", "[" * 101 + "]" * 101]
)
async def test_a_body_that_is_no_json_is_refused(gateway: Gateway, body: str) -> None:
    answer = await gateway.ask("/injected", body)

    assert (answer.status, answer.text) == (400, "bad request")


async def test_values_cannot_add_headers_or_requests(gateway: Gateway) -> None:
    for value in ("a\r\nx-b: 1", "a\nb", "a\0"):
        assert (await gateway.ask("/injected", {"a": value})).status == 400
    for value in ("/a HTTP/1.1\r\n\r\nGET /b", "/a b", "/a\n", ""):
        assert (await gateway.ask("/path", {"a": value})).status == 400, value
    assert (await gateway.ask("/injected", {"a": "ok"})).seen["headers"]["x-a"] == "ok"


async def test_an_expression_that_would_take_long_is_given_up(gateway: Gateway) -> None:
    answer = await gateway.ask("/slow", "a" * 300_000)

    choosing = await gateway.ask("/matchslow/" + "a" * 50_000, method="GET")

    assert (answer.status, answer.text) == (413, "payload too large")
    assert (choosing.status, choosing.text) == (413, "payload too large")


async def test_a_refusal_is_not_transformed(gateway: Gateway) -> None:
    answer = await gateway.ask("/both", {})

    assert (answer.status, answer.text) == (400, "bad request")


async def test_metadata_are_for_what_comes_later(gateway: Gateway) -> None:
    headers = (await gateway.ask("/metadata", x_source="s")).seen["headers"]

    assert (headers["x-plain"], headers["x-one"]) == ("p", "2.5")


async def test_an_upgraded_connection_is_let_through(gateway: Gateway) -> None:
    async with gateway.http.ws_connect(f"http://127.0.0.1:{gateway.port}/tunnel") as socket:
        await socket.send_str("hello")

        assert await socket.receive_str(timeout=10) == "hello"


async def test_answers_are_transformed(gateway: Gateway) -> None:
    answer = await gateway.ask("/answer", x_user="ann", x_answer='{"name": "Rex"}')

    assert (answer.status, answer.text) == (200, "Rex for ann")
    assert answer.headers["x-name"] == "Rex"
    assert "x-backend" not in answer.headers
    assert answer.headers["content-length"] == "11"
    assert answer.headers["x-twice"] == "1"


async def test_an_answer_that_cannot_be_transformed_is_an_error(gateway: Gateway) -> None:
    answer = await gateway.ask("/answer", x_answer="<html>")
    refused = await gateway.ask("/answer", x_answer="<html>", x_status="403")
    empty = await gateway.ask("/answer", method="HEAD", x_answer="")

    assert (answer.status, answer.text) == (500, "the answer could not be transformed")
    assert (refused.status, refused.text) == (403, "the answer could not be transformed")
    assert (empty.status, empty.text) == (200, "")


async def test_answers_choose_their_transformation(gateway: Gateway) -> None:
    missing = await gateway.ask("/bystatus", x_answer="gone", x_status="404")
    other = await gateway.ask("/bystatus", x_answer="text")

    assert (missing.status, missing.text) == (200, "nothing at /bystatus")
    whole = json.loads(other.text)
    assert (whole["headers"][":status"], whole["headers"]["x-backend"], whole["body"]) == ("200", "b", "text")


async def test_a_new_path_can_choose_the_route_anew(gateway: Gateway) -> None:
    answer = await gateway.ask("/stages")

    assert answer.seen["path"] == "/moved"
    assert answer.seen["headers"]["x-around"] == "yes", "of the virtual host, as /moved has no options"
    assert answer.headers["x-answer"] == "early /stages"


async def test_answers_are_told_apart_by_how_they_came_about(gateway: Gateway) -> None:
    passed = await gateway.ask("/details", x_answer="{}")
    direct = await gateway.ask("/direct")

    assert passed.headers["x-early"] == "of the upstream"
    assert direct.headers["x-regular"] == "of Envoy"
    for answer, others in ((passed, "x-regular"), (direct, "x-early")):
        assert not {others, "x-gloo-response-code-details"} & answer.headers.keys()


async def test_each_try_is_transformed_after_routing(gateway: Gateway) -> None:
    first = await gateway.ask("/post", {"a": "b"})
    answer = await gateway.ask("/post", {"a": "b"}, x_status="503")
    refused = await gateway.ask("/post", "{", x_status="503")

    assert (first.seen["headers"]["x-try"], first.headers["x-asked"]) == ("1", "/post")
    seen = json.loads(answer.text)
    assert (answer.status, seen["headers"]["x-try"]) == (503, "2")
    assert (seen["path"], seen["body"]) == ("/behind", "b")
    assert answer.headers["x-asked"] == "/behind", "as the first try has left it"
    assert (refused.status, refused.text) == (400, "bad request")


async def test_a_destination_transforms_after_routing(gateway: Gateway) -> None:
    assert (await gateway.ask("/destination", {"a": "b"})).seen["body"] == "b"


async def test_the_innermost_options_count_alone(gateway: Gateway) -> None:
    around, match = [(await gateway.ask(path)).seen["headers"] for path in ("/around", "/match")]

    assert (around["x-around"], around["x-behind"]) == ("yes", "yes")
    assert not {"x-around", "x-behind"} & match.keys()


@pytest.mark.parametrize(
    ("path", "method", "headers", "chosen"),
    [
        ("/match/p/1?x", "GET", {}, True),
        ("/match/exact?q", "GET", {}, True),
        ("/match/exact/x", "GET", {}, False),
        ("/match/r12", "GET", {}, True),
        ("/match/r12x", "GET", {}, False),
        ("/match/h", "GET", {"x_a": "1"}, True),
        ("/match/h", "GET", {"x_a": "2"}, False),
        ("/match/h", "GET", {"x_a": "1", "x_b": "1"}, False),
        ("/match/q?a=b&q=1", "GET", {}, True),
        ("/match/q?q=a", "GET", {}, False),
        ("/match/m", "PUT", {}, True),
        ("/match/m", "GET", {}, False),
    ],
)
async def test_requests_choose_their_transformation(
    gateway: Gateway, path: str, method: str, headers: dict[str, str], chosen: bool
) -> None:
    seen = (await gateway.ask(path, method=method, **headers)).seen

    assert (seen["headers"].get("x-a") == "chosen") is chosen
