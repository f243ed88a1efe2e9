"""The rules Envoy holds its configuration to; the verdicts are those of the real Envoy."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.gloo import checks

GOOD_VALUES = ["", "plain", "100%%", "%PROTOCOL%", "%REQ(x?:path)%", "%REQ(a):5%", "a %START_TIME(%Y-%m)% b"]
GOOD_VALUES += ["%METADATA(ROUTE:a:b)%", "%METADATA(CLUSTER:a):5%"]
GOOD_VALUES += ["%PATH:10%", "%DYNAMIC_METADATA(a:b:c)%", "%FILTER_STATE(k:PLAIN)%", "%QUERY_PARAM(q)%"]
BAD_VALUES = [
    "%",
    "a%",
    "%%%",
    "%a%",
    "%NOPE%",
    "%REQ%",
    "%REQ()%",
    "%REQ(a):99999999999999999999%",
    "%REQ(a b)%",
    "%REQ(a?b?c)%",
    "%PROTOCOL(x)%",
]
BAD_VALUES += [
    "%PROTOCOL:5%",
    "%FILTER_STATE(:x)%",
    "%CEL(x)%",
    "%UPSTREAM_METADATA(x):5%",
    "%METADATA(ROUTE)%",
    "%METADATA(NOPE:a)%",
    "a\nb",
    "\0",
    "x" * 16385,
]


@pytest.mark.parametrize("value", GOOD_VALUES)
def test_header_values_envoy_takes_pass(value: str) -> None:
    assert checks.format_string(value) is None


@pytest.mark.parametrize("value", BAD_VALUES)
def test_header_values_envoy_refuses_are_refused(value: str) -> None:
    assert checks.format_string(value)


@pytest.mark.parametrize("name", ["x-a", "X_y", "a.b", "!#$%&'*+^`|~"])
def test_header_names_are_tokens(name: str) -> None:
    assert checks.header_name(name) is None


@pytest.mark.parametrize("name", ["", "a b", "a:b", "é", ":path", "a\n", "x" * 20000])
def test_other_header_names_are_refused(name: str) -> None:
    assert checks.header_name(name)


def test_pseudo_headers_can_be_matched_but_not_changed() -> None:
    assert checks.header_name(":method", pseudo=True) is None
    assert checks.mutable_header(":method")
    assert checks.mutable_header("HOST")


@pytest.mark.parametrize("name", ["a", "a.b-c.example.com", "a.", "10.0.0.1", "::1", "under_score"])
def test_hosts_are_addresses_or_names(name: str) -> None:
    assert checks.host_name(name) is None


@pytest.mark.parametrize(
    "name", ["", ".", "a..b", "-a", "a-", "a b", "a:80", "x" * 64, "a." * 127 + "b", "fe80::1%eth0"]
)
def test_other_hosts_are_refused(name: str) -> None:
    assert checks.host_name(name)


def test_substitutions_refer_to_groups_there_are() -> None:
    assert checks.substitution(r"/\1\0\\", "(a)b") is None
    assert checks.substitution(r"\2", "(a)b")
    assert checks.substitution("\\", "(a)b")


def test_times_can_be_waited_for() -> None:
    assert checks.duration(timedelta(0)) is None
    assert checks.duration(timedelta(0), positive=True)
    assert checks.duration(timedelta(seconds=-1))
    assert checks.duration(timedelta(days=365 * 200))


def test_a_large_expression_is_told_its_limit() -> None:
    assert checks.regex("a{900}", 500) == (
        "too large: about 905 steps, 500 are allowed (settings.gloo.regexMaxProgramSize)"
    )


def test_only_a_large_expression_needs_envoys_deprecated_field() -> None:
    assert checks.regex_matcher("a{20}", 1024).google_re2 is None
    assert checks.regex_matcher("a{200}", 1024).google_re2 is not None
