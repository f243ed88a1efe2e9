"""Envoy's refusals: its words made comparable, and which resource they are about. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection

from services.gloo.resources import Resource

MAX_LENGTH = 2_000
_DEBUG_MARK = re.compile(r"(?:goo\.gle/debug\w+|debugproto|go/debug\w*)\s*")
_SPACE = re.compile(r"\s+")


def normalise(message: str) -> str:
    """*message* without what differs between two refusals of the same thing, and of bearable length."""
    text = _SPACE.sub(" ", _DEBUG_MARK.sub("", message)).strip()
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 1] + "…"


def blame(message: str, resources: Collection[Resource]) -> tuple[Resource, ...]:
    """Those of *resources* that *message* names, as a word of its own; the longest name wins a place.

    None, when it names nobody.
    """
    by_name = {resource.name: resource for resource in resources if resource.name in message}
    if not by_name:
        return ()
    longest_first = sorted(by_name, key=lambda name: (-len(name), name))
    pattern = r"(?<![\w.\-])(?:" + "|".join(map(re.escape, longest_first)) + r")(?![\w\-])"
    named = {match.group() for match in re.finditer(pattern, message)}
    return tuple(by_name[name] for name in sorted(named))
