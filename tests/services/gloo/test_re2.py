"""The check of regular expressions gives RE2's verdict; the verdicts below are those of the real Envoy."""

from __future__ import annotations

import pytest

from services.gloo.re2 import BadPattern, compile_pattern

ACCEPTED = [
    *("", "/a.*b", "a|b|", "(?i)a", "(?s-i:.)", "(?P<n>a)(?<m>b)", "(?P<n>a)(?P<n>b)", "(?)", "(a*)*"),
    *("a{2,3}?", "a{,2}", "a{x}", "x{0}", "{", "}", "]", "[]a]", "[^]a]", "[a-]", "[\\d-z]", "[[.a.]]"),
    *("[[:alpha:][:^digit:]]", "\\pL\\p{^Greek}\\PN", "\\Qa(b\\E+", "\\Qa(b", "\\x41\\x{ff}\\101\\0"),
    *("\\.\\-\\_\\/", "\\A\\z\\b\\B\\C", "é[é-世]", "\\\n"),
]
REFUSED = {
    "(": "a ( without its ), at position 0",
    "a)": "a ) without its (, at position 1",
    "[a": "a [ without its ], at position 0",
    "[]": "a [ without its ], at position 0",
    "[z-a]": "a range that ends before it begins, at position 0",
    "[a-\\d]": "\\d, which RE2 does not have, at position 3",
    "[[:foo:]]": "the class [:foo:], which RE2 does not have, at position 0",
    "*": "nothing before * to repeat, at position 0",
    "(|+)": "nothing before + to repeat, at position 2",
    "a**": "two repetitions in a row (RE2 has no possessive ones), at position 1",
    "a++": "two repetitions in a row (RE2 has no possessive ones), at position 1",
    "a{2,1}": "a repetition that ends before it begins, at position 1",
    "a{1001}": "more than 1000 repetitions in all, at position 1",
    "(a{100}){11}": "more than 1000 repetitions in all, at position 8",
    "\\": "a \\ at the end, at position 0",
    "(a)\\1": "\\1, which RE2 does not have, at position 3",
    "a\\Z": "\\Z, which RE2 does not have, at position 1",
    "\\x{100}": "\\x, which RE2 does not have, at position 0",
    "\\400": "\\4, which RE2 does not have, at position 0",
    "\\p{Foo}": "the property p{Foo}, which RE2 does not have, at position 0",
    "(?=a)": "look-ahead, (?=, which RE2 does not have, at position 0",
    "(?<!a)": "look-behind, (?<!, which RE2 does not have, at position 0",
    "(?>a)": "an atomic group, (?>, which RE2 does not have, at position 0",
    "(?P=n)": "a back-reference, (?P=, which RE2 does not have, at position 0",
    "(?x)a": "a group that RE2 does not have, at position 0",
    "(?P<é>a)": "a group that RE2 does not have, at position 0",
}
SIZES = {"abc": 7, "[a-z0-9_]": 7, "GET|POST|PUT": 13, "/api/v[0-9]+/users/[^/]+/orders/.*": 32, "a{3}": 7}


@pytest.mark.parametrize("pattern", ACCEPTED)
def test_what_re2_takes_is_taken(pattern: str) -> None:
    assert compile_pattern(pattern).size > 0


@pytest.mark.parametrize("pattern", REFUSED)
def test_what_re2_refuses_is_refused_with_the_place(pattern: str) -> None:
    with pytest.raises(BadPattern) as refused:
        compile_pattern(pattern)

    assert str(refused.value) == REFUSED[pattern]


@pytest.mark.parametrize("pattern", SIZES)
def test_the_size_is_estimated_rather_high(pattern: str) -> None:
    assert SIZES[pattern] <= compile_pattern(pattern).size <= 1.5 * SIZES[pattern]


def test_groups_are_counted() -> None:
    assert compile_pattern("(a)(?:b)(?P<n>(c))").groups == 3


def test_deep_nesting_is_refused_instead_of_failing() -> None:
    with pytest.raises(BadPattern, match="nested too deeply"):
        compile_pattern("(" * 5000 + ")" * 5000)
