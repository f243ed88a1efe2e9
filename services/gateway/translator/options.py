"""Options: what a route table's route takes over from the route that delegates to it."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

from protos import gloo
from shared.errors import InvalidResource


def merge_options(
    own: gloo.RouteOptions | None, parent: gloo.RouteOptions | None
) -> gloo.RouteOptions | None:
    """The child's options over the parent's: what the child sets is its own, whole.

    Members of one oneof are one option, so the child's choice also drops a different one of the parent.
    """
    if own is None or parent is None:
        return parent if own is None else own
    stages = own.staged_transformations
    if stages is not None and stages.inherit_transformation and parent.staged_transformations is not None:
        raise InvalidResource("options.stagedTransformations.inheritTransformation", "not supported yet")
    taken = {group for name, group in _fields() if group and _is_set(getattr(own, name))}
    inherited: dict[str, Any] = {
        name: getattr(parent, name)
        for name, group in _fields()
        if group not in taken and not _is_set(getattr(own, name))
    }
    return dataclasses.replace(own, **inherited)


def _is_set(value: object) -> bool:
    """Whether an option is there: None is not, nor is an empty list or map; an empty message is."""
    return value is not None and value != [] and value != {}


@cache
def _fields() -> tuple[tuple[str, str | None], ...]:
    return tuple(
        (field.name, field.metadata["betterproto"].group) for field in dataclasses.fields(gloo.RouteOptions)
    )
