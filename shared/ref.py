"""References: which object is meant. Tuples, since tables by reference are looked at all the time."""

from __future__ import annotations

import re
from typing import NamedTuple

_SEGMENT = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]+")


class Ref(NamedTuple):
    """An object by namespace and name; prints as Gloo writes it, ``namespace.name``."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}.{self.name}"


class Source(NamedTuple):
    """An object by kind and reference: what a resource came from, whom a problem belongs to."""

    kind: str
    ref: Ref

    def __str__(self) -> str:
        return f"{self.kind} {self.ref}"


def segment_problem(text: str) -> str | None:
    """Whether *text* can be a name or namespace in a path, and never leads to another one."""
    return None if _SEGMENT.fullmatch(text) else "needs letters, digits and . _ - only"
