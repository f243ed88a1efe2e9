"""What a child's options become below a delegating route."""

from __future__ import annotations

from datetime import timedelta

import pytest

from protos.gloo import CorsPolicy, RouteOptions, TransformationStages
from services.gateway.translator.options import merge_options
from shared.errors import InvalidResource

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


def test_deep_inheritance_of_transformations_is_refused_by_name() -> None:
    own = RouteOptions(staged_transformations=TransformationStages(inherit_transformation=True))
    parent = RouteOptions(staged_transformations=TransformationStages())

    with pytest.raises(InvalidResource, match=r"stagedTransformations\.inheritTransformation: not supported"):
        merge_options(own, parent)
    assert merge_options(own, RouteOptions(timeout=SECOND)) is not None
