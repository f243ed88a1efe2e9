"""Values that several options share, in Envoy's words: shares of requests, texts to match, rewrites."""

from __future__ import annotations

from protos import gloo
from protos.envoy import core, envoy_type, matcher, route
from services.gloo import checks
from services.gloo.plugin import Scope
from shared.report import join

PER_MILLION = envoy_type.FractionalPercentDenominatorType.MILLION
NEVER = core.RuntimeFractionalPercent(default_value=envoy_type.FractionalPercent(numerator=0))
ALWAYS = core.RuntimeFractionalPercent(default_value=envoy_type.FractionalPercent(numerator=100))


def percentage(percent: float, where: str, scope: Scope) -> envoy_type.FractionalPercent:
    if not 0 <= percent <= 100:
        scope.error(where, f"{percent:g} is no percentage; 0 to 100")
        return envoy_type.FractionalPercent()
    return envoy_type.FractionalPercent(numerator=round(percent * 10_000), denominator=PER_MILLION)


def share(
    given: gloo.RuntimeFractionalPercent, where: str, scope: Scope
) -> core.RuntimeFractionalPercent | None:
    if given.default_value is None:
        scope.error(join(where, "defaultValue"), "required")
        return None
    value = fraction(given.default_value)
    return core.RuntimeFractionalPercent(default_value=value, runtime_key=given.runtime_key)


def fraction(given: gloo.FractionalPercent) -> envoy_type.FractionalPercent:
    return envoy_type.FractionalPercent(
        numerator=given.numerator,
        denominator=envoy_type.FractionalPercentDenominatorType(given.denominator),
    )


def regex_matcher(pattern: str, where: str, scope: Scope) -> matcher.RegexMatcher:
    limit = scope.policy.regex_max_program_size
    if problem := checks.regex(pattern, limit):
        scope.error(where, problem)
        return matcher.RegexMatcher(regex=pattern)
    return checks.regex_matcher(pattern, limit)


def text_matcher(given: gloo.StringMatcher, where: str, scope: Scope) -> matcher.StringMatcher | None:
    if given.safe_regex is not None:
        if given.ignore_case:
            scope.warn(join(where, "ignoreCase"), "has no effect on a regex; write (?i) into it")
        at = join(where, "safeRegex.regex")
        return matcher.StringMatcher(safe_regex=regex_matcher(given.safe_regex.regex, at, scope))
    for kind in ("exact", "prefix", "suffix"):
        if (text := getattr(given, kind)) is not None:
            if problem := checks.text_value(text):
                scope.error(join(where, kind), problem)
            if not text and kind != "exact":
                scope.error(join(where, kind), "empty, so it would match everything")
            return matcher.StringMatcher(**{kind: text}, ignore_case=given.ignore_case)
    scope.error(where, "no text to match; one of exact, prefix, suffix, safeRegex")
    return None


def header_matcher(given: gloo.HeaderMatcher, scope: Scope) -> route.HeaderMatcher:
    """A header that is there or, with a value, has it."""
    if problem := checks.header_name(given.name, pseudo=True):
        scope.error("name", problem)
    if not given.value and not given.regex:
        return route.HeaderMatcher(name=given.name, present_match=True, invert_match=given.invert_match)
    if given.regex:
        value = matcher.StringMatcher(safe_regex=regex_matcher(given.value, "value", scope))
    else:
        if problem := checks.text_value(given.value):
            scope.error("value", problem)
        value = matcher.StringMatcher(exact=given.value)
    return route.HeaderMatcher(name=given.name, string_match=value, invert_match=given.invert_match)


def rewrite(given: gloo.RegexMatchAndSubstitute, scope: Scope) -> matcher.RegexMatchAndSubstitute:
    regex = given.pattern.regex if given.pattern is not None else ""
    errors = len(scope.report.errors)
    pattern = regex_matcher(regex, "pattern.regex", scope)
    if len(scope.report.errors) == errors and (problem := checks.substitution(given.substitution, regex)):
        scope.error("substitution", problem)
    return matcher.RegexMatchAndSubstitute(pattern=pattern, substitution=given.substitution)
