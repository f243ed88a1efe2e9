"""The protocol's rules beyond the scenarios, as conversations without sockets."""

from __future__ import annotations

import pytest

from services.gloo.resources import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, TypeUrl, resource
from services.gloo.xds import Options
from services.gloo.xds.subscription import Verdict
from tests.services.gloo.xds.drivers import Driver, Scripted

FULL = [pytest.param(CLUSTER, id="CDS"), pytest.param(LISTENER, id="LDS")]
PARTIAL = [pytest.param(ROUTES, id="RDS"), pytest.param(ENDPOINTS, id="EDS"), pytest.param(SECRET, id="SDS")]
ALL = FULL + PARTIAL
DIALECTS = [pytest.param(False, id="sotw"), pytest.param(True, id="delta")]


def talk(*, delta: bool, **options: float) -> tuple[Driver, Scripted]:
    wire = Scripted(delta=delta, options=Options(**{"removal_grace": 0, **options}))  # type: ignore[arg-type]
    return Driver(wire), wire


@pytest.fixture(params=DIALECTS)
def both(request: pytest.FixtureRequest) -> tuple[Driver, Scripted]:
    return talk(delta=request.param)


@pytest.fixture
def sotw() -> tuple[Driver, Scripted]:
    return talk(delta=False)


@pytest.fixture
def delta() -> tuple[Driver, Scripted]:
    return talk(delta=True)


Talk = tuple[Driver, Scripted]


# --- nonces and answers -----------------------------------------------------------------------------------


async def test_a_stale_request_changes_nothing(sotw: Talk) -> None:
    client, wire = sotw
    client.publish(ROUTES, a="a1", b="b1")
    await client.subscribe(ROUTES, "a")
    old = (await client.receive(ROUTES)).nonce
    client.publish(ROUTES, a="a2")
    await client.receive(ROUTES)

    client.names[ROUTES] = {"b"}
    await client.ask(ROUTES, nonce=old)

    assert wire.receipts[-1].verdict is Verdict.STALE
    await client.silent(ROUTES)
    client.publish(ROUTES, b="b2")
    await client.silent(ROUTES)


async def test_a_stale_delta_request_still_subscribes(delta: Talk) -> None:
    client, wire = delta
    client.publish(ROUTES, a="a1", b="b1")
    await client.subscribe(ROUTES, "a")
    await client.receive(ROUTES)

    await client.ask(ROUTES, subscribe=("b",), nonce="no such nonce")

    assert wire.receipts[-1].verdict is Verdict.STALE
    assert (await client.receive(ROUTES)).content == {"b1"}
    await client.ask(ROUTES, unsubscribe=("a",), nonce="no such nonce", error="nor refused anything")
    client.publish(ROUTES, a="a2", b="b2")
    assert (await client.receive(ROUTES)).content == {"b2"}
    await client.silent(ROUTES)


@pytest.mark.parametrize("kind", ALL)
async def test_a_nonce_belongs_to_its_stream(both: Talk, kind: TypeUrl) -> None:
    """One of another stream answers nothing, and what the request asks for is answered."""
    client, wire = both
    client.publish(kind, a="a1")
    await client.subscribe(kind, "a")
    old = (await client.receive(kind)).nonce
    client.publish(kind, a="a2")

    client.reconnect()
    await client.ask(kind, subscribe=("a",), nonce=old, error="of the other stream")

    assert wire.receipts[-1].flight is None
    assert (await client.receive(kind)).content == {"a2"}
    await client.silent(kind)


async def test_a_response_sent_twice_has_two_nonces(sotw: Talk) -> None:
    client, _ = sotw
    client.publish(ROUTES, a="a1")
    await client.subscribe(ROUTES, "a")
    first = await client.receive(ROUTES)
    await client.unsubscribe(ROUTES, "a")

    await client.subscribe(ROUTES, "a")

    second = await client.receive(ROUTES)
    assert (second.content, second.version) == (first.content, first.version)
    assert second.nonce != first.nonce


async def test_only_an_error_makes_a_refusal(both: Talk) -> None:
    client, wire = both
    client.publish(CLUSTER, a="a1")
    await client.subscribe(CLUSTER)
    await client.receive(CLUSTER, answer=False)

    client.offered[CLUSTER] = "some other version"
    await client.answer(CLUSTER)

    assert wire.receipts[-1].verdict is Verdict.ACKED
    assert wire.session.subscriptions[CLUSTER].acked


async def test_an_error_makes_a_refusal_whatever_the_version(both: Talk) -> None:
    client, wire = both
    client.publish(CLUSTER, a="a1")
    await client.subscribe(CLUSTER)
    await client.receive(CLUSTER, answer=False)

    client.version[CLUSTER] = client.offered[CLUSTER]
    await client.answer(CLUSTER, refuse="")

    assert wire.receipts[-1].verdict is Verdict.NACKED
    await client.silent(CLUSTER)


@pytest.mark.parametrize("kind", ALL)
async def test_a_later_request_supersedes_an_earlier_one(sotw: Talk, kind: TypeUrl) -> None:
    client, _ = sotw
    client.publish(kind, a="a1", b="b1")

    await client.subscribe(kind, "a")
    client.names[kind] = {"b"}
    await client.ask(kind)

    assert (await client.receive(kind)).content == {"b1"}
    await client.silent(kind)


@pytest.mark.parametrize("kind", ALL)
async def test_a_name_asked_for_twice_comes_once(delta: Talk, kind: TypeUrl) -> None:
    client, _ = delta
    client.publish(kind, a="a1")

    await client.ask(kind, subscribe=("a", "a", "b", "b"))

    response = await client.receive(kind)
    assert (response.names, response.removed) == (("a",), {"b"})
    await client.silent(kind)


@pytest.mark.parametrize("kind", FULL)
async def test_the_last_one_gone_is_an_empty_set(sotw: Talk, kind: TypeUrl) -> None:
    client, _ = sotw
    client.publish(kind, a="a1")
    client.publish(ROUTES, r="r1")
    await client.subscribe(kind)
    await client.receive(kind)

    client.publish(kind, a="")

    assert (await client.receive(kind)).content == frozenset()
    await client.silent(kind)


@pytest.mark.parametrize("kind", ALL)
async def test_a_refused_version_is_not_sent_again_until_it_changes(both: Talk, kind: TypeUrl) -> None:
    client, wire = both
    client.publish(kind, a="a1")
    await client.subscribe(kind, "a")
    await client.receive(kind)
    client.publish(kind, a="bad")

    await client.receive(kind, refuse="no good")

    assert wire.receipts[-1].verdict is Verdict.NACKED
    assert [r.name for r in wire.receipts[-1].guilty] == ["a"]
    await client.silent(kind)
    client.publish(kind, a="a3")
    assert (await client.receive(kind)).content == {"a3"}
    await client.silent(kind)


@pytest.mark.parametrize("kind", ALL)
async def test_the_version_before_a_refused_one_is_sent_again(both: Talk, kind: TypeUrl) -> None:
    """A refusal may have applied half of it."""
    client, _ = both
    client.publish(kind, a="a1")
    await client.subscribe(kind, "a")
    await client.receive(kind)
    client.publish(kind, a="bad")
    await client.receive(kind, refuse="no good")

    client.publish(kind, a="a1")

    assert (await client.receive(kind)).content == {"a1"}
    await client.silent(kind)


@pytest.mark.parametrize("kind", ALL)
async def test_a_refusal_that_names_one_resource_costs_only_that_one(both: Talk, kind: TypeUrl) -> None:
    client, wire = both
    client.publish(kind, **{f"r-{n}": f"r-{n} v1" for n in range(6)})
    await client.subscribe(kind, *(f"r-{n}" for n in range(6)))
    await client.receive(kind)
    client.publish(kind, **{f"r-{n}": f"r-{n} v2" for n in range(4)})

    await client.receive(kind, refuse="Error adding/updating cluster(s) r-2: not like this")

    assert [r.name for r in wire.receipts[-1].guilty] == ["r-2"]
    rest = {"r-0 v2", "r-1 v2", "r-3 v2"}
    unchanged = {"r-2 v1", "r-4 v1", "r-5 v1"} if kind in (CLUSTER, LISTENER) and not wire.delta else set()
    assert (await client.receive(kind)).content == rest | unchanged
    await client.silent(kind)


@pytest.mark.parametrize("kind", ALL)
async def test_a_refusal_that_names_nobody_is_narrowed_down(both: Talk, kind: TypeUrl) -> None:
    client, wire = both
    names = [f"r{n}" for n in range(64)]
    await client.subscribe(kind, *names)
    client.publish(kind, **{name: f"{name} good" for name in names})
    await client.receive(kind)
    client.publish(kind, **{name: f"{name} better" for name in names} | {"r37": "poison"})

    delivered: set[str] = set()
    pushes = 0
    while response := await wire.read(kind):
        pushes += 1
        client.nonce[kind], client.offered[kind] = response.nonce, response.version
        bad = "poison" in response.bodies
        await client.answer(kind, refuse="invalid" if bad else None)
        if not bad:
            delivered |= {body for body in response.bodies if body.endswith("better")}

    assert pushes <= 2 * 6 + 1
    assert delivered == {f"{name} better" for name in names if name != "r37"}
    assert [r.name for r in wire.receipts[-1].guilty] in ([], ["r37"])
    assert set(wire.session.subscriptions[kind].refused) == {"r37"}
    guilty = [receipt.guilty for receipt in wire.receipts if receipt.guilty]
    assert [[r.name for r in group] for group in guilty] == [["r37"]]


async def test_a_refusal_is_forgotten_after_a_while(both: Talk) -> None:
    client, wire = both
    client.publish(CLUSTER, a="a1")
    await client.subscribe(CLUSTER)
    await client.receive(CLUSTER, refuse="the port is taken")
    await client.silent(CLUSTER)

    at = wire.session.wake_at(wire.now)
    assert at == wire.now + wire.options.refusal_retry
    wire.now += wire.options.refusal_retry

    assert (await client.receive(CLUSTER)).content == {"a1"}


async def test_a_refusal_is_forgotten_on_reconnect(both: Talk) -> None:
    client, _ = both
    client.publish(CLUSTER, a="a1")
    await client.subscribe(CLUSTER)
    await client.receive(CLUSTER, refuse="no")

    client.reconnect()
    await client.subscribe(CLUSTER)

    assert (await client.receive(CLUSTER)).content == {"a1"}


async def test_a_newer_request_supersedes_and_changes_join(both: Talk) -> None:
    client, _ = both
    await client.subscribe(CLUSTER)
    client.publish(CLUSTER, a="a1")
    client.publish(CLUSTER, a="a2")
    client.publish(CLUSTER, b="b1")

    assert (await client.receive(CLUSTER)).content == {"a2", "b1"}
    await client.silent(CLUSTER)


async def test_a_client_that_answers_nothing_is_not_sent_everything(both: Talk) -> None:
    client, wire = both
    await client.subscribe(ENDPOINTS, "a")
    received = 0
    for version in range(100):
        client.publish(ENDPOINTS, a=f"a{version}")
        received += await wire.read(ENDPOINTS) is not None

    assert received == wire.options.max_unanswered
    assert len(wire.session.subscriptions[ENDPOINTS].flights) <= wire.options.max_unanswered
    wire.now += wire.options.ack_deadline
    assert (await client.receive(ENDPOINTS)).content == {"a99"}


async def test_an_early_answer_in_sotw_leaves_the_last_push_open(sotw: Talk) -> None:
    client, wire = sotw
    client.publish(ENDPOINTS, a="a1")
    await client.subscribe(ENDPOINTS, "a")
    first = await client.receive(ENDPOINTS, answer=False)
    client.publish(ENDPOINTS, a="a2")
    await client.receive(ENDPOINTS, answer=False)

    await client.ask(ENDPOINTS, nonce=first.nonce)
    assert wire.receipts[-1].verdict is Verdict.STALE
    await client.answer(ENDPOINTS)

    assert wire.receipts[-1].verdict is Verdict.ACKED
    assert not wire.session.subscriptions[ENDPOINTS].flights


async def test_a_late_refusal_under_a_new_nonce_is_taken_back_by_the_acceptance(sotw: Talk) -> None:
    """Envoy, having kept its answers back while it warmed a cluster, sends them like that."""
    client, wire = sotw
    client.publish(CLUSTER, a="a1")
    await client.subscribe(CLUSTER)
    await client.receive(CLUSTER)
    client.publish(CLUSTER, a="bad")
    await client.receive(CLUSTER, answer=False)
    client.publish(CLUSTER, a="good")
    await client.receive(CLUSTER, answer=False)

    await client.answer(CLUSTER, refuse="about the bad one")
    await client.answer(CLUSTER)

    assert wire.receipts[-1].verdict is Verdict.ACKED
    await client.silent(CLUSTER)
    assert not wire.session.subscriptions[CLUSTER].refused
    assert wire.session.subscriptions[CLUSTER].settled(wire.now, 1)


async def test_a_refusal_stands_though_the_subscription_changes_after_it(sotw: Talk) -> None:
    client, wire = sotw
    client.publish(ENDPOINTS, a="a1", b="b1")
    await client.subscribe(ENDPOINTS, "a")
    await client.receive(ENDPOINTS)
    client.publish(ENDPOINTS, a="bad")
    await client.receive(ENDPOINTS, refuse="no")

    await client.subscribe(ENDPOINTS, "b")

    assert (await client.receive(ENDPOINTS)).content == {"b1"}
    await client.silent(ENDPOINTS)
    assert set(wire.session.subscriptions[ENDPOINTS].refused) == {"a"}


# --- subscriptions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FULL)
async def test_the_life_of_a_wildcard(sotw: Talk, kind: TypeUrl) -> None:
    client, _ = sotw
    client.publish(kind, a="a1", b="b1")
    await client.subscribe(kind)
    assert (await client.receive(kind)).content == {"a1", "b1"}

    await client.subscribe(kind, "*", "a")
    assert (await client.receive(kind)).content == {"a1", "b1"}
    client.publish(kind, b="b2")
    assert (await client.receive(kind)).content == {"a1", "b2"}

    await client.unsubscribe(kind, "*")
    await client.silent(kind)
    client.publish(kind, b="b3")
    await client.silent(kind)
    client.publish(kind, a="a2")
    assert (await client.receive(kind)).content == {"a2"}

    await client.unsubscribe(kind, "a")
    client.publish(kind, a="a3", b="b4")
    await client.silent(kind)


@pytest.mark.parametrize("kind", FULL)
async def test_the_life_of_a_delta_wildcard(delta: Talk, kind: TypeUrl) -> None:
    client, _ = delta
    client.publish(kind, a="a1", b="b1")
    await client.subscribe(kind)
    assert (await client.receive(kind)).content == {"a1", "b1"}

    await client.subscribe(kind, "a")
    assert (await client.receive(kind)).content == {"a1"}
    client.publish(kind, b="b2")
    assert (await client.receive(kind)).content == {"b2"}

    await client.unsubscribe(kind, "*")
    client.publish(kind, b="b3")
    await client.silent(kind)
    client.publish(kind, a="a2")
    assert (await client.receive(kind)).content == {"a2"}

    await client.unsubscribe(kind, "a")
    client.publish(kind, a="a3", b="b4")
    await client.silent(kind)


@pytest.mark.parametrize("kind", ALL)
async def test_an_explicit_wildcard_works_for_every_type(both: Talk, kind: TypeUrl) -> None:
    client, _ = both
    client.publish(kind, a="a1", b="b1")

    await client.subscribe(kind, "*")

    assert (await client.receive(kind)).content == {"a1", "b1"}
    await client.silent(kind)


@pytest.mark.parametrize("kind", PARTIAL)
async def test_no_names_mean_nothing_where_there_is_no_wildcard(both: Talk, kind: TypeUrl) -> None:
    client, _ = both
    client.publish(kind, a="a1")

    await client.subscribe(kind)

    await client.silent(kind)


@pytest.mark.parametrize("kind", PARTIAL)
async def test_a_name_asked_for_anew_is_sent_though_unchanged(sotw: Talk, kind: TypeUrl) -> None:
    client, _ = sotw
    client.publish(kind, a="a1", b="b1")
    await client.subscribe(kind, "a", "b")
    await client.receive(kind)
    await client.unsubscribe(kind, "b")
    await client.silent(kind)

    await client.subscribe(kind, "b")

    assert (await client.receive(kind)).content == {"b1"}
    await client.silent(kind)


@pytest.mark.parametrize("kind", ALL)
async def test_subscribing_again_is_answered(delta: Talk, kind: TypeUrl) -> None:
    client, _ = delta
    client.publish(kind, a="a1", b="b1")
    await client.subscribe(kind, "a", "b")
    await client.receive(kind)

    await client.subscribe(kind, "a")

    assert (await client.receive(kind)).content == {"a1"}
    await client.silent(kind)


@pytest.mark.parametrize("kind", ALL)
async def test_unsubscribing_what_was_never_subscribed_is_ignored(delta: Talk, kind: TypeUrl) -> None:
    client, _ = delta
    client.publish(kind, a="a1")
    await client.subscribe(kind, "a")
    await client.receive(kind)

    await client.unsubscribe(kind, "phantom")

    await client.silent(kind)


@pytest.mark.parametrize("kind", FULL)
async def test_unsubscribing_a_name_the_wildcard_covers_is_answered(delta: Talk, kind: TypeUrl) -> None:
    client, _ = delta
    client.publish(kind, a="a1")
    await client.subscribe(kind)
    await client.receive(kind)
    await client.subscribe(kind, "a", "b")
    assert (await client.receive(kind)).removed == {"b"}

    await client.unsubscribe(kind, "a", "b")

    response = await client.receive(kind)
    assert (response.content, response.removed) == ({"a1"}, {"b"})
    await client.silent(kind)


# --- reconnecting -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
async def test_initial_versions_bring_differences_and_removals_only(delta: Talk, kind: TypeUrl) -> None:
    client, _ = delta
    client.publish(kind, same="same1", old="old1", gone="gone1")
    await client.subscribe(kind, "*")
    first = await client.receive(kind)
    held = dict(zip(first.names, first.versions, strict=True))
    client.publish(kind, old="old2", gone="", new="new1")

    client.reconnect()
    await client.ask(kind, subscribe=("*",), versions=held)

    response = await client.receive(kind)
    removed = response.removed or (await client.receive(kind)).removed  # clusters go last
    assert (response.content, removed) == ({"old2", "new1"}, {"gone"})
    await client.silent(kind)


@pytest.mark.parametrize("kind", ALL)
async def test_a_delta_client_that_has_everything_is_sent_nothing(delta: Talk, kind: TypeUrl) -> None:
    client, wire = delta
    client.publish(kind, a="a1", b="b1")
    await client.subscribe(kind, "a", "b")
    first = await client.receive(kind)
    held = dict(zip(first.names, first.versions, strict=True))

    client.reconnect()
    await client.ask(kind, subscribe=("a", "b"), versions=held)

    await client.silent(kind)
    assert wire.session.subscriptions[kind].settled(wire.now, 1)
    client.publish(kind, a="a2")
    assert (await client.receive(kind)).content == {"a2"}


async def test_versions_of_another_control_plane_are_replaced(delta: Talk) -> None:
    client, _ = delta
    client.publish(CLUSTER, a="a1")

    await client.ask(CLUSTER, versions={"a": "v17", "b": "v3"})

    assert (await client.receive(CLUSTER)).content == {"a1"}
    assert (await client.receive(CLUSTER)).removed == {"b"}
    await client.silent(CLUSTER)


@pytest.mark.parametrize("kind", ALL)
async def test_a_sotw_client_that_has_everything_is_sent_nothing(sotw: Talk, kind: TypeUrl) -> None:
    client, wire = sotw
    client.publish(kind, a="a1", b="b1", other="other1")
    await client.subscribe(kind, "a")
    await client.receive(kind)
    await client.subscribe(kind, "b")
    await client.receive(kind)
    client.publish(kind, a="a2")
    await client.receive(kind)

    client.reconnect()
    await client.subscribe(kind)

    await client.silent(kind)
    assert wire.session.subscriptions[kind].acked
    client.publish(kind, b="b2")
    assert "b2" in (await client.receive(kind)).content


@pytest.mark.parametrize("kind", ALL)
async def test_a_sotw_client_that_lacks_one_is_sent_it(sotw: Talk, kind: TypeUrl) -> None:
    client, _ = sotw
    client.publish(kind, a="a1", b="b1")
    await client.subscribe(kind, "a")
    await client.receive(kind)

    client.reconnect()
    await client.subscribe(kind, "b")

    assert "b1" in (await client.receive(kind)).content
    await client.silent(kind)


# --- nothing there ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
async def test_nothing_is_sent_while_the_role_is_unknown(both: Talk, kind: TypeUrl) -> None:
    client, _ = both

    await client.subscribe(kind, "*", "a")
    await client.silent(kind)
    client.publish(kind, a="a1")

    assert (await client.receive(kind)).content == {"a1"}


@pytest.mark.parametrize("kind", FULL)
async def test_an_empty_wildcard_is_answered_once(both: Talk, kind: TypeUrl) -> None:
    """Envoy's start waits for the answer."""
    client, _ = both
    client.publish(ROUTES, r="r1")

    await client.subscribe(kind)

    assert (await client.receive(kind)).content == frozenset()
    await client.silent(kind)


@pytest.mark.parametrize("kind", PARTIAL)
async def test_a_named_type_without_resources_is_silent(sotw: Talk, kind: TypeUrl) -> None:
    client, _ = sotw
    client.publish(kind, a="a1")
    await client.subscribe(kind, "a")
    await client.receive(kind)

    client.publish(kind, a="")

    await client.silent(kind)


# --- warming ----------------------------------------------------------------------------------------------


async def test_a_changed_cluster_brings_its_endpoints_again(both: Talk) -> None:
    client, _ = both
    client.publish(ENDPOINTS, a="ends of a", b="ends of b")
    client.publish(CLUSTER, a="a1", b="b1")
    await client.subscribe(CLUSTER)
    await client.receive(CLUSTER)
    await client.subscribe(ENDPOINTS, "a", "b")
    await client.receive(ENDPOINTS)

    client.publish(CLUSTER, a="a2")

    assert "a2" in (await client.receive(CLUSTER, answer=False)).content
    assert (await client.receive(ENDPOINTS)).content == {"ends of a"}
    await client.answer(CLUSTER)
    await client.silent(CLUSTER, ENDPOINTS)


async def test_endpoints_under_another_name_come_again_too(both: Talk) -> None:
    client, _ = both
    client.publish(ENDPOINTS, **{"a-123": "ends of a"})
    client.publish(CLUSTER, a="served by \x05a-123")
    await client.subscribe(CLUSTER)
    await client.receive(CLUSTER)
    await client.subscribe(ENDPOINTS, "a-123")
    await client.receive(ENDPOINTS)

    client.publish(CLUSTER, a="again served by \x05a-123")

    await client.receive(CLUSTER)
    assert (await client.receive(ENDPOINTS)).content == {"ends of a"}


async def test_asking_again_with_an_answered_nonce_is_answered(sotw: Talk) -> None:
    """So Envoy asks for the endpoints of a cluster it warms anew."""
    client, _ = sotw
    client.publish(ENDPOINTS, a="a1", b="b1")
    await client.subscribe(ENDPOINTS, "a", "b")
    await client.receive(ENDPOINTS)

    await client.ask(ENDPOINTS)

    assert (await client.receive(ENDPOINTS)).content == {"a1", "b1"}
    await client.silent(ENDPOINTS)


def test_equal_content_is_an_equal_version() -> None:
    assert resource("a", b"x").version == resource("a", b"x").version
