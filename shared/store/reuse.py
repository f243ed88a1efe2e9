"""Decode only what changed: a document's parts that are as before stand for the messages made of them.

One route edited in a Proxy of a thousand leaves 999 whose messages are at hand. The decoder takes a message
in place of its document as it is, so an edit costs one comparison of the documents and one decoded route.
The messages are shared from then on: nobody may change a stored object's message.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from protos._generated.google.protobuf import Struct

_CONTRACT = ("protos._generated.gloo.solo.io", "protos._generated.gateway.solo.io")
_CAPITAL = re.compile(r"(?<=[a-z0-9])([A-Z])")


def reuse(new: dict[str, Any], old: Any, message: Any) -> dict[str, Any]:
    """*new* with what equals its counterpart in *old* replaced by its counterpart in *message*."""
    return _of_dict(new, old, message)[0] if isinstance(old, dict) else new


def _of_dict(new: dict[str, Any], old: dict[str, Any], message: Any) -> tuple[dict[str, Any], bool]:
    """*new* with its parts replaced, and whether it equals *old* altogether."""
    out, same = dict(new), new.keys() == old.keys()
    for name, value in new.items():
        before, made = old.get(name), getattr(message, _attribute(name), None)
        if isinstance(value, list) and isinstance(before, list) and isinstance(made, list):
            out[name], equal = _of_list(value, before, made)
        elif isinstance(value, dict) and isinstance(before, dict) and _is_contract(made):
            out[name], equal = _of_dict(value, before, made)
            out[name] = made if equal else out[name]
        else:
            equal = bool(value == before)
            if equal and type(made) is Struct:
                out[name] = made
        same = same and equal
    return out, same


def _of_list(new: list[Any], old: list[Any], made: list[Any]) -> tuple[list[Any], bool]:
    """Members are paired from both ends, so one that came or went does not shift the others apart."""
    if not made or len(made) != len(old) or not _is_contract(made[0]):
        return new, new == old
    if len(new) == len(old) == 1:
        member, equal = _of_dict(new[0], old[0], made[0]) if _are_dicts(new[0], old[0]) else (new[0], False)
        return [made[0] if equal else member], equal
    shorter = min(len(new), len(old))
    head = _equals(new, old, shorter)
    if head == len(new) == len(old):
        return made, True
    tail = _equals(new[::-1], old[::-1], shorter - head)
    middle = new[head : len(new) - tail]
    if len(new) == len(old):
        before = zip(middle, old[head : len(old) - tail], made[head : len(made) - tail], strict=True)
        middle = [_of_member(member, was, message) for member, was, message in before]
    else:  # the members that chunks hold are the very same objects, wherever they stand now
        known = {id(was): message for was, message in zip(old, made, strict=True)}
        middle = [known.get(id(member), member) for member in middle]
    return [*made[:head], *middle, *made[len(made) - tail :]], False


def _equals(new: list[Any], old: list[Any], most: int) -> int:
    """How many members, *most* at the most, the two begin with alike."""
    return next((i for i in range(most) if new[i] is not old[i] and new[i] != old[i]), most)


def _of_member(new: Any, old: Any, message: Any) -> Any:
    if new is old or new == old:
        return message
    return _of_dict(new, old, message)[0] if _are_dicts(new, old) else new


def _are_dicts(new: Any, old: Any) -> bool:
    return isinstance(new, dict) and isinstance(old, dict)


def _is_contract(message: Any) -> bool:
    return type(message).__module__ in _CONTRACT


@cache
def _attribute(name: str) -> str:
    """The attribute for a field's name in documents."""
    return _CAPITAL.sub(r"_\1", name).lower()
