from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest

from protos import gloo
from protos._generated.construct import dataclass
from protos._generated.google.protobuf import Timestamp


def test_a_message_holds_what_it_is_given_and_defaults_for_the_rest() -> None:
    proxy = gloo.Proxy(listeners=[gloo.Listener(name="http")])

    assert proxy.listeners[0].name == "http"
    assert proxy.listeners[0].bind_port == 0
    assert proxy.metadata is None


def test_no_two_messages_share_a_list() -> None:
    one, other = gloo.Proxy(), gloo.Proxy()

    one.listeners.append(gloo.Listener())

    assert other.listeners == []


def test_values_may_come_by_place() -> None:
    assert Timestamp(1, 2) == Timestamp(seconds=1, nanos=2)


def test_a_misspelt_field_is_an_error() -> None:
    with pytest.raises(TypeError, match="Ref has no field nmae"):
        gloo.ResourceRef(nmae="x")  # type: ignore[call-arg]


def test_messages_of_equal_fields_are_equal() -> None:
    assert gloo.ResourceRef(name="x") == gloo.ResourceRef(name="x")
    assert gloo.ResourceRef(name="x") != gloo.ResourceRef(name="y")
    assert gloo.ResourceRef() != gloo.Listener()


def test_a_message_is_true_when_a_field_is_set() -> None:
    assert gloo.ResourceRef(name="x")
    assert not gloo.ResourceRef()
    assert not gloo.Proxy(listeners=[])


def test_a_copy_with_other_values_can_be_made() -> None:
    ref = dataclasses.replace(gloo.ResourceRef(name="x", namespace="n"), name="y")

    assert ref == gloo.ResourceRef(name="y", namespace="n")


def test_threads_may_be_the_first_to_look_at_a_class() -> None:
    def look() -> int:
        @dataclass(eq=False, repr=False)
        class Message:
            text: str = dataclasses.field(default_factory=str)

        with ThreadPoolExecutor(4) as threads:
            seen = list(threads.map(lambda _: len(dataclasses.fields(Message)), range(8)))
        return sum(seen)

    assert all(look() == 8 for _ in range(20))
