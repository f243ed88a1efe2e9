"""The conformance scenarios: 18 outlines over the four types, both dialects, without and with sockets.

Each also asserts that nothing more than necessary is sent. The bodies are ``<name><version>``, so that a
response tells its resources in State-of-the-World too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import permutations

import pytest

from services.gloo.resources import CLUSTER, ENDPOINTS, LISTENER, ROUTES, TypeUrl
from tests.services.gloo.xds.drivers import Driver, Scripted, streaming

FULL = [pytest.param(CLUSTER, id="CDS"), pytest.param(LISTENER, id="LDS")]
PARTIAL = [pytest.param(ROUTES, id="RDS"), pytest.param(ENDPOINTS, id="EDS")]
ALL = FULL + PARTIAL
PAIRS = [
    pytest.param(*(each.values[0] for each in pair), id="-".join(str(each.id) for each in pair))
    for pair in permutations(ALL, 2)
    if [each.id for each in pair] != ["EDS", "CDS"]  # a new cluster brings its endpoints again
]
TRANSPORTS = ["scripted", "aggregated", "separate"]


async def _driver(transport: str, delta: bool) -> AsyncIterator[Driver]:
    if transport == "scripted":
        yield Driver(Scripted(delta=delta))
        return
    async with streaming(delta=delta, aggregated=transport == "aggregated") as streams:
        yield Driver(streams)


@pytest.fixture(params=TRANSPORTS)
async def sotw(request: pytest.FixtureRequest) -> AsyncIterator[Driver]:
    async for driver in _driver(request.param, delta=False):
        yield driver


@pytest.fixture(params=TRANSPORTS)
async def delta(request: pytest.FixtureRequest) -> AsyncIterator[Driver]:
    async for driver in _driver(request.param, delta=True):
        yield driver


@pytest.mark.parametrize("kind", FULL)
async def test_a_wildcard_gets_everything_in_one_response(sotw: Driver, kind: TypeUrl) -> None:
    sotw.publish(kind, a="a1", b="b1")

    await sotw.subscribe(kind)

    assert (await sotw.receive(kind)).content == {"a1", "b1"}
    await sotw.silent(kind)


@pytest.mark.parametrize("kind", FULL)
async def test_a_wildcard_gets_the_full_set_again_when_one_changes(sotw: Driver, kind: TypeUrl) -> None:
    sotw.publish(kind, a="a1", b="b1")
    await sotw.subscribe(kind)
    first = await sotw.receive(kind)

    sotw.publish(kind, b="b2")

    second = await sotw.receive(kind)
    assert second.content == {"a1", "b2"}
    assert second.version != first.version
    await sotw.silent(kind)


@pytest.mark.parametrize("kind", FULL)
async def test_a_wildcard_gets_the_full_set_when_one_is_added(sotw: Driver, kind: TypeUrl) -> None:
    sotw.publish(kind, a="a1")
    await sotw.subscribe(kind)
    await sotw.receive(kind)

    sotw.publish(kind, b="b1")

    assert (await sotw.receive(kind)).content == {"a1", "b1"}
    await sotw.silent(kind)


@pytest.mark.parametrize("kind", ALL)
async def test_a_named_subscription_gets_only_its_names(sotw: Driver, kind: TypeUrl) -> None:
    sotw.publish(kind, a="a1", b="b1", c="c1")

    await sotw.subscribe(kind, "a", "b")

    assert (await sotw.receive(kind)).content == {"a1", "b1"}
    await sotw.silent(kind)


@pytest.mark.parametrize("kind", ALL)
async def test_a_named_delta_subscription_gets_only_its_names(delta: Driver, kind: TypeUrl) -> None:
    delta.publish(kind, a="a1", b="b1", c="c1")

    await delta.subscribe(kind, "a", "b")

    response = await delta.receive(kind)
    assert response.content == {"a1", "b1"}
    assert not response.removed
    await delta.silent(kind)


@pytest.mark.parametrize("kind", FULL)
async def test_a_change_of_a_named_one_brings_the_subscribed_set(sotw: Driver, kind: TypeUrl) -> None:
    sotw.publish(kind, a="a1", b="b1", c="c1")
    await sotw.subscribe(kind, "a", "b")
    await sotw.receive(kind)

    sotw.publish(kind, a="a2", c="c2")

    assert (await sotw.receive(kind)).content == {"a2", "b1"}
    await sotw.silent(kind)


@pytest.mark.parametrize("kind", PARTIAL)
async def test_a_change_of_a_named_one_brings_that_one(sotw: Driver, kind: TypeUrl) -> None:
    sotw.publish(kind, a="a1", b="b1", c="c1")
    await sotw.subscribe(kind, "a", "b")
    await sotw.receive(kind)

    sotw.publish(kind, a="a2", c="c2")

    assert (await sotw.receive(kind)).content == {"a2"}
    await sotw.silent(kind)


@pytest.mark.parametrize("kind", FULL)
async def test_a_missing_name_joins_the_full_set_once_created(sotw: Driver, kind: TypeUrl) -> None:
    sotw.publish(kind, a="a1")
    await sotw.subscribe(kind, "a", "later")
    assert (await sotw.receive(kind)).content == {"a1"}
    await sotw.silent(kind)

    sotw.publish(kind, later="later1")

    assert (await sotw.receive(kind)).content == {"a1", "later1"}
    await sotw.silent(kind)


@pytest.mark.parametrize("kind", PARTIAL)
async def test_a_missing_name_is_sent_alone_once_created(sotw: Driver, kind: TypeUrl) -> None:
    sotw.publish(kind, a="a1")
    await sotw.subscribe(kind, "a", "later")
    assert (await sotw.receive(kind)).content == {"a1"}
    await sotw.silent(kind)

    sotw.publish(kind, later="later1")

    assert (await sotw.receive(kind)).content == {"later1"}
    await sotw.silent(kind)


@pytest.mark.parametrize(("one", "other"), PAIRS)
async def test_two_types_do_not_touch_each_other(sotw: Driver, one: TypeUrl, other: TypeUrl) -> None:
    await two_types_are_apart(sotw, one, other)


@pytest.mark.parametrize("kind", FULL)
async def test_dropping_a_name_keeps_the_others_coming(sotw: Driver, kind: TypeUrl) -> None:
    sotw.publish(kind, a="a1", b="b1")
    await sotw.subscribe(kind, "a", "b")
    await sotw.receive(kind)
    await sotw.unsubscribe(kind, "a")
    await sotw.silent(kind)

    sotw.publish(kind, b="b2")

    assert "b2" in (await sotw.receive(kind)).content
    await sotw.silent(kind)


@pytest.mark.parametrize("kind", PARTIAL)
async def test_dropping_a_name_leaves_only_the_kept_ones(sotw: Driver, kind: TypeUrl) -> None:
    sotw.publish(kind, a="a1", b="b1")
    await sotw.subscribe(kind, "a", "b")
    await sotw.receive(kind)
    await sotw.unsubscribe(kind, "a")
    await sotw.silent(kind)

    sotw.publish(kind, a="a2", b="b2")

    assert (await sotw.receive(kind)).content == {"b2"}
    await sotw.silent(kind)


@pytest.mark.parametrize("kind", ALL)
async def test_dropping_all_names_brings_silence(sotw: Driver, kind: TypeUrl) -> None:
    sotw.publish(kind, a="a1", b="b1")
    await sotw.subscribe(kind, "a", "b")
    await sotw.receive(kind)

    await sotw.unsubscribe(kind, "a", "b")
    await sotw.silent(kind)
    sotw.publish(kind, a="a2", b="b2")

    await sotw.silent(kind)


@pytest.mark.parametrize("kind", ALL)
async def test_names_subscribed_one_by_one_are_answered_one_by_one(delta: Driver, kind: TypeUrl) -> None:
    delta.publish(kind, a="a1", b="b1")

    await delta.subscribe(kind, "a")
    assert (await delta.receive(kind)).content == {"a1"}
    await delta.silent(kind)
    await delta.subscribe(kind, "b")
    assert (await delta.receive(kind)).content == {"b1"}
    await delta.silent(kind)


@pytest.mark.parametrize("kind", ALL)
async def test_an_update_of_one_sends_only_that_one(delta: Driver, kind: TypeUrl) -> None:
    delta.publish(kind, a="a1", b="b1")
    await delta.subscribe(kind, "a", "b")
    first = await delta.receive(kind)

    delta.publish(kind, a="a2")

    second = await delta.receive(kind)
    assert (second.content, second.names) == ({"a2"}, ("a",))
    assert set(second.versions).isdisjoint(first.versions)
    assert second.nonce != first.nonce
    await delta.silent(kind)


@pytest.mark.parametrize("kind", ALL)
async def test_a_missing_name_is_reported_and_delivered_on_creation(delta: Driver, kind: TypeUrl) -> None:
    delta.publish(kind, a="a1")
    await delta.subscribe(kind, "later")
    missing = await delta.receive(kind)
    assert (missing.content, missing.removed) == (frozenset(), {"later"})
    await delta.silent(kind)

    delta.publish(kind, later="later1")

    created = await delta.receive(kind)
    assert (created.content, created.removed) == ({"later1"}, frozenset())
    await delta.silent(kind)


@pytest.mark.parametrize("kind", ALL)
async def test_a_deletion_is_told_and_a_new_one_is_a_new_version(delta: Driver, kind: TypeUrl) -> None:
    delta.publish(kind, a="a1", b="b1")
    await delta.subscribe(kind, "a", "b")
    first = await delta.receive(kind)

    delta.publish(kind, a="")
    gone = await delta.receive(kind)
    await delta.silent(kind)
    delta.publish(kind, a="a2")
    back = await delta.receive(kind)

    assert (gone.content, gone.removed) == (frozenset(), {"a"})
    assert (back.content, back.removed) == ({"a2"}, frozenset())
    assert set(back.versions).isdisjoint(first.versions)
    await delta.silent(kind)


@pytest.mark.parametrize("kind", ALL)
async def test_what_comes_back_as_it_was_is_sent_again(delta: Driver, kind: TypeUrl) -> None:
    delta.publish(kind, a="a1", b="b1")
    await delta.subscribe(kind, "a", "b")
    await delta.receive(kind)
    delta.publish(kind, a="")
    assert (await delta.receive(kind)).removed == {"a"}

    delta.publish(kind, a="a1")

    assert (await delta.receive(kind)).content == {"a1"}
    await delta.silent(kind)


@pytest.mark.parametrize("kind", ALL)
async def test_unsubscribing_one_by_one_ends_their_updates(delta: Driver, kind: TypeUrl) -> None:
    delta.publish(kind, a="a1", b="b1")
    await delta.subscribe(kind, "a", "b")
    await delta.receive(kind)

    await delta.unsubscribe(kind, "a")
    delta.publish(kind, a="a2", b="b2")
    assert (await delta.receive(kind)).content == {"b2"}
    await delta.silent(kind)
    await delta.unsubscribe(kind, "b")
    delta.publish(kind, a="a3", b="b3")

    await delta.silent(kind)


@pytest.mark.parametrize(("one", "other"), PAIRS)
async def test_two_types_over_delta_do_not_touch_each_other(
    delta: Driver, one: TypeUrl, other: TypeUrl
) -> None:
    await two_types_are_apart(delta, one, other)


async def two_types_are_apart(client: Driver, one: TypeUrl, other: TypeUrl) -> None:
    client.publish(one, a="a1")
    client.publish(other, r="r1")
    await client.subscribe(one, "a")
    assert (await client.receive(one)).content == {"a1"}
    await client.subscribe(other, "r")
    assert (await client.receive(other)).content == {"r1"}

    client.publish(other, r="r2")

    assert (await client.receive(other)).content == {"r2"}
    await client.silent(one, other)
