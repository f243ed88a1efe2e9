"""The plan: which listener of which Proxy has which virtual hosts, and who may not be served why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from services.gateway.translator.conflicts import Claims, Host, settle
from services.gateway.translator.model import GW, VS, Head, Reports, Traits, TranslatedGateway, report_of
from services.gateway.translator.selection import select
from shared.ref import Ref, Source
from shared.report import Report

Before = Mapping[Ref, Mapping[Ref, Claims]]
"""For each gateway the virtual services it serves now, with their domains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One listener of a Proxy: a gateway's head and the virtual hosts by name."""

    gateway: Ref
    head: Head
    hosts: tuple[Host, ...]
    ssl: tuple[tuple[bytes, tuple[Ref, ...]], ...]
    """The distinct TLS configurations, each with the virtual services that have it."""


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
    taken: dict[tuple[str, str, int], Ref] = {}
    proxies: dict[str, list[Listener]] = {}
    losers: set[Ref] = set()
    served: dict[Ref, dict[Ref, Claims]] = {}
    placed: set[Ref] = set()
    for ref in sorted(gateways, key=lambda ref: (ref not in before, ref)):
        found = _head(ref, gateways[ref], services, taken, reports)
        if found is None:
            continue
        head, chosen = found
        settled = settle(ref, chosen, services, before.get(ref, {}))
        losers |= settled.losers
        placed |= set(chosen)
        for source, findings in settled.reports.items():
            report_of(conflicts, source).add(findings)
        listener = Listener(
            gateway=ref, head=head, hosts=tuple(settled.hosts), ssl=_ssl(settled.hosts, services)
        )
        served[ref] = {member: services[member].claims for host in settled.hosts for member in host.members}
        for name in head.proxies:
            taken[name, head.address, head.port] = ref
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


def _head(
    ref: Ref,
    translated: TranslatedGateway,
    services: Mapping[Ref, Traits],
    taken: Mapping[tuple[str, str, int], Ref],
    reports: dict[Source, Report],
) -> tuple[Head, list[Ref]] | None:
    """The version of a gateway to use: the first without errors, else the first that can stand at all.

    What is wrong with the version as written is reported whichever is used.
    """
    possible: list[tuple[Head, list[Ref]]] = []
    for head in (translated.offered, translated.held):
        if head is None:
            continue
        report = Report()
        chosen = select((head.proxies[0], head.name), ref, head, services, report)
        free = _check_free(head, taken, report)
        if head is translated.offered:
            report_of(reports, Source(GW, ref)).add(report)
        if not report.errors:
            return head, chosen
        if free:
            possible.append((head, chosen))
    return possible[0] if possible else None


def _check_free(head: Head, taken: Mapping[tuple[str, str, int], Ref], report: Report) -> bool:
    for name in head.proxies:
        if (owner := taken.get((name, head.address, head.port))) is not None:
            report.error(
                "bindPort",
                f"{head.address} port {head.port} of proxy {name} is already served by gateway {owner}",
            )
            return False
    return True


def _ssl(hosts: Iterable[Host], services: Mapping[Ref, Traits]) -> tuple[tuple[bytes, tuple[Ref, ...]], ...]:
    """The distinct TLS configurations in order of their first virtual service."""
    found: dict[bytes, list[Ref]] = {}
    for ref in sorted(ref for host in hosts for ref in host.members):
        config = services[ref].ssl
        if config is not None:
            found.setdefault(config, []).append(ref)
    return tuple((config, tuple(refs)) for config, refs in found.items())
