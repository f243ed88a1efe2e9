from __future__ import annotations

from shared.ref import Ref
from shared.store.view import ALL, View, changed_keys

A, B = Ref("ns", "a"), Ref("ns", "b")


def test_a_patch_gives_a_new_view_and_leaves_the_old() -> None:
    before = View({"Upstream": {A: 1}})

    after = before.patched("Upstream", put={B: 2}, drop=[A])

    assert dict(before) == {("Upstream", A): 1}
    assert dict(after) == {("Upstream", B): 2}


def test_a_patch_copies_only_its_own_kind() -> None:
    before = View({"Upstream": {A: 1}, "Proxy": {A: 3}})

    after = before.patched("Upstream", put={B: 2})

    assert after.of("Proxy") is before.of("Proxy")
    assert len(after) == 3


def test_dropping_what_is_not_there_is_no_mistake() -> None:
    assert dict(View[int]().patched("Upstream", drop=[A])) == {}


def test_looking_gives_one_object_or_none_or_the_whole_kind() -> None:
    view = View({"Upstream": {A: 1}})

    assert view.look(("Upstream", A)) == 1
    assert view.look(("Upstream", B)) is None
    assert view.look(("Upstream", ALL)) == {A: 1}
    assert view.look(("Proxy", ALL)) == {}


def test_a_change_concerns_the_objects_and_those_who_look_at_all_of_them() -> None:
    assert changed_keys("Upstream", [A]) == {("Upstream", A), ("Upstream", ALL)}
    assert changed_keys("Upstream", []) == set()
