"""Instances of EC2, found by their tags: they come and go, and stay when EC2 does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.aws import Aws, Instance
from tests.support.backends import Backend
from tests.support.ports import free_port
from tests.support.stack import Stack, to_upstream, virtual_service
from tests.support.traffic import undisturbed
from tests.support.waiting import eventually

pytestmark = pytest.mark.e2e

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG"
WEB = {"app": "pets", "stage": "*live*"}
SPEC = {
    "region": "eu-central-1",
    "secretRef": {"name": "aws", "namespace": "gloo-system"},
    "filters": [{"key": "app"}, {"kvPair": {"key": "stage", "value": "*live*"}}],
}


@pytest.fixture
async def aws() -> AsyncIterator[Aws]:
    async with Aws({KEY: SECRET}) as running:
        yield running


@pytest.fixture
async def stack(tmp_path: Path, aws: Aws) -> AsyncIterator[Stack]:
    secret = tmp_path / "secrets" / "gloo-system" / "aws.yaml"
    secret.parent.mkdir(parents=True)
    secret.write_text(yaml.safe_dump({"aws": {"accessKey": KEY, "secretKey": SECRET}}))
    stack = Stack(
        tmp_path, settings={"directorySecretSource": {"directory": str(tmp_path)}, "refreshRate": "1s"}
    )
    stack.settings["gloo"] |= {"awsOptions": {"ec2Endpoint": aws.address}}
    async with stack:
        yield stack


async def test_instances_come_and_go(stack: Stack, aws: Aws, tmp_path: Path) -> None:
    port = free_port()

    async def backends() -> set[str]:
        answers = await asyncio.gather(*(stack.get("/") for _ in range(12)))
        return {answer.headers.get("x-backend", str(answer.status)) for answer in answers}

    async with (
        Backend("one", port=port),
        Backend("two", host="127.0.0.2", port=port),
        Backend("three", host="127.0.0.3", port=port),
    ):
        one = Instance(private="127.0.0.1", public="127.0.0.3", tags=WEB)
        aws.instances = [
            one,
            Instance(private="127.0.0.9", tags=WEB | {"stage": "very live indeed"}),
            Instance(private="127.0.0.9", tags={"stage": "*live*"}),
            Instance(private="127.0.0.9", tags=WEB, state="stopped"),
            Instance(private="", tags=WEB),
            Instance(private="127.0.0.2", tags=WEB),
        ]
        await stack.put("Upstream", "pets", {"awsEc2": SPEC | {"port": port}})
        await stack.put("VirtualService", "pets", virtual_service(to_upstream("/", "pets")))
        await eventually(backends, until=lambda found: found == {"one", "two"})
        await stack.status_is("Accepted", "Upstream", "pets")
        assert aws.forged == []

        async with undisturbed(stack.http_port, "example.com") as traffic:
            aws.instances.append(Instance(private="127.0.0.3", tags=WEB))
            await eventually(backends, until=lambda found: found == {"one", "two", "three"})
            aws.instances = [one]
            await eventually(backends, until=lambda found: found == {"one"})
            await traffic.flows()

            aws.trouble = 503
            await stack.status_is(
                "Warning", "Upstream", "pets", saying="EC2 answers HTTP 503, Busy: come again"
            )
            assert await backends() == {"one"}
        aws.trouble = 0
        await stack.status_is("Accepted", "Upstream", "pets")

        public = SPEC | {"port": port, "publicIp": True}
        await stack.put("Upstream", "pets", {"awsEc2": public})
        await eventually(backends, until=lambda found: found == {"three"})
        aws.instances = [replace(one, state="terminated")]
        await eventually(backends, until=lambda found: found == {"503"})


async def test_what_was_found_outlives_a_restart_while_ec2_is_away(
    stack: Stack, aws: Aws, tmp_path: Path
) -> None:
    async with Backend("one") as one:
        await stack.stop_process("gloo")
        flags = ["--state-dir", str(tmp_path / "state")]
        stack.start_role("gloo", flags=flags)
        await stack.ready("gloo")
        aws.instances = [Instance(private="127.0.0.1", tags=WEB)]
        spec: dict[str, Any] = {"awsEc2": SPEC | {"port": one.port}}
        await stack.put("Upstream", "pets", spec)
        await stack.put("VirtualService", "pets", virtual_service(to_upstream("/", "pets")))
        await stack.answers("/")
        await eventually(lambda: list((tmp_path / "state").glob("*.snapshot")))

        await stack.stop_process("gloo")
        aws.trouble = 500
        stack.start_role("gloo", flags=flags)
        await stack.ready("gloo")
        await stack.status_is("Rejected", "Upstream", "pets", saying="awsEc2: EC2 answers HTTP 500")
        assert (await stack.get("/")).status == 200
        aws.keys.clear()
        aws.trouble = 0
        await stack.status_is("Rejected", "Upstream", "pets", saying="EC2 answers HTTP 403, and no XML")
        aws.keys[KEY] = SECRET
        await stack.status_is("Accepted", "Upstream", "pets")
        assert (await stack.get("/")).status == 200
