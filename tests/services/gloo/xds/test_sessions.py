"""The order of the types on one stream: make before break, removals last, no wait without an end."""

from __future__ import annotations

import pytest

from services.gloo.resources import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from services.gloo.xds import Options
from tests.services.gloo.xds.drivers import Driver, Scripted

DIALECTS = [pytest.param(False, id="sotw"), pytest.param(True, id="delta")]
Talk = tuple[Driver, Scripted]


def to(*clusters: str) -> str:
    """A body that mentions clusters as protobuf does: their length, then their name."""
    return "to " + " ".join(f"{chr(len(name))}{name}" for name in clusters)


@pytest.fixture(params=DIALECTS)
async def talk(request: pytest.FixtureRequest) -> Talk:
    """A client in step: clusters a and b, a listener, two route configurations."""
    wire = Scripted(delta=request.param, options=Options(removal_grace=5))
    client = Driver(wire)
    client.publish(CLUSTER, a="a1", b="b1")
    client.publish(ENDPOINTS, a="ends a", b="ends b")
    client.publish(LISTENER, one="one")
    client.publish(ROUTES, r=to("a"), s=to("b"))
    for kind, names in ((CLUSTER, ()), (ENDPOINTS, ("a", "b")), (LISTENER, ()), (ROUTES, ("r", "s"))):
        await client.subscribe(kind, *names)
        await client.receive(kind)
    return client, wire


async def test_a_route_waits_for_its_new_cluster_and_no_other_does(talk: Talk) -> None:
    client, _ = talk
    client.publish(ROUTES, r=to("a", "new"), s=to("b", "a"))
    client.publish(CLUSTER, new="new1")

    assert "new1" in (await client.receive(CLUSTER, answer=False)).content
    assert (await client.receive(ROUTES)).content == {to("b", "a")}
    await client.silent(ROUTES)
    await client.answer(CLUSTER)

    assert (await client.receive(ROUTES)).content == {to("a", "new")}
    await client.silent(CLUSTER, ROUTES)


async def test_a_route_waits_no_longer_than_the_deadline(talk: Talk) -> None:
    client, wire = talk
    client.publish(ROUTES, r=to("new"))
    client.publish(CLUSTER, new="new1")
    await client.receive(CLUSTER, answer=False)
    await client.silent(ROUTES)

    waits = []
    while (at := wire.session.wake_at(wire.now)) is not None:
        waits.append(at - wire.now)
        wire.now = at
        if await wire.read(ROUTES, due=False):
            break

    assert sum(waits) == wire.options.ack_deadline


async def test_a_changed_cluster_is_waited_for_briefly(talk: Talk) -> None:
    """It serves in its older version while it warms, however long that takes."""
    client, wire = talk
    client.publish(ROUTES, r=to("a") + " edited")
    client.publish(CLUSTER, a="a2")
    await client.receive(CLUSTER, answer=False)
    await client.silent(ROUTES)

    wire.now += wire.options.change_deadline

    assert (await client.receive(ROUTES)).content == {to("a") + " edited"}


async def test_a_refused_cluster_holds_nobody_up(talk: Talk) -> None:
    client, _ = talk
    client.publish(ROUTES, r=to("new"))
    client.publish(CLUSTER, new="bad")

    await client.receive(CLUSTER, refuse="no")

    assert (await client.receive(ROUTES)).content == {to("new")}
    await client.silent(CLUSTER)


async def test_a_listener_waits_for_its_new_cluster_while_another_goes(talk: Talk) -> None:
    client, wire = talk
    client.publish(LISTENER, tcp=to("new"), two="two")
    client.publish(CLUSTER, new="new1")
    await client.receive(CLUSTER, answer=False)

    first = await client.receive(LISTENER)
    await client.silent(LISTENER)
    await client.answer(CLUSTER)
    second = await client.receive(LISTENER)

    assert first.content == ({"two"} if wire.delta else {"one", "two"})
    assert second.content == ({to("new")} if wire.delta else {"one", "two", to("new")})
    assert first.version != second.version or wire.delta


async def test_a_listener_goes_only_together_with_what_takes_its_place(talk: Talk) -> None:
    """The new one may have the old one's port."""
    client, wire = talk
    client.publish(LISTENER, one="", other=to("new"))
    client.publish(CLUSTER, new="new1")
    await client.receive(CLUSTER, answer=False)
    await client.silent(LISTENER)

    await client.answer(CLUSTER)

    response = await client.receive(LISTENER)
    assert response.content == {to("new")}
    assert response.removed == ({"one"} if wire.delta else set())


async def test_a_cluster_goes_after_the_routes_that_used_it_and_a_grace(talk: Talk) -> None:
    client, wire = talk
    client.publish(ROUTES, s=to("a"))
    client.publish(CLUSTER, b="")

    assert (await client.receive(ROUTES, answer=False)).content == {to("a")}
    wire.now += wire.options.ack_deadline / 2
    await client.silent(CLUSTER)
    await client.answer(ROUTES)
    await client.silent(CLUSTER)
    assert wire.session.wake_at(wire.now) == wire.now + wire.options.removal_grace
    wire.now += wire.options.removal_grace

    response = await client.receive(CLUSTER)
    assert response.content == (set() if wire.delta else {"a1"})
    assert response.removed == ({"b"} if wire.delta else set())
    await client.silent(CLUSTER, ROUTES)


async def test_what_is_added_meanwhile_comes_with_the_cluster_to_go(talk: Talk) -> None:
    client, wire = talk
    client.publish(CLUSTER, b="", c="c1")

    response = await client.receive(CLUSTER)

    assert response.content == ({"c1"} if wire.delta else {"a1", "b1", "c1"})
    assert not response.removed


async def test_a_cluster_that_returns_in_time_never_went(talk: Talk) -> None:
    client, wire = talk
    client.publish(CLUSTER, b="")
    await client.silent(CLUSTER)

    client.publish(CLUSTER, b="b1")
    await client.silent(CLUSTER)
    wire.now += 60

    await client.silent(CLUSTER)
    assert not wire.session.retiring


async def test_a_cluster_removed_twice_has_its_grace_twice(talk: Talk) -> None:
    client, wire = talk
    client.publish(CLUSTER, b="")
    await client.silent(CLUSTER)
    wire.now += 4
    client.publish(CLUSTER, b="b1")
    await client.silent(CLUSTER)

    client.publish(CLUSTER, b="")
    wire.now += 4
    await client.silent(CLUSTER)
    wire.now += 5

    assert await wire.read(CLUSTER)


async def test_a_refused_route_keeps_the_clusters_it_replaced(talk: Talk) -> None:
    client, wire = talk
    client.publish(ROUTES, s="broken")
    client.publish(CLUSTER, b="")
    await client.receive(ROUTES, refuse="no good")
    wire.now += 60
    await client.silent(CLUSTER, ROUTES)

    client.publish(ROUTES, s=to("a"))
    await client.receive(ROUTES)
    await client.silent(CLUSTER)
    wire.now += wire.options.removal_grace

    assert "b1" not in (await client.receive(CLUSTER)).content


async def test_a_silent_client_keeps_its_old_clusters_no_longer_than_the_deadline(talk: Talk) -> None:
    client, wire = talk
    client.publish(ROUTES, s=to("a"))
    client.publish(CLUSTER, b="")
    await client.receive(ROUTES, answer=False)

    wire.now += wire.options.ack_deadline
    await client.silent(CLUSTER)
    wire.now += wire.options.removal_grace

    assert await wire.read(CLUSTER)


async def test_endpoints_go_after_their_cluster(talk: Talk) -> None:
    client, wire = talk
    client.publish(CLUSTER, b="")
    client.publish(ENDPOINTS, b="")
    await client.silent(CLUSTER, ENDPOINTS)

    wire.now += wire.options.removal_grace
    await client.receive(CLUSTER, answer=False)
    await client.silent(ENDPOINTS)
    await client.answer(CLUSTER)

    if wire.delta:
        assert (await client.receive(ENDPOINTS)).removed == {"b"}
    await client.silent(ENDPOINTS)


async def test_routes_go_after_their_listener(talk: Talk) -> None:
    client, wire = talk
    client.publish(LISTENER, one="", two="two")
    client.publish(ROUTES, r="")

    assert "two" in (await client.receive(LISTENER, answer=False)).content
    await client.silent(ROUTES)
    await client.answer(LISTENER)

    if wire.delta:
        assert (await client.receive(ROUTES)).removed == {"r"}
    await client.silent(ROUTES)


async def test_endpoint_changes_wait_for_nobody(talk: Talk) -> None:
    client, _ = talk
    client.publish(ENDPOINTS, a="moved")
    client.publish(CLUSTER, new="new1")

    await client.receive(CLUSTER, answer=False)

    assert (await client.receive(ENDPOINTS)).content == {"moved"}


async def test_routes_wait_for_clusters_still_on_trial(talk: Talk) -> None:
    client, _ = talk
    client.publish(ROUTES, r=to("c"))
    client.publish(CLUSTER, c="c1", d="poison")

    refused = await client.receive(CLUSTER, refuse="one is invalid")
    assert {"c1", "poison"} <= refused.content
    trial = await client.receive(CLUSTER, answer=False)
    assert "c1" in trial.content
    assert "poison" not in trial.content
    await client.silent(ROUTES)
    await client.answer(CLUSTER)

    assert (await client.receive(ROUTES)).content == {to("c")}


async def test_types_are_sent_in_their_order(talk: Talk) -> None:
    client, wire = talk
    client.publish(ROUTES, r=to("a") + "!")
    client.publish(LISTENER, one="one!")
    client.publish(ENDPOINTS, a="ends a!")
    client.publish(CLUSTER, c="c1")
    assert wire.snapshot is not None

    order = []
    while message := wire.session.next(wire.snapshot, wire.now):
        order.append(message.push.type_url)

    assert order == [CLUSTER, ENDPOINTS, LISTENER, ROUTES]
