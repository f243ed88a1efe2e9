"""Programs of expressions; what they match is shown in a real Envoy, in test_transformations.py."""

from __future__ import annotations

from typing import Any

import pytest

from services.gloo.transformations.regex import TooMuch, regex_program


@pytest.mark.parametrize(
    ("pattern", "group", "program"),
    [
        ("ab", 0, [97, 98]),
        ("a*b", 0, [[1, 3], 97, [0], 98]),
        ("a+?", 0, [97, [4, 2], 97, [1]]),
        ("(?U)a*", 0, [[3, 1], 97, [0]]),
        ("a{1,2}", 0, [97, [2, 3], 97]),
        ("a|b|c", 0, [[1, 3], 97, [7], [4, 6], 98, [7], 99]),
        ("(a)(b)", 2, [97, "(", 98, ")"]),
        ("[^\\x01-\\xff]", 0, [0]),
        ("[a-c-]", 0, [[[45, 45, 97, 99]]]),
        ("(?i)a(?-i)a", 0, [[[65, 65, 97, 97]], 97]),
        (".", 0, [[[0, 9, 11, 255]]]),
        ("^a$(?m)^$", 0, ["A", 97, "z", "^", "$"]),
        ("\u00e9", 0, [0xC3, 0xA9]),
        ("\u00e9?", 0, [0xC3, [2, 3], 0xA9]),
        ("\\Qab\\E{2}", 0, [97, 98, 98]),
        ("\\Q.*\\E\\n\\012", 0, [46, 42, 10, 10]),
    ],
)
def test_an_expression_becomes_a_program(pattern: str, group: int, program: list[Any]) -> None:
    assert regex_program(pattern, group) == program


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("\\pL", "\\p is not supported; list the characters"),
        ("[\u00e9]", "\u00e9 cannot stand between [ and ]; write (…|\u00e9|…)"),
        ("a{1000}b", "too large: more than 1000 steps"),
        ("(" * 300 + "a" + ")" * 300, "nested too deeply"),
    ],
)
def test_what_has_no_program_is_told(pattern: str, problem: str) -> None:
    with pytest.raises(TooMuch) as caught:
        regex_program(pattern)

    assert str(caught.value) == problem
