"""Any value of ours as plain JSON values, for logs and debug pages."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Set
from datetime import timedelta
from enum import Enum

import orjson

from shared.ref import Ref, Source


def plain(value: object) -> object:
    """*value* as JSON can hold it: references as text, sets sorted, dataclasses by field."""
    if value is None or (
        isinstance(value, (str, bool, int, float, orjson.Fragment)) and not isinstance(value, Enum)
    ):
        return value
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, (Ref, Source, BaseException)):
        return str(value)
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return {
            key if isinstance(key, str) else str(plain(key)): plain(member) for key, member in value.items()
        }
    if isinstance(value, Set):
        return sorted((plain(member) for member in value), key=str)
    if isinstance(value, (list, tuple)):
        return [plain(member) for member in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return str(value)
