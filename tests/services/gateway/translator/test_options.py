"""What a child's options become below a delegating route."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from protos.gloo import (
    CorsPolicy,
    HeaderMatcher,
    Matcher,
    RequestMatch,
    RequestResponseTransformations,
    ResponseMatch,
    RouteOptions,
    TransformationStages,
    VirtualHostOptions,
)
from services.gateway.translator.options import inherit_transformations, merge_options

SECOND = timedelta(seconds=1)


def test_what_the_child_sets_is_its_own_whole() -> None:
    parent = RouteOptions(timeout=SECOND, cors=CorsPolicy(allow_origin=["a"], max_age="1"))
    own = RouteOptions(prefix_rewrite="/x", cors=CorsPolicy(allow_origin=["b"]))

    merged = merge_options(own, parent)

    assert merged == RouteOptions(timeout=SECOND, prefix_rewrite="/x", cors=CorsPolicy(allow_origin=["b"]))


def test_an_empty_message_is_set_too() -> None:
    merged = merge_options(RouteOptions(cors=CorsPolicy()), RouteOptions(cors=CorsPolicy(max_age="1")))

    assert merged == RouteOptions(cors=CorsPolicy())


def test_members_of_one_oneof_replace_each_other() -> None:
    merged = merge_options(RouteOptions(auto_host_rewrite=False), RouteOptions(host_rewrite="a.com"))

    assert merged == RouteOptions(auto_host_rewrite=False)


def test_one_side_alone_is_taken_as_it_is() -> None:
    empty, set_ = RouteOptions(), RouteOptions(timeout=SECOND)

    assert merge_options(None, set_) is set_
    assert merge_options(empty, None) is empty
    assert merge_options(None, None) is None


def stage(*headers: str) -> RequestResponseTransformations:
    """A stage that tells requests, and answers, apart by these headers."""
    matchers = [HeaderMatcher(name=name) for name in headers]
    return RequestResponseTransformations(
        request_transforms=[RequestMatch(matcher=Matcher(headers=[each])) for each in matchers],
        response_transforms=[ResponseMatch(matchers=[each]) for each in matchers],
    )


def test_transformations_of_the_parent_come_after_own_ones_that_ask_for_them() -> None:
    parent = TransformationStages(early=stage("a"), regular=stage("b", "c"), escape_characters=True)
    own = TransformationStages(regular=stage("d"), inherit_transformation=True)

    merged = merge_options(
        RouteOptions(staged_transformations=own),
        RouteOptions(staged_transformations=parent, timeout=SECOND),
    )

    expected = TransformationStages(early=stage("a"), regular=stage("d", "b", "c"), escape_characters=True)
    assert merged == RouteOptions(staged_transformations=expected, timeout=SECOND)


def test_own_transformations_that_do_not_ask_replace_those_of_the_parent() -> None:
    own = RouteOptions(staged_transformations=TransformationStages(regular=stage("a")))
    parent = RouteOptions(staged_transformations=TransformationStages(early=stage("b")))

    assert merge_options(own, parent) == own


def test_a_choice_about_escaping_is_kept() -> None:
    own = TransformationStages(escape_characters=False, inherit_transformation=True)
    parent = TransformationStages(escape_characters=True)

    merged = inherit_transformations(
        RouteOptions(staged_transformations=own), VirtualHostOptions(staged_transformations=parent)
    )

    assert merged == RouteOptions(staged_transformations=TransformationStages(escape_characters=False))


def test_where_there_is_nothing_to_inherit_the_wish_stays_to_be_told() -> None:
    own = RouteOptions(staged_transformations=TransformationStages(inherit_transformation=True))

    assert inherit_transformations(own, VirtualHostOptions()) is own
    assert merge_options(own, RouteOptions(timeout=SECOND)) == replace(own, timeout=SECOND)
