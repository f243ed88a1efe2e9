"""The plan: which listener of which Proxy has which virtual hosts, and who may not be served why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import orjson

from services.gateway.translator.conflicts import Claims, Host, settle
from services.gateway.translator.model import (
    GW,
    UDP,
    VS,
    Document,
    Head,
    Reports,
    Section,
    Traits,
    TranslatedGateway,
    report_of,
)
from services.gateway.translator.selection import select
from shared.ref import Ref, Source
from shared.report import Report

Address = tuple[str, str, str, int]
"""What only one gateway can have: a Proxy, a protocol, an address and a port."""

Before = Mapping[tuple[Ref, str], Mapping[Ref, Claims]]
"""For each gateway and section the virtual services it serves now, with their domains."""

Chosen = tuple[Section, list[Ref]]
Ssl = tuple[tuple[bytes, tuple[Ref, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A section with its virtual hosts by name."""

    section: Section
    hosts: tuple[Host, ...]
    ssl: Ssl
    """The distinct TLS configurations, each with the virtual services that have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One listener of a Proxy: a gateway's head, and what takes its connections."""

    gateway: Ref
    head: Head
    placed: tuple[Placed, ...]

    @property
    def hosts(self) -> list[Host]:
        return [host for placed in self.placed for host in placed.hosts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All Proxies by name; what was decided about objects beyond their own translation."""

    proxies: Mapping[str, tuple[Listener, ...]] = field(default_factory=dict)
    losers: frozenset[Ref] = frozenset()
    reports: Reports = field(default_factory=dict)
    conflicts: Reports = field(default_factory=dict)
    before: Before = field(default_factory=dict)

    def shares(self) -> dict[Source, set[str]]:
        """The Proxies that every gateway and virtual service has a share in."""
        shares: dict[Source, set[str]] = {}
        for name, listeners in self.proxies.items():
            for listener in listeners:
                shares.setdefault(Source(GW, listener.gateway), set()).add(name)
                for host in listener.hosts:
                    for ref in host.members:
                        shares.setdefault(Source(VS, ref), set()).add(name)
        return shares


def plan(gateways: Mapping[Ref, TranslatedGateway], services: Mapping[Ref, Traits], before: Before) -> Plan:
    """Place *services* on *gateways*; equal arguments give an equal plan on every replica."""
    reports: dict[Source, Report] = {}
    conflicts: dict[Source, Report] = {}
    taken: dict[Address, Ref] = {}
    proxies: dict[str, list[Listener]] = {}
    losers: set[Ref] = set()
    served: dict[tuple[Ref, str], dict[Ref, Claims]] = {}
    placed: set[Ref] = set()
    incumbent = {ref for ref, _ in before}
    for ref in sorted(gateways, key=lambda ref: (ref not in incumbent, ref)):
        found = _head(ref, gateways[ref], services, taken, reports)
        if found is None:
            continue
        head, sections = found
        listener = Listener(gateway=ref, head=head, placed=())
        served.setdefault((ref, ""), {})
        for section, chosen in sections:
            key = (ref, section.key)
            settled = settle(ref, chosen, services, before.get(key, {}))
            losers |= settled.losers
            placed |= set(chosen)
            for source, findings in settled.reports.items():
                report_of(conflicts, source).add(findings)
            served.setdefault(key, {}).update(
                {member: services[member].claims for host in settled.hosts for member in host.members}
            )
            listener = replace(listener, placed=(*listener.placed, *_place(section, settled.hosts, services)))
        for name in head.proxies:
            taken |= dict.fromkeys(_addresses(name, head), ref)
            proxies.setdefault(name, []).append(listener)
    for ref in services.keys() - placed:
        report_of(reports, Source(VS, ref)).warn("", "no gateway serves this virtual service")
    return Plan(
        proxies={
            name: tuple(sorted(proxies[name], key=lambda listener: listener.head.name))
            for name in sorted(proxies)
        },
        losers=frozenset(losers),
        reports=reports,
        conflicts=conflicts,
        before=served,
    )


def _place(section: Section, hosts: list[Host], services: Mapping[Ref, Traits]) -> Iterator[Placed]:
    """*section* with its hosts; an isolated one once for each TLS configuration, with its own hosts alone."""
    ssl = _ssl(hosts, services)
    if not (section.isolated and section.ssl):
        yield Placed(section=section, hosts=tuple(hosts), ssl=ssl)
        return
    for config, refs in ssl:
        names = orjson.loads(config).get("sniDomains")
        matcher = dict(section.matched.get("matcher", {}))
        matcher["sslConfig"] = matcher.get("sslConfig", {}) | ({"sniDomains": names} if names else {})
        yield Placed(
            section=replace(section, matched={"matcher": matcher, **_without_matcher(section.matched)}),
            hosts=tuple(host for host in hosts if services[host.members[0]].ssl == config),
            ssl=((config, refs),),
        )


def _without_matcher(matched: Document) -> Document:
    return {name: part for name, part in matched.items() if name != "matcher"}


def _head(
    ref: Ref,
    translated: TranslatedGateway,
    services: Mapping[Ref, Traits],
    taken: Mapping[Address, Ref],
    reports: dict[Source, Report],
) -> tuple[Head, list[Chosen]] | None:
    """The version of a gateway to use: the first without errors, else the first that can stand at all. Of a
    hybrid one each section is chosen by itself.

    What is wrong with the version as written is reported whichever is used.
    """
    possible: list[tuple[Head, list[Chosen]]] = []
    for head in (translated.offered, translated.held):
        if head is None:
            continue
        report, chosen, told = Report(), list[Chosen](), dict[Source, Report]()
        free = _check_free(head, taken, report)
        for section in head.sections:
            own = Report()
            choice = section, select((head.proxies[0], head.name, section.key), section, services, own)
            if own.errors and head.hybrid:
                choice = _spare(translated.spare.get(section.key), head, services) or choice
            elif not head.hybrid:
                report.errors += own.errors
            chosen.append(choice)
            report_of(told, section.owner.source).add(own)
            for step in section.steps[:-1]:
                for error in own.errors:
                    report_of(told, step.source).warn(step.path, f"{section.owner.source}: {error}")
        if head is translated.offered:
            report_of(told, Source(GW, ref)).errors += [
                error for error in report.errors if error not in report_of(told, Source(GW, ref)).errors
            ]
            for source, findings in told.items():
                report_of(reports, source).add(findings)
        if not report.errors:
            return head, chosen
        if free:
            possible.append((head, chosen))
    return possible[0] if possible else None


def _spare(section: Section | None, head: Head, services: Mapping[Ref, Traits]) -> Chosen | None:
    """The last good version of a section, if all is right with it."""
    if section is None:
        return None
    report = Report()
    chosen = select((head.proxies[0], head.name, section.key), section, services, report)
    return None if report.errors else (section, chosen)


def _check_free(head: Head, taken: Mapping[Address, Ref], report: Report) -> bool:
    for name in head.proxies:
        for address in _addresses(name, head):
            if (owner := taken.get(address)) is not None:
                of_udp = " of UDP" if address[1] == UDP else ""
                where = f"{head.address} port {head.port}{of_udp} of proxy {name}"
                report.error("bindPort", f"{where} is already served by gateway {owner}")
                return False
    return True


def _addresses(proxy: str, head: Head) -> list[Address]:
    return [(proxy, protocol, head.address, head.port) for protocol in sorted(head.bound)]


def _ssl(hosts: Iterable[Host], services: Mapping[Ref, Traits]) -> Ssl:
    """The distinct TLS configurations in order of their first virtual service."""
    found: dict[bytes, list[Ref]] = {}
    for ref in sorted(ref for host in hosts for ref in host.members):
        config = services[ref].ssl
        if config is not None:
            found.setdefault(config, []).append(ref)
    return tuple((config, tuple(refs)) for config, refs in found.items())
