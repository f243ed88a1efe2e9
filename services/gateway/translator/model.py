"""The values between the stages: versions of objects, routes with their origin, parts of a Proxy."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Generic, TypeAlias, TypeVar

from protos import gateway, gloo
from shared.ref import Ref, Source
from shared.report import Report
from shared.store.keys import (
    GATEWAY,
    HTTP_LISTENER_OPTION,
    LISTENER_OPTION,
    MATCHABLE_HTTP_GATEWAY,
    MATCHABLE_TCP_GATEWAY,
    ROUTE_OPTION,
    ROUTE_TABLE,
    VIRTUAL_HOST_OPTION,
    VIRTUAL_SERVICE,
)

M = TypeVar("M")

Lent: TypeAlias = Mapping[str, Source]
"""By option, the object that it comes from."""

Read: TypeAlias = Callable[[str, Hashable], Any]
"""How a unit looks at an object: ``read(kind, ref)`` is its ``Version`` or None."""

Reports: TypeAlias = Mapping[Source, Report]
Document: TypeAlias = dict[str, Any]
"""A fragment of proto-JSON on its way into the Proxy."""

RULES: Final = "Rules"
"""``read(RULES, ALL)`` is the ``Rules``."""

VS: Final = VIRTUAL_SERVICE.name
RT: Final = ROUTE_TABLE.name
GW: Final = GATEWAY.name
VHO: Final = VIRTUAL_HOST_OPTION.name
RO: Final = ROUTE_OPTION.name
LO: Final = LISTENER_OPTION.name
HLO: Final = HTTP_LISTENER_OPTION.name
MHG: Final = MATCHABLE_HTTP_GATEWAY.name
MTG: Final = MATCHABLE_TCP_GATEWAY.name
OPTIONS: Final = frozenset({VHO, RO, LO, HLO})
MATCHABLES: Final = frozenset({MHG, MTG})


def all_of(kind: str) -> str:
    """``read(all_of(kind), ALL)`` is what selectors see of a kind, by ref: ``TableTraits`` of route tables,
    ``MatchableTraits`` of matchable gateways, and of listener options the sources that they target."""
    return f"{kind}s"


TCP: Final = "TCP"
UDP: Final = "UDP"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The settings that translation depends on."""

    sort_tables: bool = False
    one_way_tls: bool | None = None
    isolate_by_tls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Version(Generic[M]):
    """What is known of one object: the version as written, and the last one that could serve.

    ``contested`` says that the version as written, though right in itself, lost its place to another
    object, so that the last good one is wanted too.
    """

    current: M | None
    good: M | None = None
    contested: bool = False

    @property
    def fallback(self) -> M | None:
        return self.good if self.good is not self.current else None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableTraits:
    """What a selector sees of a route table."""

    labels: Mapping[str, str]
    weight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchableTraits:
    """What a Gateway sees of a matchable one. *known* is false while no version could be read."""

    labels: Mapping[str, str] = field(default_factory=dict)
    ssl: bool = False
    known: bool = True


@dataclass(frozen=True, slots=True)
class Step:
    """An object on the way to a route, and the route's place in its document."""

    source: Source
    path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """A route of a virtual host: as written, what it came to by inheritance, and the objects it came through.

    ``own`` says that nothing was inherited, so that the route as written decides alone.
    """

    written: gateway.Route
    matchers: Sequence[gloo.Matcher]
    options: gloo.RouteOptions | None
    name: str
    own: bool
    steps: tuple[Step, ...]
    lent: Lent = field(default_factory=dict)


Place: TypeAlias = tuple[str, str, str]
"""A proxy, a listener of it, and the section there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """All that decides where a virtual service is served; equal traits mean an equal plan."""

    labels: Mapping[str, str]
    domains: tuple[str, ...]
    ssl: bytes | None = None
    has_options: bool = False
    places: frozenset[Place] | None = None
    """Set on a part read back from a stored Proxy: where it was found."""

    @property
    def claims(self) -> frozenset[str]:
        """The domains as Envoy compares them; none at all means every domain."""
        return _claims(self.domains)


@lru_cache(1 << 16)
def _claims(domains: tuple[str, ...]) -> frozenset[str]:
    """Asked for several times in each plan, of every virtual service."""
    return frozenset(domain.lower() for domain in domains) or frozenset("*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One virtual service translated: its traits, and its virtual host as JSON.

    An incomplete one lacks routes because a route table is broken and was never seen good.
    """

    traits: Traits
    body: bytes
    complete: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TranslatedService:
    """What became of one virtual service.

    ``offered`` is made of the version as written and missing when that has errors; ``held`` is made of
    the last good version where it may be needed. ``used`` are the objects it referred to.
    """

    offered: Part | None = None
    held: Part | None = None
    used: frozenset[Source] = frozenset()
    reports: Reports = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What takes connections of a listener: HTTP with the virtual services it selects, or TCP.

    ``key`` tells it from the others of a hybrid gateway, ``steps`` are the objects it came from, the
    outermost first. ``matched`` is all of it but the virtual hosts, as a matched listener. An ``isolated``
    one is divided by the TLS of its virtual services. ``members`` is set on one read back from a stored
    Proxy: the virtual services it served.
    """

    key: str = ""
    steps: tuple[Step, ...]
    ssl: bool = False
    isolated: bool = False
    selection: Any = None
    members: frozenset[Ref] | None = None
    matched: Document
    lent: tuple[Document, ...] = ()

    @property
    def owner(self) -> Step:
        return self.steps[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """One gateway translated: a listener without its virtual hosts, ``hybrid`` if it has matched ones."""

    name: str
    address: str
    port: int
    proxies: tuple[str, ...]
    hybrid: bool = False
    listener: Document
    lent: tuple[Document, ...] = ()
    sections: tuple[Section, ...]

    @property
    def bound(self) -> frozenset[str]:
        """The protocols of which it takes the port; HTTP/3 goes over UDP, beside TCP."""
        matched = [section.matched for section in self.sections]
        http3 = any("http3" in each.get("httpListener", {}).get("options", {}) for each in matched)
        if any("udpListener" in each for each in matched):
            return frozenset({UDP})
        return frozenset({TCP, UDP} if http3 else {TCP})


@dataclass(frozen=True, slots=True, kw_only=True)
class TranslatedGateway:
    """What became of one gateway; the heads as a virtual service's parts.

    A section that is wrong gives way to its last good version. ``mended`` is the gateway with those in place,
    if there were such; ``lacking`` names sections without one. ``spare`` are last good versions of sections
    that are right in themselves, for the case that there is nothing to serve by them.
    """

    offered: Head | None = None
    held: Head | None = None
    used: frozenset[Source] = frozenset()
    reports: Reports = field(default_factory=dict)
    mended: gateway.Gateway | None = None
    lacking: frozenset[str] = frozenset()
    spare: Mapping[str, Section] = field(default_factory=dict)


def labels_of(metadata: gloo.Metadata | None) -> Mapping[str, str]:
    return {} if metadata is None else metadata.labels


def report_of(reports: dict[Source, Report], source: Source) -> Report:
    return reports.setdefault(source, Report())
