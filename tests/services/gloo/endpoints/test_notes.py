"""Instances that outlive their process in a note."""

from __future__ import annotations

from services.gloo.endpoints.notes import Note
from services.gloo.endpoints.rows import Health, InstanceKey
from services.gloo.endpoints.table import EndpointTable
from tests.services.gloo.endpoints.test_table import addresses, check, instance, learn, node, service, table

KEY = InstanceKey("n1", "web-1")


def test_a_noted_instance_serves_again_in_another_process() -> None:
    before = table(instance(service(Tags=["a"], Weights={"Passing": 3, "Warning": 1}), check()))
    after = EndpointTable()

    after.restore("dc1", [Note.read(before.note("dc1", KEY).text)])

    assert after.endpoints("web") == before.endpoints("web")


def test_one_that_did_not_pass_does_not_pass_there_either() -> None:
    before = table(instance(service(), check(status="critical")))
    after = EndpointTable()

    after.restore("dc1", [note := Note.read(before.note("dc1", KEY).text)])

    assert note.health == Health.CRITICAL
    assert not after.endpoints("web")


def test_what_comes_back_replaces_the_note() -> None:
    before, after = table(instance(service(), check())), EndpointTable()
    after.restore("dc1", [before.note("dc1", KEY)])

    learn(after, instance(service(Port=81), check(), node=node(address="10.0.0.2")))

    assert addresses(after) == ["10.0.0.2:81"]


def test_that_what_is_held_is_missing_leaves_nothing_in_doubt() -> None:
    there = table(instance(service(), check()))

    assert there.observe_checks("dc1", [], {KEY}).doubtful == set()
    assert there.observe_nodes("dc1", [], {KEY}).doubtful == set()
    assert there.differing("dc1", "n1", None, {KEY}) == set()
    assert there.differing("dc1", "n1", None) == {"web"}
