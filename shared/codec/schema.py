"""The fields of a message class, read once; what the compiled codecs are made from."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, cast, get_args, get_type_hints

import betterproto2

from protos._generated.message_pool import default_message_pool

MessageClass = type[betterproto2.Message]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field: *target* is the class of its messages or enum values, *wrapper* the google class that
    a plain Python value (``timedelta``, ``bool`` …) stands for on the wire."""

    name: str
    number: int
    type: str
    default: Callable[[], Any]
    optional: bool = False
    repeated: bool = False
    group: str | None = None
    target: Any = None
    wrapper: Any = None
    entry: tuple[Field, Field] | None = None

    @property
    def has_presence(self) -> bool:
        """Whether a zero value that is set differs from an absent one."""
        return self.optional or self.group is not None or self.type == betterproto2.TYPE_MESSAGE


@cache
def fields_of(message_class: MessageClass) -> tuple[Field, ...]:
    """The fields of *message_class* by number. (betterproto2's own table resolves the hints once a field.)"""
    hints = get_type_hints(message_class, vars(sys.modules[message_class.__module__]), {})
    found = (_field(field, hints[field.name]) for field in dataclasses.fields(cast(Any, message_class)))
    return tuple(sorted(found, key=lambda field: field.number))


def _field(field: dataclasses.Field[Any], hint: Any) -> Field:
    meta = betterproto2.FieldMetadata.get(field)
    classes = [kind for kind in get_args(hint) if kind is not type(None)] or [hint]
    entry = None
    if meta.map_meta:
        entry = (
            Field(name="key", number=1, type=meta.map_meta[0].proto_type, default=type(None)),
            Field(
                name="value",
                number=2,
                type=meta.map_meta[1].proto_type,
                default=type(None),
                target=classes[1],
                wrapper=meta.map_meta[1].unwrap() if meta.map_meta[1].unwrap else None,
            ),
        )
    assert field.default_factory is not dataclasses.MISSING
    return Field(
        name=field.name,
        number=meta.number,
        type=meta.proto_type,
        default=field.default_factory,
        optional=bool(meta.optional),
        repeated=bool(meta.repeated),
        group=meta.group,
        target=classes[0],
        wrapper=meta.unwrap() if meta.unwrap else None,
        entry=entry,
    )


def full_name(message_class: MessageClass) -> str:
    """The message's name in its ``.proto`` file: ``gloo.solo.io.Upstream``."""
    return default_message_pool.type_to_url[message_class].rpartition("/")[2]


def class_of(type_url: str) -> MessageClass | None:
    """The class behind a type URL, if this process has loaded it."""
    return default_message_pool.url_to_type.get(type_url)
