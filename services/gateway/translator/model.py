"""The values between the stages: versions of objects, routes with their origin, parts of a Proxy."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Generic, TypeAlias, TypeVar

from protos import gateway, gloo
from shared.ref import Ref, Source
from shared.report import Report
from shared.store.keys import GATEWAY, ROUTE_OPTION, ROUTE_TABLE, VIRTUAL_HOST_OPTION, VIRTUAL_SERVICE

M = TypeVar("M")

Read: TypeAlias = Callable[[str, Hashable], Any]
"""How a unit looks at an object: ``read(kind, ref)`` is its ``Version`` or None."""

Reports: TypeAlias = Mapping[Source, Report]
Document: TypeAlias = dict[str, Any]
"""A fragment of proto-JSON on its way into the Proxy."""

TABLES: Final = "RouteTables"
"""``read(TABLES, ALL)`` is what selectors choose from: every route table's labels and weight."""
RULES: Final = "Rules"
"""``read(RULES, ALL)`` is the ``Rules``."""

VS: Final = VIRTUAL_SERVICE.name
RT: Final = ROUTE_TABLE.name
GW: Final = GATEWAY.name
VHO: Final = VIRTUAL_HOST_OPTION.name
RO: Final = ROUTE_OPTION.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The settings that translation depends on."""

    sort_tables: bool = False
    one_way_tls: bool | None = None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """All that decides where a virtual service is served; equal traits mean an equal plan."""

    labels: Mapping[str, str]
    domains: tuple[str, ...]
    ssl: bytes | None = None
    has_options: bool = False
    places: frozenset[tuple[str, str]] | None = None
    """Set on a part read back from a stored Proxy: the (proxy, listener) pairs it was found in."""

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
    the last good version where it may be needed.
    """

    offered: Part | None = None
    held: Part | None = None
    tables: frozenset[Ref] = frozenset()
    reports: Reports = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """One gateway translated: a listener without its virtual hosts.

    ``members`` is set on a head read back from a stored Proxy: the virtual services it served.
    """

    name: str
    address: str
    port: int
    ssl: bool
    proxies: tuple[str, ...]
    selection: Any = None
    members: frozenset[Ref] | None = None
    listener: Document
    http: Document | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TranslatedGateway:
    """What became of one gateway; the heads as a virtual service's parts."""

    offered: Head | None = None
    held: Head | None = None
    report: Report = field(default_factory=Report)


def labels_of(metadata: gloo.Metadata | None) -> Mapping[str, str]:
    return {} if metadata is None else metadata.labels


def report_of(reports: dict[Source, Report], source: Source) -> Report:
    return reports.setdefault(source, Report())
