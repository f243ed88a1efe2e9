"""Envoy's words: which parts of a refused resource they point at. It guides the search and proves nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping

from services.gloo.parts import WHOLE, parts_of
from services.gloo.resources import ROUTES, Resource

MOST_WORDS = 64  # of Envoy's text that are looked for
LEAST_WORD = 3  # characters
_WORD_END = re.compile(r"[\s'\"]+")
_HOST_NUMBER = re.compile(r"RouteConfigurationValidationError\.VirtualHosts\[(\d+)\]")


def counted(text: str, resource: Resource, parts: Mapping[str, bytes]) -> set[str]:
    """The virtual host that Envoy's text gives by its number."""
    if (found := _HOST_NUMBER.search(text)) is None:
        return set()
    hosts = [part for part in parts_of(ROUTES, resource.body) if part != WHOLE]
    return set(hosts[int(found[1]) : int(found[1]) + 1]) & parts.keys()


def accused(text: str, parts: Mapping[str, bytes]) -> set[str]:
    """The parts that hold a word of Envoy's text which the fewest of them hold; none when all or none do.

    A word may be a virtual host's name, a route's, a domain, or the value that Envoy dislikes.
    """
    words = {word.rstrip(".,;:)") for word in _WORD_END.split(text)}
    found: set[str] = set()
    for word in sorted(words, key=lambda word: (-len(word), word))[:MOST_WORDS]:
        if len(word) < LEAST_WORD:
            break  # the rest is no longer
        having = {part for part, body in parts.items() if word.encode() in body}
        if having and len(having) < (len(found) or len(parts)):
            found = having
    return found
