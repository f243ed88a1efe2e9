"""Documents with every field under its one name, for those who look into them without a message class.

What people wrote may be in snake case or in the words of releases before 1.0; ``decode`` reads all of them,
and this gives the same document as it would be written today.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from protos._generated.schema import MESSAGES
from shared.codec.names import INLINED, SINGLE, old_names


def canonical(full_name: str, document: Any) -> Any:
    """*document*, of the type *full_name*, in today's words; what is no field of it stands as it is."""
    if not isinstance(document, dict):
        return document
    named: dict[str, Any] = {}
    spellings = _spellings(full_name)
    for key, item in document.items():
        if key in INLINED.get(full_name, ()) and isinstance(item, dict):
            named |= canonical(full_name, item)
            continue
        name = spellings.get(key, key)
        many = [item] if key == SINGLE and name != key and not isinstance(item, list) else item
        named[name] = _value(full_name, name, many)
    return named


def _value(full_name: str, name: str, value: Any) -> Any:
    _, kind, type_name, _, shape = MESSAGES[full_name].get(name, ("", "", "", "", ""))
    if kind != "message":
        return value
    if shape == "list" and isinstance(value, list):
        return [canonical(type_name, item) for item in value]
    if shape == "map" and isinstance(value, dict):
        return {key: canonical(type_name, item) for key, item in value.items()}
    return canonical(type_name, value) if shape == "one" else value


@cache
def _spellings(full_name: str) -> Mapping[str, str]:
    """The JSON name of every accepted spelling."""
    return {
        spelling: name
        for name, (attribute, _, type_name, _, _) in MESSAGES[full_name].items()
        for spelling in (*old_names(name, type_name), attribute, name)
    }
