"""Envoy resources as values: what translation makes and xDS serves.

A resource carries its name, its encoded bytes, a digest of them and the objects it came from. A set of
resources has a version that is the sum of its members' digests: equal content has an equal version on
every replica and after every restart, and a change costs only what changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NewType

from shared.ref import Source

TypeUrl = NewType("TypeUrl", str)

_PREFIX = "type.googleapis.com/envoy."
CLUSTER = TypeUrl(_PREFIX + "config.cluster.v3.Cluster")
ENDPOINTS = TypeUrl(_PREFIX + "config.endpoint.v3.ClusterLoadAssignment")
LISTENER = TypeUrl(_PREFIX + "config.listener.v3.Listener")
ROUTES = TypeUrl(_PREFIX + "config.route.v3.RouteConfiguration")
SECRET = TypeUrl(_PREFIX + "extensions.transport_sockets.tls.v3.Secret")
EXTENSION = TypeUrl(_PREFIX + "config.core.v3.TypedExtensionConfig")
TYPES = (CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, EXTENSION)
CONFIDENTIAL = frozenset((SECRET, EXTENSION))  # there are keys in them

MODULUS = 2**64


@dataclass(frozen=True, slots=True)
class Resource:
    """One Envoy resource: ``body`` is its encoded message, without the Any around it.

    One that is *late* takes something away that routes have used, and comes after those that no longer do.
    """

    name: str
    body: bytes = field(repr=False)  # it may be a key
    digest: int
    sources: frozenset[Source] = frozenset()
    late: bool = False

    @property
    def version(self) -> str:
        return f"{self.digest:016x}"


def resource(name: str, body: bytes, sources: Iterable[Source] = ()) -> Resource:
    """A resource with its digest: the first 64 bits of blake2b over name and body."""
    digest = int.from_bytes(blake2b(name.encode() + b"\0" + body, digest_size=8).digest(), "big")
    return Resource(name, body, digest, frozenset(sources))


@dataclass(frozen=True, slots=True)
class Resources:
    """One type's resources; immutable, so a stream that reads the old set is never surprised."""

    by_name: Mapping[str, Resource] = field(default_factory=dict)
    digest: int = 0

    @property
    def version(self) -> str:
        return f"{self.digest:016x}"

    @classmethod
    def of(cls, members: Iterable[Resource]) -> Resources:
        return cls().patched(put=members)

    def patched(self, *, put: Iterable[Resource] = (), drop: Iterable[str] = ()) -> Resources:
        """The set after a change; ``self`` is untouched, and is given back when nothing differs."""
        by_name, digest = dict(self.by_name), self.digest
        for name in drop:
            if gone := by_name.pop(name, None):
                digest -= gone.digest
        for member in put:
            if old := by_name.get(member.name):
                digest -= old.digest
            by_name[member.name] = member
            digest += member.digest
        digest %= MODULUS
        return self if digest == self.digest and by_name == self.by_name else Resources(by_name, digest)


EMPTY = Resources()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that one role (``<namespace>~<proxy>``) is served, by type."""

    by_type: Mapping[TypeUrl, Resources] = field(default_factory=dict)

    def of(self, type_url: TypeUrl) -> Resources:
        return self.by_type.get(type_url, EMPTY)

    def replaced(self, changes: Mapping[TypeUrl, Resources]) -> Snapshot:
        return Snapshot({**self.by_type, **changes})
