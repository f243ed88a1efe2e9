"""Envoy's refusals: its words made comparable, and which resource they are about. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from services.gloo.resources import Resource

MAX_LENGTH = 2_000
_DEBUG_MARK = re.compile(r"\b(?:goo\.gle/debug\w*|debugproto|go/debug\w*)\s+")

# Where Envoy names the resource, the surest first. A name may hold colons, never a colon and a space.
_LISTED = re.compile(r"(?:\(s\) |, |\n)((?:(?!: |, |\n).)+)(?=: )")  # cluster(s) a: words, b: words
_PRINTED = re.compile(r"^(?:cluster_)?name: \"((?:[^\"\\\\]|\\\\.)*)\"", re.MULTILINE)  # all of it, as text
_MENTIONED = re.compile(r"\b(?:in route |(?:listener|cluster|secret|named) ')([^'\s]+)")


def normalise(message: str) -> str:
    """*message* without what differs between two refusals of the same thing, and of bearable length."""
    if "debug" in message:
        message = _DEBUG_MARK.sub("", message)
    text = " ".join(message.split())
    if len(text) <= MAX_LENGTH:
        return text
    return f"{text[: MAX_LENGTH // 2 - 1]}…{text[-MAX_LENGTH // 2 :]}"  # the reason follows what is printed


def blame(message: str, resources: Collection[Resource]) -> tuple[Resource, ...]:
    """Those of *resources* whom *message* names, by name; none when it names nobody."""
    by_name = {resource.name: resource for resource in resources}
    for named in _names(message):
        if found := named & by_name.keys():
            return tuple(by_name[name] for name in sorted(found))
    return ()


def _names(message: str) -> Iterator[set[str]]:
    if "(s) " in message:
        yield set(_LISTED.findall(message))
    yield set(_PRINTED.findall(message))
    yield set(_MENTIONED.findall(message))
