"""Matchers: what a route table's route inherits from the route that delegates to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from protos import gloo
from shared.errors import InvalidResource

T = TypeVar("T")

_DEFAULT_PREFIX = "/"


class OutsideParent(InvalidResource):
    """A route that can never match below the route that delegates to it; it is left out with a warning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inheritance:
    """What a delegating route demands of its children's matchers, and what it gives them."""

    matcher: gloo.Matcher
    path: bool
    rest: bool


def default_matchers() -> list[gloo.Matcher]:
    return [gloo.Matcher(prefix=_DEFAULT_PREFIX)]


def inherit(own: Sequence[gloo.Matcher], parent: Inheritance) -> list[gloo.Matcher]:
    """A child's matchers below *parent*; raises ``OutsideParent`` when one cannot match there."""
    if not own:
        own = [parent.matcher] if parent.path else default_matchers()
    return [_inherit_one(matcher, parent, f"matchers[{i}]") for i, matcher in enumerate(own)]


def _inherit_one(own: gloo.Matcher, parent: Inheritance, path: str) -> gloo.Matcher:
    above = parent.matcher
    if parent.path:
        own = replace(
            own,
            prefix=above.prefix,
            exact=above.exact,
            regex=above.regex,
            connect_matcher=above.connect_matcher,
            case_sensitive=above.case_sensitive,
        )
    if parent.rest:
        own = replace(
            own,
            headers=_prepended(above.headers, own.headers),
            query_parameters=_prepended(above.query_parameters, own.query_parameters),
            methods=_prepended(above.methods, own.methods),
        )
    prefix = above.prefix or ""
    if not _path(own).startswith(prefix):
        raise OutsideParent(
            path, f"{_path(own) or 'no path'} is outside the delegating route's prefix {prefix}"
        )
    if _is_case_sensitive(own) != _is_case_sensitive(above):
        raise OutsideParent(f"{path}.caseSensitive", "differs from the delegating route's")
    lists: tuple[tuple[str, Sequence[Any], Sequence[Any]], ...] = (
        ("headers", above.headers, own.headers),
        ("queryParameters", above.query_parameters, own.query_parameters),
        ("methods", above.methods, own.methods),
    )
    for name, wanted, given in lists:
        if any(item not in given for item in wanted):
            raise OutsideParent(
                f"{path}.{name}",
                "must repeat those of the delegating route, or set inheritableMatchers there",
            )
    return own


def _prepended(above: Sequence[T], own: Sequence[T]) -> list[T]:
    return [*above, *(item for item in own if item not in above)]


def _is_case_sensitive(matcher: gloo.Matcher) -> bool:
    return matcher.case_sensitive is not False


def _path(matcher: gloo.Matcher) -> str:
    return matcher.exact or matcher.regex or matcher.prefix or ""
