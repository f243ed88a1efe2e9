"""The Upstreams a catalog asks for: one a service, or two where services are split by a TLS tag.

An Upstream is named after its service, in the letters an object's name may have. Where two services come
to the same name, the one that has it keeps it and the other gets a suffix made from its own name.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

from protos import gloo
from shared.errors import InvalidSettings
from shared.incremental.units import Steps
from shared.ref import Ref

LABEL: Final = "discovered_by"
PLUGIN: Final = "consulplugin"
DEFAULT_TLS_TAG: Final = "glooUseTls"
LONGEST_NAME: Final = 253
MOST_NAMES: Final = 2**16

Catalog = Mapping[str, Mapping[str, Collection[str]]]
"""By datacenter, the services and their tags."""

Candidate = tuple[str, str]
"""The name that an Upstream would like to have, and its service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsTagging:
    """Instances with *tag* speak TLS; with *split* the others of the service are an Upstream too."""

    tag: str
    root_ca: Ref
    split: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What is discovered, and what it looks like."""

    namespace: str
    tags_allowed: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    tls: TlsTagging | None = None

    @classmethod
    def of(cls, settings: gloo.Settings) -> Rules:
        """Raises ``InvalidSettings`` when TLS tagging lacks its root CA."""
        given = settings.consul_discovery or gloo.SettingsConsulUpstreamDiscoveryConfiguration()
        discovery = settings.discovery.uds_options if settings.discovery else None
        tls = None
        if given.use_tls_tagging:
            if given.root_ca is None or not given.root_ca.name:
                raise InvalidSettings("consulDiscovery.useTlsTagging needs consulDiscovery.rootCa")
            root_ca = Ref(given.root_ca.namespace, given.root_ca.name)
            tls = TlsTagging(
                tag=given.tls_tag_name or DEFAULT_TLS_TAG, root_ca=root_ca, split=given.split_tls_services
            )
        upstreams = settings.upstream_options
        return cls(
            namespace=settings.discovery_namespace or "gloo-system",
            tags_allowed=frozenset(given.service_tags_allowlist),
            labels=dict(discovery.watch_labels) if discovery else {},
            annotations=dict(upstreams.global_annotations) if upstreams else {},
            tls=tls,
        )

    def admit(self, tags: Collection[str]) -> bool:
        """Whether a service with *tags* is discovered.

        Consul's listing of services has no labels: ``key: value`` is looked for as the tag ``key=value``.
        """
        listed = not self.tags_allowed or any(tag in self.tags_allowed for tag in tags)
        return listed and all(
            (f"{key}={value}" if value else key) in tags for key, value in self.labels.items()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An Upstream that ought to be. *extras* (by path) are set once and then its users' to change."""

    ref: Ref
    service: str
    tags: tuple[str, ...]
    datacenters: tuple[str, ...]
    extras: Mapping[tuple[str, ...], Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The document of a new object."""
        consul: dict[str, Any] = {"serviceName": self.service}
        if self.tags:
            consul["serviceTags"] = list(self.tags)
        consul["dataCenters"] = list(self.datacenters)
        metadata = {"name": self.ref.name, "namespace": self.ref.namespace, "labels": {LABEL: PLUGIN}}
        document: dict[str, Any] = {"metadata": metadata, "consul": consul}
        for path, value in self.extras.items():
            parent = document
            for step in path[:-1]:
                parent = parent.setdefault(step, {})
            parent[path[-1]] = value
        return document


def wanted_upstreams(catalog: Catalog, rules: Rules, owners: Mapping[str, str]) -> Steps[dict[Ref, Wanted]]:
    """What *catalog* asks for; *owners* tells which service each discovered Upstream there is stands for."""
    unnamed: list[_Unnamed] = []
    for service, tags, datacenters in merge(catalog):
        yield
        if rules.admit(tags):
            unnamed += _upstreams(service, tags, datacenters, rules)
    names = yield from assign_names([upstream.candidate for upstream in unnamed], owners)
    wanted: dict[Ref, Wanted] = {}
    for upstream in unnamed:
        yield
        named = upstream.named(names[upstream.candidate], rules.namespace)
        wanted[named.ref] = named
    return wanted


def merge(catalog: Catalog) -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Each service once, with the tags and the datacenters it has anywhere, all sorted."""
    tags: defaultdict[str, set[str]] = defaultdict(set)
    datacenters: defaultdict[str, list[str]] = defaultdict(list)
    for datacenter in sorted(catalog):
        for service, own in catalog[datacenter].items():
            tags[service].update(own)
            datacenters[service].append(datacenter)
    for service in sorted(tags):
        yield service, tuple(sorted(tags[service])), tuple(datacenters[service])


def assign_names(candidates: Iterable[Candidate], owners: Mapping[str, str]) -> Steps[dict[Candidate, str]]:
    """An object's name for each (name it would like, service).

    A name goes to the service that has it already, else to the one called so, else to the first.
    """
    contenders: defaultdict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        yield
        liked, service = candidate
        plain, suffixed = sanitise(liked), with_suffix(liked, service)
        kept = suffixed if owners.get(suffixed) == service != owners.get(plain) else plain
        contenders[kept].append(candidate)
    names: dict[Candidate, str] = {}
    for name, rivals in contenders.items():
        yield
        rivals.sort(
            key=lambda rival: (owners.get(name) != rival[1], rival[1] != name, rival[0] != name, rival)
        )
        names[rivals[0]] = name
        names.update({rival: with_suffix(*rival) for rival in rivals[1:]})
    return names


@lru_cache(maxsize=MOST_NAMES)
def sanitise(name: str) -> str:
    """*name* as a DNS-1123 subdomain: lower case, ``-`` for what else is not allowed."""
    clean = _letters(name)
    return clean if clean and len(clean) <= LONGEST_NAME else with_suffix(name, name)


@lru_cache(maxsize=MOST_NAMES)
def with_suffix(name: str, service: str) -> str:
    """*name* sanitised, cut, and made unlike that of any other service with eight letters at its end."""
    stem = _letters(name)[: LONGEST_NAME - 9].rstrip("-.") or "service"
    return f"{stem}-{blake2b(f'{service}/{name}'.encode(), digest_size=4).hexdigest()}"


def _letters(name: str) -> str:
    allowed = re.sub(r"[^a-z0-9.-]", "-", name.lower())
    return ".".join(filter(None, (part.strip("-") for part in allowed.split("."))))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unnamed:
    """An Upstream yet to be named."""

    candidate: Candidate
    service: str
    tags: tuple[str, ...]
    datacenters: tuple[str, ...]
    extras: Mapping[tuple[str, ...], Any]

    def named(self, name: str, namespace: str) -> Wanted:
        return Wanted(
            ref=Ref(namespace, name),
            service=self.service,
            tags=self.tags,
            datacenters=self.datacenters,
            extras=self.extras,
        )


def _upstreams(
    service: str, tags: tuple[str, ...], datacenters: tuple[str, ...], rules: Rules
) -> Iterator[_Unnamed]:
    common: dict[tuple[str, ...], Any] = {
        ("metadata", "annotations", key): value for key, value in rules.annotations.items()
    }

    def unnamed(name: str, extras: Mapping[tuple[str, ...], Any]) -> _Unnamed:
        return _Unnamed(
            candidate=(name, service),
            service=service,
            tags=tags,
            datacenters=datacenters,
            extras={**common, **extras},
        )

    tls = rules.tls
    if tls is None or tls.tag not in tags:
        yield unnamed(service, {})
        return
    root_ca = {"name": tls.root_ca.name, "namespace": tls.root_ca.namespace}
    secured: dict[tuple[str, ...], Any] = {("sslConfig",): {"secretRef": root_ca}}
    if tls.split:
        secured["consul", "instanceTags"] = [tls.tag]
        yield unnamed(service, {("consul", "instanceBlacklistTags"): [tls.tag]})
    yield unnamed(f"{service}-tls", secured)
