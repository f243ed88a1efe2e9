"""The fields of a message class, read once; what the compiled codecs are made from."""

from __future__ import annotations

import builtins
import dataclasses
import re
import sys
from collections.abc import Callable
from functools import cache, reduce
from types import ModuleType
from typing import Any, cast

import betterproto2

from protos._generated.message_pool import default_message_pool

MessageClass = type[betterproto2.Message]
_NAME = re.compile(r"[\w.]+")
_AROUND = ("list", "dict", "None")


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
    """The fields of *message_class* by number."""
    module = sys.modules[message_class.__module__]
    found = (_field(field, module) for field in dataclasses.fields(cast(Any, message_class)))
    return tuple(sorted(found, key=lambda field: field.number))


def _field(field: dataclasses.Field[Any], module: ModuleType) -> Field:
    meta = betterproto2.FieldMetadata.get(field)
    classes = [_class(name, module) for name in _NAME.findall(str(field.type)) if name not in _AROUND]
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


def _class(name: str, module: ModuleType) -> Any:
    """What a type in an annotation means: ``int``, ``Route``, ``__core__v3__.Address``."""
    first, *rest = name.split(".")
    found = getattr(module, first, None) or getattr(builtins, first)
    return reduce(getattr, rest, found)


def full_name(message_class: MessageClass) -> str:
    """The message's name in its ``.proto`` file: ``gloo.solo.io.Upstream``."""
    return default_message_pool.type_to_url[message_class].rpartition("/")[2]


def class_of(type_url: str) -> MessageClass | None:
    """The class behind a type URL, if this process has loaded it."""
    return default_message_pool.url_to_type.get(type_url)
