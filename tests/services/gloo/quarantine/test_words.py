"""Which parts Envoy's words point at."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from services.gloo.parts import parts_of
from services.gloo.quarantine.words import accused, counted
from services.gloo.resources import ROUTES
from tests.services.gloo.quarantine.world import many, routes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Duplicate entry of domain b.example.com in route routes", {"b"}),
        ("Incorrect configuration: %NO(x)%. Couldn't find valid command", {"a"}),
        ("Sum of weights in the weighted_cluster must be greater than 0.", set()),
        ("only 'example.com' here", set()),
    ],
)
def test_words_of_the_text_accuse_those_that_hold_them(text: str, expected: Iterable[str]) -> None:
    parts = {"a": b"\n\x0da.example.com %NO(x)%", "b": b"\n\x0db.example.com", "c": b"\n\x0dc.example.com"}

    assert accused(text, parts) == expected


def test_a_number_in_the_text_says_which_host_it_is() -> None:
    given = routes(many(5))
    parts = parts_of(ROUTES, given.body)
    text = "RouteConfigurationValidationError.VirtualHosts[3]: embedded message failed validation"

    assert counted(text, given, parts) == {"h3"}
    assert counted(text, given, {"h1": b""}) == set()
    assert counted(text.replace("3", "9"), given, parts) == set()
    assert counted("something else", given, parts) == set()
