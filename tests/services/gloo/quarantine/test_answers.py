"""Whose refusal counts: several Envoys of one role, and answers that come late."""

from __future__ import annotations

from tests.services.gloo.quarantine.world import Envoy, World, begun, dislikes, many, routes


def test_the_answer_to_an_older_version_convicts_nobody() -> None:
    world, envoy = begun(many(3), dislikes("bad"))
    world.want(routes(many(3, {"h1": "bad"})))
    (first,) = envoy.take()
    slow = Envoy(world, "2", dislikes("bad"))
    envoy.say(first)
    world.want(routes(many(3, {"h1": "bad", "h2": "new"})))

    slow.say(first)
    world.settle(envoy, slow)

    assert world.held() == ["h1"]
    assert world.hosts() == many(3, {"h2": "new"})


def test_what_another_envoy_takes_is_served_and_the_one_that_refuses_is_on_its_own() -> None:
    world, stubborn = begun(many(3), dislikes("bad"))
    other = Envoy(world, "2", lambda given: None)
    world.settle(other)

    world.want(routes(many(3, {"h1": "bad"})))
    (first,) = other.take()
    stubborn.answer()
    assert world.hosts() == many(3)
    other.say(first)
    world.settle(stubborn, other)
    assert (world.hosts(), world.held()) == (many(3, {"h1": "bad"}), [])
    world.want(routes(many(3, {"h1": "bad", "h2": "new"})))
    world.settle(stubborn, other)

    assert (world.hosts(), world.held()) == (many(3, {"h1": "bad", "h2": "new"}), [])


def test_an_envoy_that_refuses_everything_changes_nothing_for_another() -> None:
    world = World()
    good, mad = Envoy(world, "1", lambda given: None), Envoy(world, "2", lambda given: "no")
    for i in range(5):
        world.want(routes(many(20, {"h1": f"new-{i}"})))
        world.settle(good, mad)

        assert world.hosts() == many(20, {"h1": f"new-{i}"})
        assert good.has["routes"] == world.served()["routes"]


def test_several_envoys_that_refuse_the_same_are_one_case() -> None:
    world = World()
    envoys = [Envoy(world, str(i), dislikes("bad")) for i in range(5)]
    world.want(routes(many(40)))
    world.settle(*envoys)

    world.want(routes(many(40, {"h1": "bad", "h2": "new", "h3": "new"})))
    world.settle(*envoys)

    assert world.held() == ["h1"]
    assert world.hosts() == many(40, {"h2": "new", "h3": "new"})
