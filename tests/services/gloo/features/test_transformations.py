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


def template(text: str) -> Document:
    return {"transformationTemplate": {"body": {"text": text}}}


def request(**of_template: Any) -> Document:
    return {"transformations": {"requestTransformation": {"transformationTemplate": of_template}}}


def response(**of_template: Any) -> Document:
    return {"transformations": {"responseTransformation": {"transformationTemplate": of_template}}}


def texts(**named: str) -> Document:
    return {name.replace("_", "-"): {"text": text} for name, text in named.items()}


def route(path: str, options: Document) -> Document:
    destination = {"single": {"upstream": {"name": "here", "namespace": "ns"}}}
    return {"matchers": [{"prefix": path}], "routeAction": destination, "options": options}


ROUTES = [
    *(
        route(f"/templates/{i}/", {"transformations": {"requestTransformation": template(text)}})
        for i, (text, *_) in enumerate(TEMPLATES)
    ),
]


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


async def answer_as_told(asked: web.Request) -> web.Response:
    """Tells what it saw, or answers what the header ``x-answer`` says with ``x-status``."""
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
    world, reports = translate_world({"routes": ROUTES, "upstreams": [upstream]})
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
