"""Who is convicted, and how often Envoy says no until then."""

from __future__ import annotations

import pytest

from tests.services.gloo.quarantine.world import NAMELESS, ROLE, begun, dislikes, many, routes


def test_the_only_host_that_changed_is_convicted_by_one_refusal() -> None:
    world, envoy = begun(many(5), dislikes("bad"))

    world.want(routes(many(5, {"h3": "bad"})))
    world.settle(envoy)

    assert world.hosts() == many(5)
    assert len(envoy.refusals) == 1
    (held,) = world.quarantine.held(ROLE)
    assert (held.part, held.blame.text, held.blame.node) == ("h3", NAMELESS, "node-1")
    assert envoy.has["routes"].digest == routes(many(5)).digest  # to the byte what it had


@pytest.mark.parametrize("bad", [["n0"], ["n999"], ["n3", "n4"], ["n10", "n500", "n990"]], ids=str)
def test_among_a_thousand_changes_the_guilty_are_found_by_halving(bad: list[str]) -> None:
    world, envoy = begun(many(3), dislikes("bad"))
    good = {f"n{i}": "new" for i in range(1000)}

    world.want(routes(many(3, good | dict.fromkeys(bad, "bad"))))
    world.settle(envoy)

    assert world.hosts() == many(3, {name: new for name, new in good.items() if name not in bad})
    assert sorted(world.held()) == sorted(bad)
    assert len(envoy.refusals) <= 11 * len(bad)


def test_what_envoy_names_is_found_by_one_refusal_among_many() -> None:
    world, envoy = begun(many(3), dislikes("bad", text="Couldn't parse 'bad' at position 0"))
    good = {f"n{i}": "new" for i in range(1000)}

    world.want(routes(many(3, good | {"n77": "bad"})))
    world.settle(envoy)

    assert world.held() == ["n77"]
    assert world.hosts() == many(3, {name: new for name, new in good.items() if name != "n77"})
    assert len(envoy.refusals) == 1


def test_a_misleading_word_harms_nobody_in_the_end() -> None:
    world, envoy = begun(many(3), dislikes("bad", text="something about n5.example.com"))
    good = {f"n{i}": "new" for i in range(20)}

    world.want(routes(many(3, good | {"n7": "bad"})))
    world.settle(envoy)

    assert world.held() == ["n7"]
    assert world.hosts() == many(3, {name: new for name, new in good.items() if name != "n7"})


def test_a_first_configuration_with_a_poison_in_it_is_served_without_it() -> None:
    world, envoy = begun(many(50, {"h20": "bad"}), dislikes("bad"))

    assert world.hosts() == {name: "old" for name in many(50) if name != "h20"}
    assert world.held() == ["h20"]
    assert len(envoy.refusals) < 10


def test_changes_that_come_while_the_guilty_is_looked_for_are_served() -> None:
    world, envoy = begun(many(3), dislikes("bad"))
    changes = {f"n{i}": "new" for i in range(64)} | {"n9": "bad"}
    for i in range(30):
        changes |= {f"later-{i}": "new"}
        world.want(routes(many(3, changes)))
        envoy.answer()
    world.settle(envoy)

    assert world.held() == ["n9"]
    assert world.hosts() == many(3, {name: new for name, new in changes.items() if new != "bad"})
