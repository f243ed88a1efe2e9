"""References: which object is meant. Tuples, since tables by reference are looked at all the time."""

from __future__ import annotations

from typing import NamedTuple


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
