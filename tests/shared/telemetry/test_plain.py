from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

import pytest

from shared.ref import Ref, Source
from shared.telemetry.plain import plain


class State(Enum):
    HELD = 1


@dataclass(frozen=True, slots=True)
class Client:
    node: str
    ref: Ref
    states: tuple[State, ...]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        (True, True),
        (1.5, 1.5),
        ("text", "text"),
        (Ref("gloo-system", "petstore"), "gloo-system.petstore"),
        (Source("Upstream", Ref("a", "b")), "Upstream a.b"),
        ({Ref("a", "b"): {3, 1, 2}}, {"a.b": [1, 2, 3]}),
        ({1: b"\xffx"}, {"1": "\\xffx"}),
        (timedelta(seconds=2), 2.0),
        (ValueError("why"), "why"),
        (Client("n", Ref("a", "b"), (State.HELD,)), {"node": "n", "ref": "a.b", "states": ["HELD"]}),
    ],
)
def test_values_are_shown_as_json(value: object, shown: object) -> None:
    assert plain(value) == shown


def test_anything_else_is_its_text() -> None:
    assert plain(complex(1, 2)) == "(1+2j)"
