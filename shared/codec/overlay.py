"""Messages over each other: what one sets is its own, whole, and the rest it has from another."""

from __future__ import annotations

import dataclasses
from functools import cache
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
    taken: dict[str, Any] = {name: getattr(other, name) for name in _missing(own)}
    return dataclasses.replace(own, **taken)  # type: ignore[type-var]


def taken(own: M | None, other: M | None) -> list[str]:
    """The fields that ``overlay`` takes from *other*, as documents call them."""
    if other is None:
        return []
    names = _json_names(type(other))
    missing = names if own is None else _missing(own)
    return [names[name] for name in missing if _is_set(other, name)]


def _missing(own: betterproto2.Message) -> list[str]:
    fields = fields_of(type(own))
    chosen = {each.group for each in fields if each.group and _is_set(own, each.name)}
    return [each.name for each in fields if each.group not in chosen and not _is_set(own, each.name)]


def _is_set(message: betterproto2.Message, name: str) -> bool:
    """Whether a field is there; an empty message is, an empty list is not."""
    return bool(getattr(message, name) != _unset(type(message))[name])


@cache
def _unset(message_class: MessageClass) -> dict[str, Any]:
    return {each.name: getattr(message_class(), each.name) for each in fields_of(message_class)}


@cache
def _json_names(message_class: MessageClass) -> dict[str, str]:
    """What documents call the fields, by attribute."""
    return {attribute: name for name, (attribute, *_) in MESSAGES[full_name(message_class)].items()}
