"""The cache wakes those who watch a role, and nobody else."""

from __future__ import annotations

from services.gloo.resources import Snapshot
from services.gloo.xds.cache import Cache


def test_watchers_of_a_role_are_woken_by_its_changes_only() -> None:
    cache, woken = Cache(), list[str]()
    leave = cache.watch("a", lambda: woken.append("a"))
    cache.watch("b", lambda: woken.append("b"))
    snapshot = Snapshot()

    cache.set("a", snapshot)
    cache.set("a", snapshot)
    leave()
    cache.set("a", Snapshot())

    assert woken == ["a"]


def test_roles_come_and_go() -> None:
    cache, snapshot = Cache(), Snapshot()

    cache.set("a", snapshot)
    cache.set("b", snapshot)
    cache.remove("b")
    cache.remove("never there")

    assert cache.roles() == {"a"}
    assert cache.get("a") is snapshot
    assert cache.get("b") is None
