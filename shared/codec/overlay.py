"""Messages over each other: what one sets is its own, whole, and the rest it has from another."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar

import betterproto2

from protos._generated.schema import MESSAGES
from shared.codec.schema import MessageClass, fields_of, full_name

M = TypeVar("M", bound=betterproto2.Message)


def overlay(own: M | None, other: M | None) -> M | None:
    """*own* with those fields of *other* that it does not set.

    Members of one oneof are one choice, so one's own also drops a different one of the other.
    """
    if own is None or other is None:
        return other if own is None else own
    fields = {name: getattr(own, name) for name in _set(own)}
    return type(own)(**fields, **{name: getattr(other, name) for name in _lacking(own, other)})


def taken(own: M | None, other: M | None) -> list[str]:
    """The fields that ``overlay`` takes from *other*, as documents call them."""
    if other is None:
        return []
    names = _json_names(type(other))
    return [names[name] for name in (_set(other) if own is None else _lacking(own, other))]


def _lacking(own: betterproto2.Message, other: betterproto2.Message) -> list[str]:
    """The fields that *other* sets and *own* does not."""
    mine, groups = _set(own), _groups(type(own))
    chosen = {groups[name] for name in mine} - {None}
    return [name for name in _set(other) if name not in mine and groups[name] not in chosen]


def _set(message: betterproto2.Message) -> list[str]:
    """The fields that are there; an empty message is, an empty list is not."""
    names, values, unset = _shape(type(message))
    found = values(message)
    return (
        []
        if found == unset
        else [name for name, one, none in zip(names, found, unset, strict=True) if one != none]
    )


@cache
def _shape(
    message_class: MessageClass,
) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]], tuple[Any, ...]]:
    """The names of the fields, how to get all their values, and these where nothing is set."""
    names = tuple(each.name for each in fields_of(message_class))
    values = attrgetter(*names) if len(names) > 1 else lambda message: (getattr(message, names[0]),)
    return names, values, values(message_class())


@cache
def _groups(message_class: MessageClass) -> dict[str, str | None]:
    return {each.name: each.group for each in fields_of(message_class)}


@cache
def _json_names(message_class: MessageClass) -> dict[str, str]:
    """What documents call the fields, by attribute."""
    return {attribute: name for name, (attribute, *_) in MESSAGES[full_name(message_class)].items()}
