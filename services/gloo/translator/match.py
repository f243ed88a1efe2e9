"""Matchers: which requests a route takes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from protos import gloo
from protos.envoy import matcher, route
from services.gloo import checks
from services.gloo.plugin import Policy, Scope
from services.gloo.values import header_matcher
from shared.report import Report

DEFAULT = gloo.Matcher(prefix="/")
DOT_SEGMENT = re.compile(r"/\.\.?(/|$)")
MAX_QUERY_NAME = 1024


def translate_matcher(given: gloo.Matcher, path: str, policy: Policy, report: Report) -> route.RouteMatch:
    """One matcher of a route; methods become one more header matcher, after all others."""
    out = route.RouteMatch(
        case_sensitive=given.case_sensitive,
        headers=list(translate_headers(given, path, policy, report)),
        query_parameters=list(translate_query(given, path, policy, report)),
    )
    limit = policy.regex_max_program_size
    if given.prefix is not None:
        out.prefix = given.prefix
        if given.prefix:
            check_path(given.prefix, f"{path}.prefix", report)
    elif given.exact is not None:
        out.path = given.exact
        check_path(given.exact, f"{path}.exact", report)
    elif given.regex is not None:
        out.safe_regex = checked_regex(given.regex, limit, f"{path}.regex", report)
        if given.case_sensitive is not None:
            report.warn(f"{path}.caseSensitive", "has no effect on a regex; write (?i) into it")
    elif given.connect_matcher is not None:
        out.connect_matcher = route.RouteMatchConnectMatcher()
    else:
        report.error(path, "no path specifier provided; one of prefix, exact, regex, connectMatcher")
    return out


def translate_headers(
    given: gloo.Matcher, path: str, policy: Policy, report: Report
) -> Iterator[route.HeaderMatcher]:
    for i, header in enumerate(given.headers):
        yield header_matcher(header, Scope(path=f"{path}.headers[{i}]", report=report, policy=policy))
    if given.methods:
        for i, method in enumerate(given.methods):
            if not checks.TOKEN.fullmatch(method):
                report.error(f"{path}.methods[{i}]", f"{checks.shown(method)} is no method")
        methods = checked_regex(
            "|".join(given.methods), policy.regex_max_program_size, f"{path}.methods", report
        )
        yield route.HeaderMatcher(name=":method", string_match=matcher.StringMatcher(safe_regex=methods))


def translate_query(
    given: gloo.Matcher, path: str, policy: Policy, report: Report
) -> Iterator[route.QueryParameterMatcher]:
    for i, query in enumerate(given.query_parameters):
        at = f"{path}.queryParameters[{i}]"
        if not query.name:
            report.error(f"{at}.name", "a query parameter needs a name")
        elif problem := checks.text_value(query.name, MAX_QUERY_NAME):
            report.error(f"{at}.name", problem)
        if query.value or query.regex:
            match = string_matcher(query.value, query.regex, f"{at}.value", policy, report)
            yield route.QueryParameterMatcher(name=query.name, string_match=match)
        else:
            yield route.QueryParameterMatcher(name=query.name, present_match=True)


def string_matcher(
    value: str, is_regex: bool, path: str, policy: Policy, report: Report
) -> matcher.StringMatcher:
    if is_regex:
        return matcher.StringMatcher(
            safe_regex=checked_regex(value, policy.regex_max_program_size, path, report)
        )
    if problem := checks.text_value(value):
        report.error(path, problem)
    return matcher.StringMatcher(exact=value)


def checked_regex(pattern: str, limit: int, path: str, report: Report) -> matcher.RegexMatcher:
    if problem := checks.regex(pattern, limit):
        report.error(path, problem)
        return matcher.RegexMatcher(regex=pattern)
    return checks.regex_matcher(pattern, limit)


def check_path(text: str, path: str, report: Report) -> None:
    """Envoy takes any text for a path; what a request's normalised path never has is worth telling."""
    if not text.startswith("/"):
        report.error(path, f"{checks.shown(text)} must begin with /")
    elif problem := checks.text_value(text, checks.MAX_PATH):
        report.error(path, problem)
    elif "?" in text or "#" in text:
        report.warn(path, "the query and fragment are no part of the path, so this never matches")
    elif DOT_SEGMENT.search(text):
        report.warn(path, "paths are normalised before they are matched, so this never matches")
