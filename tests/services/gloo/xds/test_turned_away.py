"""The list of those turned away: bounded, the same one once, and no flood of logs."""

from __future__ import annotations

import pytest

from services.gloo.xds.turned_away import LOGGED_AT_ONCE, SHOWN, TurnedAway


def test_the_same_one_is_listed_once_with_its_number_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    away = TurnedAway()

    for port in range(3):
        away.add(problem="no certificate", address=f"10.0.0.7:{port}")

    [entry] = away.listed()
    assert (entry["problem"], entry["times"], entry["address"]) == ("no certificate", 3, "10.0.0.7:2")
    assert caplog.text.count("no certificate") == 1


def test_however_many_come_the_last_are_listed_and_few_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    away = TurnedAway()

    for number in range(SHOWN * 10):
        away.add(problem="no", address="10.0.0.7:1", node=f"envoy-{number}")

    listed = away.listed()
    assert [entry["node"] for entry in listed[:2]] == [f"envoy-{SHOWN * 10 - 1}", f"envoy-{SHOWN * 10 - 2}"]
    assert len(listed) == SHOWN
    assert len(caplog.records) <= LOGGED_AT_ONCE + 1
