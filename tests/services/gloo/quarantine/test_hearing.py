"""Two replicas' quarantines that hear of each other: they serve the same, whoever was told."""

from __future__ import annotations

from dataclasses import replace

from services.gloo.quarantine.held import Blame, Heard, Version
from services.gloo.resources import CLUSTER, resource
from tests.services.gloo.quarantine.world import (
    NAMELESS,
    RETRY,
    ROLE,
    Envoy,
    World,
    begun,
    contents,
    dislikes,
    many,
    routes,
)


def told_by(world: World) -> dict[Version, Heard]:
    """What another replica reads of what *world* holds."""
    return {
        held.version: Heard(held=replace(held, blame=replace(held.blame, client=""), elsewhere=True))
        for held in world.quarantine.all_held
    }


def accepted(heard: dict[Version, Heard]) -> dict[Version, Heard]:
    return {version: replace(each, accepted=True) for version, each in heard.items()}


def own(heard: dict[Version, Heard]) -> dict[Version, Heard]:
    return {
        version: replace(each, held=replace(each.held, elsewhere=False)) for version, each in heard.items()
    }


def poisoned() -> World:
    """A replica whose Envoy has refused h1."""
    world, envoy = begun(many(3), dislikes("bad"))
    world.want(routes(many(3, {"h1": "bad"})))
    world.settle(envoy)
    return world


def test_what_one_replica_was_told_another_serves_to_the_byte() -> None:
    world, other = poisoned(), World()
    other.want(routes(many(3, {"h1": "older"})))
    other.want(routes(many(3, {"h1": "bad"})))

    assert other.quarantine.hear(told_by(world)) == {ROLE}

    assert other.served()["routes"].digest == world.served()["routes"].digest
    (held,) = other.quarantine.held(ROLE)
    assert (held.part, held.blame, held.good) == (
        "h1",
        Blame(client="", node="node-1", text=NAMELESS),
        world.quarantine.held(ROLE)[0].good,
    )
    assert other.quarantine.wake_at() == float("inf")  # it is for the other to try it again


def test_what_was_heard_before_it_is_wanted_is_never_served() -> None:
    world, new = poisoned(), World()
    new.quarantine.hear(told_by(world))

    new.want(routes(many(3, {"h1": "bad"})))

    assert new.hosts() == many(3)
    moved = Envoy(new, "1", dislikes("bad"))
    new.settle(moved)
    new.want(routes(many(3, {"h1": "bad", "h2": "new"})))
    new.settle(moved)
    assert (new.hosts(), moved.refusals) == (many(3, {"h2": "new"}), [])


def test_a_version_that_is_not_the_refused_one_is_served() -> None:
    world, other = poisoned(), World()
    other.want(routes(many(3, {"h1": "mended"})))

    assert other.quarantine.hear(told_by(world)) == {ROLE}

    assert other.hosts() == many(3, {"h1": "mended"})
    other.want(routes(many(3, {"h1": "bad"})))
    assert other.hosts() == many(3)
    other.want(routes(many(3, {"h1": "mended"})))
    assert other.hosts() == many(3, {"h1": "mended"})


def test_a_refusal_that_is_over_elsewhere_is_over_here() -> None:
    world, other = poisoned(), World()
    other.want(routes(many(3, {"h1": "bad"})))
    other.quarantine.hear(told_by(world))

    other.quarantine.hear({})

    assert other.hosts() == many(3, {"h1": "bad"})


def test_what_an_envoy_here_has_accepted_is_served_and_approved() -> None:
    world = poisoned()
    other, easy = begun(many(3, {"h1": "bad"}), lambda given: None)

    other.quarantine.hear(told_by(world))
    other.settle(easy)

    assert other.hosts() == many(3, {"h1": "bad"})
    assert other.quarantine.approved == set(told_by(world))


def test_an_answer_that_is_still_on_its_way_approves_too() -> None:
    world = poisoned()
    other, easy = begun(many(3), lambda given: None)
    other.want(routes(many(3, {"h1": "bad"})))
    (late,) = easy.take()
    other.quarantine.hear(told_by(world))
    assert other.hosts() == many(3)

    easy.say(late)

    assert other.hosts() == many(3, {"h1": "bad"})
    assert other.quarantine.approved == set(told_by(world))
    other.quarantine.hear(accepted(told_by(world)))
    assert (other.hosts(), other.quarantine.approved) == (many(3, {"h1": "bad"}), set())


def test_what_is_accepted_elsewhere_is_served_and_who_refuses_it_is_on_its_own() -> None:
    world, stubborn = begun(many(3), dislikes("bad"))
    world.want(routes(many(3, {"h1": "bad"})))
    world.settle(stubborn)
    mine = own(told_by(world))

    world.quarantine.hear(accepted(mine))
    world.settle(stubborn)

    assert (world.hosts(), world.held()) == (many(3, {"h1": "bad"}), [])
    another = Envoy(world, "2", dislikes("bad"))
    world.settle(another)
    world.want(routes(many(3, {"h1": "bad", "h2": "new"})))
    world.settle(stubborn, another)
    assert (world.hosts(), world.held()) == (many(3, {"h1": "bad", "h2": "new"}), [])


def test_of_two_that_were_told_at_once_both_say_what_was_written_first() -> None:
    first, second = poisoned(), poisoned()
    envoy = Envoy(second, "9", dislikes("bad"))
    second.settle(envoy)

    second.quarantine.hear(told_by(first))

    assert second.quarantine.held(ROLE)[0].elsewhere
    assert second.hosts() == first.hosts() == many(3)


def test_the_last_good_version_of_whoever_has_one_stands_in() -> None:
    world, fresh = poisoned(), World()
    refusing = Envoy(fresh, "1", dislikes("bad"))
    fresh.want(routes(many(3, {"h1": "bad"})))
    fresh.settle(refusing)
    assert fresh.hosts() == {"h0": "old", "h2": "old"}

    world.quarantine.hear(told_by(fresh))
    assert world.hosts() == many(3)
    fresh.quarantine.hear(own(told_by(world)))

    assert fresh.hosts() == many(3)
    assert fresh.quarantine.held(ROLE)[0].blame.client == "1"  # it is there, so nothing is tried again
    assert fresh.quarantine.wake_at() == float("inf")


def test_one_replica_tries_again_and_the_others_hold_on() -> None:
    world, other = poisoned(), World()
    other.want(routes(many(3, {"h1": "bad"})))
    heard = told_by(world)
    other.quarantine.hear(heard)
    world.quarantine.disconnected("1")
    world.quarantine.hear(own(heard))
    newer = Envoy(world, "2", lambda given: None)

    assert other.quarantine.tick(RETRY) == set()
    assert world.quarantine.tick(RETRY) == {ROLE}
    world.quarantine.hear(own(heard))
    world.settle(newer)

    assert (world.hosts(), other.hosts()) == (many(3, {"h1": "bad"}), many(3))
    assert world.quarantine.approved == set(heard)
    other.quarantine.hear(accepted(heard))
    assert other.hosts() == many(3, {"h1": "bad"})


def test_whoever_takes_over_tries_again_in_time() -> None:
    world, other = poisoned(), World()
    other.want(routes(many(3, {"h1": "bad"})))
    other.quarantine.hear(told_by(world))

    other.quarantine.hear(own(told_by(world)))

    assert other.quarantine.wake_at() == RETRY


def test_a_cluster_is_held_like_a_virtual_host() -> None:
    world, other = World(), World()
    envoy = Envoy(world, "1", lambda given: "no" if b"bad" in given.body else None, CLUSTER)
    for replica in (world, other):
        replica.want(resource("a", b"good"), type_url=CLUSTER)
    world.settle(envoy)
    for replica in (world, other):
        replica.want(resource("a", b"bad"), resource("new", b"bad"), type_url=CLUSTER)
    world.settle(envoy)

    other.quarantine.hear(told_by(world))

    assert {name: each.body for name, each in other.served(CLUSTER).items()} == {"a": b"good"}


def test_a_search_goes_on_without_what_was_found_elsewhere() -> None:
    world = poisoned()
    other, envoy = begun(many(3), dislikes("bad", "worse"))
    changes = {"h1": "bad", "n1": "new", "n2": "worse", "n3": "new"}
    other.want(routes(many(3, changes)))
    envoy.answer()

    other.quarantine.hear(told_by(world))
    other.settle(envoy)

    assert sorted(other.held()) == ["h1", "n2"]
    assert contents(other.served()["routes"]) == many(3, {"n1": "new", "n3": "new"})


def test_what_is_wanted_is_known_by_version() -> None:
    world = poisoned()
    (version,) = told_by(world)

    assert world.quarantine.wanted([version]) == {version}
    world.want(routes(many(3)))
    assert world.quarantine.wanted([version]) == set()
