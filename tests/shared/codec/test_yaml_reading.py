"""Where the keys of a YAML document stand; what its values are is ``test_text``'s matter."""

from __future__ import annotations

import pytest

from shared.codec.yaml_reading import read_yaml

TEXT = """\
# ü
"a": &x {b: [1, 2]}  # c
c:
- d
- e: |
    f

empty:
alias: *x
"""


@pytest.mark.parametrize("text", [TEXT, TEXT.replace("\n", "\r\n"), TEXT.rstrip()])
def test_places_are_those_of_keys_and_values(text: str) -> None:
    reading = read_yaml(text, places=True)

    spans = {
        entry.key: (text[entry.start :][:1], text[entry.value : entry.end].strip())
        for entry in reading.entries
    }
    assert not reading.flow
    assert spans["a"] == ('"', "&x {b: [1, 2]}")
    assert spans["c"][1].split() == ["-", "d", "-", "e:", "|", "f"]
    assert spans["empty"] == ("e", "")
    assert spans["alias"] == ("a", "*x")


def test_a_mapping_in_braces_is_in_flow_style() -> None:
    text = "{a: 1, b: {c: 2}, d: [e]}"

    reading = read_yaml(text, places=True)

    assert reading.flow
    assert [text[entry.value : entry.end] for entry in reading.entries] == ["1", "{c: 2}", "[e]"]


def test_places_are_taken_only_when_asked_for() -> None:
    assert read_yaml("a: 1").entries == ()
    assert read_yaml("a: 1").document == {"a": 1}
