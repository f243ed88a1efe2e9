"""What is said of refusals: by whom, of which version of a part, and what is served in its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from services.gloo.parts import part_digest
from services.gloo.resources import LISTENER, TypeUrl
from shared.ref import Source


class Place(NamedTuple):
    """A resource of a role."""

    role: str
    type_url: TypeUrl
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """Who refused, and in which words."""

    client: str
    node: str
    text: str


class Version(NamedTuple):
    """A part as it was wanted once, by the digest of its bytes."""

    place: Place
    part: str
    digest: int

    def is_in(self, parts: Mapping[str, bytes]) -> bool:
        """Whether this very version is among the *parts* of its resource."""
        body = parts.get(self.part)
        return body is not None and part_digest(body) == self.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A part that is not served as it is wanted.

    *good* stands in for it; None: there is nothing; empty: there was, and it was refused, too.
    """

    place: Place
    part: str
    refused: int  # the digest of the bytes that were
    good: bytes | None
    blame: Blame
    at: float
    sources: frozenset[Source] = frozenset()
    elsewhere: bool = False  # it is for another replica to try it again

    @property
    def version(self) -> Version:
        return Version(self.place, self.part, self.refused)

    @property
    def machine(self) -> bool:
        """Whether the refusal may be the machine's fault, as an address in use."""
        return self.place.type_url == LISTENER


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What replicas know of a version: that it was refused, or also that some Envoy takes it."""

    held: Held
    accepted: bool = False
