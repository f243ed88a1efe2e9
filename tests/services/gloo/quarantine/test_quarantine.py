"""What is served, held and tried again, by scripted refusals."""

from __future__ import annotations

from random import Random

import pytest

from services.gloo.quarantine.quarantine import SEARCH_SECONDS
from services.gloo.resources import CLUSTER, LISTENER, ROUTES, Resources, Snapshot, resource
from tests.services.gloo.quarantine.world import RETRY, ROLE, Envoy, World, begun, dislikes, many, routes


def test_nothing_is_replaced_while_nobody_refuses() -> None:
    world = World()
    wanted = routes(many(3))
    world.want(wanted)

    assert world.served()["routes"] is wanted
    assert world.quarantine.wake_at() == float("inf")


def test_other_changes_go_on_while_a_host_is_held_and_nothing_is_refused_again() -> None:
    world, envoy = begun(many(5), dislikes("bad"))
    world.want(routes(many(5, {"h3": "bad"})))
    world.settle(envoy)

    for i in range(10):
        world.want(routes(many(5, {"h3": "bad", "h1": f"new-{i}", "extra": "more"})))
        world.settle(envoy)

        assert world.hosts() == many(5, {"h1": f"new-{i}", "extra": "more"})
    assert len(envoy.refusals) == 1


def test_a_mended_host_is_tried_again_and_one_broken_otherwise_is_held_again() -> None:
    world, envoy = begun(many(2), dislikes("bad", "worse"))
    world.want(routes(many(2, {"h1": "bad"})))
    world.settle(envoy)

    world.want(routes(many(2, {"h1": "worse"})))
    world.settle(envoy)
    assert (world.hosts(), world.held(), len(envoy.refusals)) == (many(2), ["h1"], 2)
    world.want(routes(many(2, {"h1": "mended"})))
    world.settle(envoy)

    assert (world.hosts(), world.held(), len(envoy.refusals)) == (many(2, {"h1": "mended"}), [], 2)


def test_a_host_that_is_gone_is_held_no_more() -> None:
    world, envoy = begun(many(2), dislikes("bad"))
    world.want(routes(many(2, {"new": "bad"})))
    world.settle(envoy)

    world.want(routes(many(2)))

    assert world.held() == []


def test_a_search_whose_envoy_falls_silent_is_given_up() -> None:
    world, envoy = begun(many(3), dislikes("bad"))
    changes = {f"n{i}": "new" for i in range(8)}
    world.want(routes(many(3, changes | {"n1": "bad"})))
    envoy.answer()
    assert world.quarantine.searching(ROLE)

    assert world.quarantine.wake_at() == SEARCH_SECONDS
    world.now = SEARCH_SECONDS
    world.quarantine.disconnected("1")
    assert world.quarantine.tick(world.now) == {ROLE}

    assert not world.quarantine.searching(ROLE)
    next_one = Envoy(world, "2", dislikes("bad"))
    world.settle(next_one)
    assert world.held() == ["n1"]


def test_a_listener_is_tried_again_after_a_while_since_the_machine_may_be_at_fault() -> None:
    world, taken = World(), True
    envoy = Envoy(world, "1", lambda given: "Address already in use" if taken else None, LISTENER)
    world.want(resource("a", b"a"), type_url=LISTENER)
    world.settle(envoy)
    assert world.served(LISTENER) == {}

    taken, envoy.no = False, {}
    assert world.quarantine.wake_at() == RETRY
    world.now = RETRY
    world.quarantine.tick(world.now)
    world.settle(envoy)

    assert set(world.served(LISTENER)) == {"a"}
    assert world.held() == []


def test_what_an_envoy_refused_that_is_gone_is_tried_again_after_a_while() -> None:
    world, envoy = begun(many(2), dislikes("bad"))
    world.want(routes(many(2, {"h1": "bad"})))
    world.settle(envoy)
    assert world.quarantine.wake_at() == float("inf")

    world.quarantine.disconnected("1")
    newer = Envoy(world, "2", lambda given: None)
    world.settle(newer)
    assert world.hosts() == many(2)
    world.quarantine.tick(RETRY)
    world.settle(newer)

    assert world.hosts() == many(2, {"h1": "bad"})


def test_a_restart_keeps_what_is_held_and_sends_nothing_refused_again() -> None:
    world, envoy = begun(many(3), dislikes("bad"))
    poisoned = many(3, {"h1": "bad", "new": "bad"})
    world.want(routes(poisoned))
    world.settle(envoy)
    before, held = world.quarantine.served(ROLE), world.quarantine.held(ROLE)
    assert before is not None

    after = World()
    after.quarantine.restore(ROLE, before, held)
    again = Envoy(after, "1", dislikes("bad"))
    again.has = dict(envoy.has)
    assert after.held() == ["h1", "new"]
    after.want(routes(poisoned))
    after.settle(again)

    assert again.refusals == []
    assert after.served()["routes"].digest == before.of(ROUTES).by_name["routes"].digest
    after.want(routes(poisoned | {"h1": "mended"}))
    after.settle(again)
    assert after.hosts() == many(3, {"h1": "mended"})
    assert after.held() == ["new"]


def test_after_a_restart_the_stored_version_is_what_a_refused_one_goes_back_to() -> None:
    stored = Snapshot({ROUTES: Resources.of([routes(many(100))])})
    world = World()
    world.quarantine.restore(ROLE, stored, ())
    envoy = Envoy(world, "1", dislikes("bad"))

    world.want(routes(many(100, {"h7": "bad"})))
    world.settle(envoy)

    assert world.hosts() == many(100)
    assert len(envoy.refusals) == 1


def test_what_was_held_before_a_restart_is_over_for_good_once_it_is_mended() -> None:
    world = World()
    envoy = Envoy(world, "1", lambda given: "no" if b"bad" in given.body else None, CLUSTER)
    world.want(resource("a", b"good"), type_url=CLUSTER)
    world.settle(envoy)
    world.want(resource("a", b"bad"), type_url=CLUSTER)
    world.settle(envoy)
    before, held = world.quarantine.served(ROLE), world.quarantine.held(ROLE)
    assert before is not None

    after = World()
    after.quarantine.restore(ROLE, before, held)
    after.want(resource("a", b"bad"), type_url=CLUSTER)
    mended, another = resource("a", b"mended"), resource("b", b"new")
    after.want(mended, type_url=CLUSTER)
    after.want(mended, another, type_url=CLUSTER)

    assert after.held() == []
    assert after.served(CLUSTER) == {"a": mended, "b": another}


def test_a_role_that_is_gone_leaves_nothing() -> None:
    world, envoy = begun(many(2), dislikes("bad"))
    world.want(routes(many(2, {"h1": "bad"})))
    world.settle(envoy)

    world.quarantine.forget(ROLE)

    assert world.quarantine.served(ROLE) is None
    assert world.quarantine.held(ROLE) == []
    assert world.quarantine.wake_at() == float("inf")


@pytest.mark.parametrize("seed", range(40))
def test_after_any_edits_exactly_the_bad_hosts_are_held_and_nothing_is_refused_again(seed: int) -> None:
    chance = Random(seed)
    world = World()
    verdict = dislikes(*(f"bad-{n}" for n in range(100)))
    envoys = [Envoy(world, str(n), verdict) for n in range(chance.choice((1, 1, 3)))]
    hosts = many(12)
    world.want(routes(hosts))
    world.settle(*envoys)
    for turn in range(15):
        for name in chance.sample(sorted(hosts), chance.randint(1, 6)):
            hosts[name] = f"{chance.choice(('bad', 'new', 'new'))}-{turn}"
        if chance.random() < 0.3:
            hosts[f"more-{turn}"] = f"bad-{turn}" if chance.random() < 0.5 else "new"
        if chance.random() < 0.2:
            del hosts[chance.choice(sorted(hosts))]
        world.want(routes(hosts))
        if chance.random() < 0.3:
            chance.choice(envoys).answer()  # the next edit comes while the answer is on its way
            continue
        world.settle(*envoys)

        assert set(world.held()) == {name for name in hosts if hosts[name].startswith("bad")}
        served = world.hosts()
        assert all(served[name] == hosts[name] for name in hosts if not hosts[name].startswith("bad"))
        assert not any(content.startswith("bad") for content in served.values())
        refusals = [len(envoy.refusals) for envoy in envoys]
        world.want(routes({**hosts, "probe": f"new-{turn}"}))
        world.settle(*envoys)
        assert [len(envoy.refusals) for envoy in envoys] == refusals
        world.want(routes(hosts))
        world.settle(*envoys)
