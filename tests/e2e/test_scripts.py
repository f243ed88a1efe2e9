"""Code that filters run: it comes once a route uses it, outlives Consul, and is no part of any listener."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.backends import Backend
from tests.support.site import Site
from tests.support.stack import Stack, direct, to_upstream
from tests.support.traffic import undisturbed
from tests.support.waiting import eventually

pytestmark = pytest.mark.e2e

LISTENERS = "/stats?filter=lds.update_success|listener_modified|downstream_cx_drain_close"
MOST_BYTES = 20_000  # of a listener, as JSON


def greeting(text: str) -> dict[str, Any]:
    template = {"headers": {"x-greeting": {"text": text}}, "parseBodyBehavior": "DontParse"}
    return {"responseTransforms": [{"responseTransformation": {"transformationTemplate": template}}]}


async def code(stack: Stack) -> dict[str, bool]:
    """Whether Envoy has the code of each script before the router; it does not show those behind it."""
    dump = json.loads(await stack.envoy("/config_dump?resource=ecds_filters"))
    found = [each["ecds_filter"] for each in dump["configs"]]
    return {each["name"]: "default_source_code" in each["typed_config"] for each in found}


@pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])
async def test_code_comes_with_its_first_use_and_touches_no_listener(tmp_path: Path, delta: bool) -> None:
    async with Stack(tmp_path, delta=delta) as stack, Backend("pets") as backend:
        await stack.register("pets", backend.port)
        await stack.status_is("Accepted", "Upstream", "pets")
        site, other = Site(stack, "pets"), Site(stack, "other")
        await site.serve(to_upstream("/", "pets"))
        await other.serve(direct("/", "other"))
        before = await stack.envoy(LISTENERS)
        assert set((await code(stack)).values()) == {False}
        assert len(await stack.envoy("/config_dump?resource=dynamic_listeners")) < MOST_BYTES

        async with undisturbed(stack.http_port, other.domain, saying=["other"]):
            for staged in (
                {"regular": greeting("hello")},
                {"early": greeting("hello")},
                {"postRouting": greeting("hello")},
            ):
                await site.serve(to_upstream("/", "pets", stagedTransformations=staged))
                answer = await site.get("/")
                assert (answer.status, answer.headers.get("x-greeting")) == (200, "hello"), staged
            await site.serve(to_upstream("/", "pets"))
            assert "x-greeting" not in (await site.get("/")).headers
        assert await stack.envoy(LISTENERS) == before
        await eventually(lambda: code(stack), until=lambda found: not any(found.values()))


async def test_code_goes_after_its_last_use(tmp_path: Path) -> None:
    template = {"headers": {":path": {"text": "/new"}}, "parseBodyBehavior": "DontParse"}
    changed = [{"requestTransformation": {"transformationTemplate": template}}]
    transformed = {"stagedTransformations": {"regular": {"requestTransforms": changed}}}
    async with Stack(tmp_path) as stack, Backend("pets") as backend:
        await stack.register("pets", backend.port)
        await stack.status_is("Accepted", "Upstream", "pets")
        site = Site(stack, "pets")
        rewritten = to_upstream("/old", "pets", prefixRewrite="/new")
        await site.serve(rewritten)
        async with undisturbed(stack.http_port, site.domain, "/old", saying=['"/new"'], pause=0.001):
            for _ in range(10):
                await site.serve(to_upstream("/old", "pets", **transformed))
                await site.serve(rewritten)
        await eventually(lambda: code(stack), until=lambda found: not any(found.values()))


async def test_a_new_envoy_has_the_code_from_the_last_good_snapshot(tmp_path: Path) -> None:
    flags = ["--state-dir", str(tmp_path / "state")]
    async with Stack(tmp_path) as stack:
        await stack.stop_process("gloo")
        stack.start_role("gloo", flags=flags)
        await stack.ready("gloo")
        site = Site(stack, "pets")
        greeted = {"stagedTransformations": {"regular": greeting("hello")}}
        await site.serve({**direct("/", "pets"), "options": greeted})
        assert (await site.get("/")).headers["x-greeting"] == "hello"
        assert await stack.stop_process("gloo") == 0
        await stack.consul.kill()
        await stack.stop_process("envoy")

        stack.start_role("gloo", flags=flags)
        stack.start_envoy("envoy", stack.admin_port)

        await site.live()
        assert (await site.get("/")).headers["x-greeting"] == "hello"
