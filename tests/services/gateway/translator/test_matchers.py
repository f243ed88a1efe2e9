"""What a child's matchers become below a delegating route."""

from __future__ import annotations

import pytest

from protos.gloo import HeaderMatcher, Matcher, MatcherConnectMatcher
from services.gateway.translator.matchers import Inheritance, OutsideParent, inherit

HEADER = HeaderMatcher(name="team", value="one")


def below(prefix: str = "/a", *, path: bool = False, rest: bool = False, **parent: object) -> Inheritance:
    return Inheritance(matcher=Matcher(prefix=prefix, **parent), path=path, rest=rest)  # type: ignore[arg-type]


@pytest.mark.parametrize("own", [Matcher(prefix="/a"), Matcher(exact="/a/b"), Matcher(regex="/a/.*")])
def test_a_path_below_the_prefix_stays_as_it_is(own: Matcher) -> None:
    assert inherit([own], below()) == [own]


@pytest.mark.parametrize(
    "own",
    [Matcher(prefix="/b"), Matcher(exact="/"), Matcher(connect_matcher=MatcherConnectMatcher()), Matcher()],
)
def test_a_path_elsewhere_is_outside(own: Matcher) -> None:
    with pytest.raises(OutsideParent):
        inherit([own], below())


def test_without_matchers_a_route_matches_everything_where_the_parent_does() -> None:
    assert inherit([], below("/")) == [Matcher(prefix="/")]
    with pytest.raises(OutsideParent):
        inherit([], below("/a"))
    assert inherit([], below("/a", path=True)) == [Matcher(prefix="/a")]


def test_a_child_repeats_the_parents_conditions_or_inherits_them() -> None:
    own = Matcher(prefix="/a", methods=["POST"])

    with pytest.raises(OutsideParent):
        inherit([own], below(headers=[HEADER]))
    assert inherit([own], below(headers=[HEADER], methods=["GET"], rest=True)) == [
        Matcher(prefix="/a", headers=[HEADER], methods=["GET", "POST"])
    ]
    assert inherit([Matcher(prefix="/a", headers=[HEADER])], below(headers=[HEADER], rest=True)) == [
        Matcher(prefix="/a", headers=[HEADER])
    ]


def test_case_sensitivity_is_the_parents_and_said_or_not_said_is_the_same() -> None:
    assert inherit([Matcher(prefix="/a", case_sensitive=True)], below())
    with pytest.raises(OutsideParent):
        inherit([Matcher(prefix="/a")], below(case_sensitive=False))


def test_the_parents_messages_are_not_changed() -> None:
    parent, own = below(headers=[HEADER], path=True, rest=True), Matcher(exact="/x")

    inherit([own], parent)

    assert own == Matcher(exact="/x")
    assert parent.matcher == Matcher(prefix="/a", headers=[HEADER])
