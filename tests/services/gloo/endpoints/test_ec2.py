"""Asking EC2 for instances: one question for all who ask the same, and what becomes of answers of no use."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from protos import gloo
from services.gloo.endpoints.ec2 import NO_KEY, Fleets, literal
from services.gloo.features.aws_ec2 import Fleet
from shared.codec.decode import decode
from shared.ref import Ref
from shared.report import Report
from shared.sigv4 import Key
from tests.support.aws import Aws, Instance
from tests.support.waiting import eventually

KEY, SECRET = Key(id="AKID", secret="wJalr"), Ref("ns", "aws")
PETS, CATS = Ref("ns", "pets"), Ref("ns", "cats")


def spec(**fields: Any) -> gloo.AwsEc2UpstreamSpec:
    made = decode(gloo.AwsEc2UpstreamSpec, {"region": "eu-central-1", **fields}, Report())
    assert made is not None
    return made


class Following:
    """Fleets that are followed, and what was told of them last."""

    def __init__(self, own: Key | None, endpoint: str, keys: Mapping[Ref, Key]) -> None:
        self.told: dict[Ref, Fleet] = {}
        self.fleets = Fleets(self.told.update, keys.get, own=own, endpoint=endpoint, period=1.0)

    async def asks(self, ref: Ref, **fields: Any) -> Fleet:
        self.told.pop(ref, None)
        self.fleets.want({ref: spec(**fields)})
        return await eventually(lambda: self.told[ref])


@contextlib.asynccontextmanager
async def following(
    endpoint: str, *, own: Key | None = KEY, keys: Mapping[Ref, Key] | None = None
) -> AsyncIterator[Following]:
    found = Following(own, endpoint, keys or {})
    task = asyncio.create_task(found.fleets.run())
    try:
        yield found
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def aws() -> AsyncIterator[Aws]:
    async with Aws({KEY.id: KEY.secret}) as running:
        running.instances = [Instance(private=f"10.0.0.{i}", tags={"a": "b"}) for i in (10, 9, 2, 1, 3)]
        yield running


async def test_all_pages_are_read_and_addresses_sorted(aws: Aws) -> None:
    async with following(aws.address) as found:
        fleet = await found.asks(PETS, filters=[{"key": "a"}])

        addresses = tuple(f"10.0.0.{i}" for i in (1, 2, 3, 9, 10))
        assert fleet == Fleet(addresses=addresses, asked=True)
        assert found.fleets.state() == {"ns.pets": "5 instances"}


async def test_who_asks_the_same_is_one_question(aws: Aws) -> None:
    async with following(aws.address) as found:
        same = [{"key": "a"}, {"kvPair": {"key": "b", "value": "c"}}]
        found.fleets.want({PETS: spec(filters=same), CATS: spec(filters=same[::-1], port=81)})
        await found.fleets.settled(10)

        assert found.told.keys() == {PETS, CATS}
        assert len(aws.questions) == 1
        found.fleets.want({})
        assert found.fleets.state() == {}


async def test_an_answer_of_no_use_is_told_and_asked_for_again(aws: Aws) -> None:
    async with following(aws.address, own=None, keys={SECRET: Key(id="AKID", secret="hush")}) as found:
        assert await found.asks(PETS) == Fleet(problem=NO_KEY)
        unread = await found.asks(PETS, secretRef={"name": "other", "namespace": "ns"})
        assert unread == Fleet(problem="the key in the Secret is not read yet")
        forged = await found.asks(PETS, secretRef={"name": "aws", "namespace": "ns"})
        assert forged == Fleet(problem="EC2 answers HTTP 403, and no XML")

    for endpoint in ("http://127.0.0.1:1", "https://[", "nonsense"):
        async with following(endpoint) as found:
            assert (await found.asks(PETS)).problem.startswith("no usable answer: ")

    async with following(aws.address) as found:
        aws.trouble = 503
        assert await found.asks(PETS) == Fleet(problem="EC2 answers HTTP 503, Busy: come again")
        aws.trouble = 0
        await eventually(lambda: found.told[PETS].asked and not found.told[PETS].problem)
        aws.trouble = 500
        await eventually(lambda: found.told[PETS].problem)
        assert (found.told[PETS].asked, len(found.told[PETS].addresses)) == (True, 5)


def test_values_of_tags_stand_for_themselves() -> None:
    assert literal("a*b?c\\d") == "a\\*b\\?c\\\\d"
