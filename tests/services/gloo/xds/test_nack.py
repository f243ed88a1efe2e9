"""Envoy's own words (``refusals.yaml``): whom they name, and what makes two of them equal."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from services.gloo.resources import resource
from services.gloo.xds.nack import MAX_LENGTH, blame, normalise

REFUSALS = yaml.safe_load(Path(__file__).with_name("refusals.yaml").read_text())
NAMES = {name for refusal in REFUSALS for name in refusal["names"]}
DECOYS = {
    "petstore",
    "cluster",
    "route",
    "x",
    "a",
    "listener",
    "default",
}  # words of the texts, and parts of names
RESOURCES = [resource(name, b"") for name in sorted(NAMES | DECOYS)]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal["text"].split("\n")[0][:50])
def test_the_resources_envoy_names_are_found_and_no_others(refusal: dict[str, str]) -> None:
    found = blame(refusal["text"], RESOURCES)

    assert [culprit.name for culprit in found] == refusal["names"]


def test_only_resources_of_the_response_are_blamed() -> None:
    assert blame("Error adding/updating cluster(s) other: no", RESOURCES) == ()


def test_debug_marks_and_line_breaks_make_no_difference() -> None:
    texts = {
        "Invalid duration: Expected positive duration: goo.gle/debugproto    \nseconds: -1\n",
        "Invalid duration: Expected positive duration: goo.gle/debugonly  seconds: -1",
        "Invalid duration: Expected positive duration: debugproto \nseconds: -1",
    }

    assert {normalise(text) for text in texts} == {
        "Invalid duration: Expected positive duration: seconds: -1"
    }


def test_a_text_without_end_has_one() -> None:
    text = normalise("word " * 10_000 + ": the reason")
    assert len(text) == MAX_LENGTH
    assert text.startswith("word")
    assert text.endswith("the reason")
