from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pytest

from shared.incremental.units import Key, Read, Units

Inputs = dict[Key, Any]


class Routes:
    """Units under test: the value of a virtual service is its upstreams' addresses; counts computations."""

    def __init__(self) -> None:
        self.calls: list[Hashable] = []
        self.units: Units[Key, list[str | None]] = Units(self.compute)

    def compute(self, unit: Key, read: Read) -> list[str | None]:
        self.calls.append(unit)
        return [read("us", name) for name in read(*unit)]


@pytest.fixture
def routes() -> Routes:
    return Routes()


VS_A, VS_B, US_1, US_2 = ("vs", "a"), ("vs", "b"), ("us", "1"), ("us", "2")


def given() -> Inputs:
    return {VS_A: ["1"], VS_B: ["2"], US_1: "10.0.0.1", US_2: "10.0.0.2"}


def test_the_first_update_computes_every_unit(routes: Routes) -> None:
    inputs = given()

    differing = routes.units.follow("vs", set(inputs), inputs.get)

    assert differing == {VS_A, VS_B}
    assert routes.units.values == {VS_A: ["10.0.0.1"], VS_B: ["10.0.0.2"]}


def test_a_change_costs_the_units_that_read_it(routes: Routes) -> None:
    inputs = given()
    routes.units.follow("vs", set(inputs), inputs.get)
    routes.calls.clear()

    differing = routes.units.follow("vs", {US_2}, (inputs | {US_2: "10.0.0.9"}).get)

    assert routes.calls == [VS_B]
    assert differing == {VS_B}
    assert routes.units.values[VS_B] == ["10.0.0.9"]


def test_one_upstream_among_thousands_costs_one_unit(routes: Routes) -> None:
    inputs: Inputs = {("vs", f"v{i}"): [f"u{i}"] for i in range(2000)}
    inputs |= {("us", f"u{i}"): f"10.0.0.{i}" for i in range(2000)}
    routes.units.follow("vs", set(inputs), inputs.get)
    before = routes.units.computed

    differing = routes.units.follow("vs", {("us", "u7")}, (inputs | {("us", "u7"): "elsewhere"}).get)

    assert differing == {("vs", "v7")}
    assert routes.units.computed - before == 1


def test_an_equal_result_stops_there(routes: Routes) -> None:
    inputs = given()
    routes.units.follow("vs", set(inputs), inputs.get)

    assert routes.units.follow("vs", {US_1}, inputs.get) == set()


def test_an_input_nobody_read_costs_nothing(routes: Routes) -> None:
    inputs = given()
    routes.units.follow("vs", set(inputs), inputs.get)
    routes.calls.clear()

    assert routes.units.follow("vs", {("us", "3")}, (inputs | {("us", "3"): "x"}).get) == set()
    assert routes.calls == []


def test_a_missing_input_wakes_its_reader_when_it_appears(routes: Routes) -> None:
    inputs: Inputs = {VS_A: ["1"]}
    routes.units.follow("vs", set(inputs), inputs.get)
    assert routes.units.values == {VS_A: [None]}

    inputs[US_1] = "10.0.0.1"
    differing = routes.units.follow("vs", {US_1}, inputs.get)

    assert differing == {VS_A}
    assert routes.units.values == {VS_A: ["10.0.0.1"]}


def test_a_unit_goes_with_its_key_and_is_reported_once(routes: Routes) -> None:
    inputs = given()
    routes.units.follow("vs", set(inputs), inputs.get)
    del inputs[VS_A]

    assert routes.units.follow("vs", {VS_A}, inputs.get) == {VS_A}
    assert routes.units.follow("vs", {VS_A}, inputs.get) == set()
    assert VS_A not in routes.units.values


def test_a_unit_that_is_gone_is_not_woken_again(routes: Routes) -> None:
    inputs = given()
    routes.units.follow("vs", set(inputs), inputs.get)
    del inputs[VS_A]
    routes.units.follow("vs", {VS_A}, inputs.get)
    routes.calls.clear()

    routes.units.follow("vs", {US_1}, (inputs | {US_1: "x"}).get)

    assert routes.calls == []


def test_a_unit_no_longer_follows_what_it_no_longer_reads(routes: Routes) -> None:
    inputs = given()
    routes.units.follow("vs", set(inputs), inputs.get)
    inputs[VS_A] = ["2"]
    routes.units.follow("vs", {VS_A}, inputs.get)
    routes.calls.clear()

    routes.units.follow("vs", {US_1}, (inputs | {US_1: "x"}).get)

    assert routes.calls == []


def test_a_unit_that_raises_keeps_its_last_value_and_recovers(routes: Routes) -> None:
    inputs = given()
    routes.units.follow("vs", set(inputs), inputs.get)
    broken, mended = inputs | {VS_A: 5}, inputs | {VS_A: ["2"]}

    assert routes.units.follow("vs", {VS_A}, broken.get) == set()
    assert routes.units.values[VS_A] == ["10.0.0.1"]
    assert isinstance(routes.units.failures[VS_A], TypeError)

    assert routes.units.follow("vs", {VS_A}, mended.get) == {VS_A}
    assert routes.units.failures == {}
    assert routes.units.values[VS_A] == ["10.0.0.2"]


def test_a_unit_that_raises_costs_only_itself(routes: Routes) -> None:
    inputs = given() | {VS_A: 5}

    assert routes.units.follow("vs", set(inputs), inputs.get) == {VS_B}
    assert set(routes.units.failures) == {VS_A}


def test_a_failed_unit_is_tried_again_when_something_it_had_read_changes() -> None:
    def compute(unit: str, read: Read) -> int:
        return 100 // int(read("us", "1"))

    units: Units[str, int] = Units(compute)
    units.update((), {US_1: 0}.get, put=["x"])
    assert set(units.failures) == {"x"}

    assert units.update({US_1}, {US_1: 4}.get) == {"x"}
    assert units.values == {"x": 25}


def test_units_need_not_be_input_keys() -> None:
    units: Units[int, str] = Units(lambda unit, read: f"{unit}{read('us', '1')}")

    assert units.update((), {US_1: "a"}.get, put=[1, 2]) == {1, 2}
    assert units.update({US_1}, {US_1: "b"}.get, drop=[2]) == {1, 2}
    assert units.values == {1: "1b"}


def test_none_is_a_value_like_any_other() -> None:
    units: Units[int, None] = Units(lambda unit, read: read("us", "1"))

    assert units.update((), {}.get, put=[1]) == {1}
    assert units.update({US_1}, {}.get) == set()
    assert units.update((), {}.get, drop=[1]) == {1}


def test_a_second_layer_follows_the_first(routes: Routes) -> None:
    calls = []

    def count(unit: str, read: Read) -> int:
        calls.append(unit)
        return len(set(read("host", VS_A) or ()) | set(read("host", VS_B) or ()))

    second: Units[str, int] = Units(count)
    inputs = given()

    def follow(changed: set[Key]) -> set[str]:
        hosts = routes.units.follow("vs", changed, inputs.get)
        put = () if second.values else ("proxy",)
        return second.update(
            {("host", unit) for unit in hosts}, lambda key: routes.units.values.get(key[1]), put=put
        )

    assert follow(set(inputs)) == {"proxy"}
    inputs[US_2] = "10.0.0.1"
    assert follow({US_2}) == {"proxy"}
    assert second.values == {"proxy": 1}
    inputs[("us", "3")] = "x"
    assert follow({("us", "3")}) == set()
    assert calls == ["proxy", "proxy"]


def test_in_steps_one_unit_is_computed_at_a_time(routes: Routes) -> None:
    inputs = given()

    steps = routes.units.follow_in_steps("vs", set(inputs), inputs.get)
    computed = [len(routes.calls) for _ in steps]

    assert computed == [1, 2]
    assert routes.units.values == {VS_A: ["10.0.0.1"], VS_B: ["10.0.0.2"]}
