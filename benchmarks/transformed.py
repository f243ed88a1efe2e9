"""What transformations cost Envoy: its processor time a request, on routes with one and on a plain one."""

from __future__ import annotations

import asyncio
import json
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.idle import processor_seconds
from tests.support.envoy import running_envoy
from tests.support.golden import static_resources, translate_world
from tests.support.ports import free_ports

Document = dict[str, Any]
REQUESTS = 3000
AT_ONCE = 8
PETS = json.dumps({"pets": [{"id": i, "name": f"pet {i}", "tags": ["a", "b"]} for i in range(20)]})


def template(**fields: Any) -> Document:
    return {"transformationTemplate": fields}


def requests(given: Document) -> Document:
    return {"requestTransforms": [{"requestTransformation": given}]}


FROM_HEADER = template(passthrough={}, headers={"x-user": {"text": '{{ header("x-source") }}'}})
FROM_PATH = template(
    passthrough={},
    extractors={"id": {"header": ":path", "regex": "/[a-z]+/([0-9]+)(?:/.*)?", "subgroup": 1}},
    headers={"x-id": {"text": '{{ extraction("id") }}'}},
)
FROM_BODY = template(headers={"x-first": {"text": "{{ pets.0.name }}"}})
BODY = template(body={"text": '{"names": [{% for pet in pets %}"{{ pet.name }}",{% endfor %} ""]}'})
STAGES: dict[str, Document] = {
    "plain": {},
    "a header from another": {"regular": requests(FROM_HEADER)},
    "the same, with each try": {"postRouting": requests(FROM_HEADER)},
    "the same, in two stages": {"early": requests(FROM_HEADER), "regular": requests(FROM_HEADER)},
    "a header from the path": {"regular": requests(FROM_PATH)},
    "a header from the body": {"regular": requests(FROM_BODY)},
    "another body": {"regular": requests(BODY)},
    "another body of the answer": {"regular": {"responseTransforms": [{"responseTransformation": BODY}]}},
}


async def main(samples: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            front, behind, *admin = free_ports(4)
            backend = [{"matchers": [{"prefix": "/"}], "directResponseAction": {"status": 200, "body": PETS}}]
            routes = [route(i, stages) for i, stages in enumerate(STAGES.values())]
            await stack.enter_async_context(envoy(Path(folder), behind, admin[0], backend, []))
            upstream = {
                "metadata": {"name": "behind", "namespace": "ns"},
                "static": {"hosts": [{"addr": "127.0.0.1", "port": behind}]},
            }
            running = await stack.enter_async_context(
                envoy(Path(folder), front, admin[1], routes, [upstream])
            )
            http = await stack.enter_async_context(
                aiohttp.ClientSession(
                    f"http://127.0.0.1:{front}", connector=aiohttp.TCPConnector(limit=AT_ONCE)
                )
            )
            print(f"microseconds of Envoy's processor time a request with {len(PETS)} bytes both ways")
            for i, name in enumerate(STAGES):
                await ask(http, i, REQUESTS // 10)
                before = processor_seconds(running.process.pid)
                await ask(http, i, REQUESTS)
                used = processor_seconds(running.process.pid) - before
                print(f"  {name:28} {used / REQUESTS * 1e6:6.0f}")


def route(i: int, stages: Document) -> Document:
    return {
        "matchers": [{"prefix": f"/{'abcdefghij'[i]}/"}],
        "routeAction": {"single": {"upstream": {"name": "behind", "namespace": "ns"}}},
        **({"options": {"stagedTransformations": stages}} if stages else {}),
    }


def envoy(folder: Path, port: int, admin: int, routes: list[Document], upstreams: list[Document]) -> Any:
    host = {"name": "gloo-system.default", "domains": ["*"], "routes": routes}
    world, reports = translate_world({"virtualHost": host, "upstreams": upstreams})
    assert all(report.clean for report in reports.values()), reports
    address = {"socket_address": {"address": "127.0.0.1", "port_value": admin}}
    resources = static_resources({"": world}, port=port)
    return running_envoy(folder, {"admin": {"address": address}, "static_resources": resources})


async def ask(http: aiohttp.ClientSession, i: int, times: int) -> None:
    async def some() -> None:
        for _ in range(times // AT_ONCE):
            async with http.post(f"/{'abcdefghij'[i]}/7/x", data=PETS, headers={"x-source": "ann"}) as answer:
                await answer.read()
                assert answer.status == 200, await answer.text()

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))
