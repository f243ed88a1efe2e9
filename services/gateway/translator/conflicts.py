"""Conflicts: virtual services that want the same domains, gateways that want the same address."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from services.gateway.translator.model import VS, Traits, report_of
from shared.ref import Ref, Source
from shared.report import Report

Claims = frozenset[str]

CATCH_ALL = "catchall"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A virtual host of a listener: one virtual service, or several with the same domains."""

    name: str
    members: tuple[Ref, ...]


@dataclass(slots=True, kw_only=True)
class Settled:
    """Who serves what on one listener."""

    hosts: list[Host] = field(default_factory=list)
    losers: set[Ref] = field(default_factory=set)
    reports: dict[Source, Report] = field(default_factory=dict)


@dataclass(slots=True)
class _Group:
    claims: Claims
    members: list[Ref]


def settle(
    gateway: Ref, chosen: Iterable[Ref], traits: Mapping[Ref, Traits], before: Mapping[Ref, Claims]
) -> Settled:
    """Give every domain of a listener to one virtual host.

    Virtual services with the very same domains share a host, as in Gloo 1.2.4, if their TLS is the same
    and at most one of them has virtual host options. Otherwise a domain goes to whom it belonged *before*,
    else to the first by namespace and name; who wanted it too has an error, and its owner a warning, for
    either may be the mistaken one.
    """
    settled = Settled()
    groups: dict[str, _Group] = {}
    for ref in sorted(chosen, key=lambda ref: (_seniority(traits[ref], before.get(ref)), ref)):
        claims = traits[ref].claims
        rivals = {id(groups[domain]): groups[domain] for domain in sorted(claims) if domain in groups}
        if not rivals:
            groups |= dict.fromkeys(claims, _Group(claims, [ref]))
            continue
        obstacles = list(_obstacles(ref, claims, list(rivals.values()), traits))
        if not obstacles:
            next(iter(rivals.values())).members.append(ref)
            continue
        settled.losers.add(ref)
        where = f"on gateway {gateway}"
        for owner, path, text in obstacles:
            report_of(settled.reports, Source(VS, ref)).error(path, f"{text} virtual service {owner} {where}")
            report_of(settled.reports, Source(VS, owner)).warn(
                path, f"virtual service {ref} {where} wants the same domains and is rejected"
            )
    unique = {id(group): group for group in groups.values()}
    settled.hosts = sorted(
        (_host(group, traits) for group in unique.values()), key=lambda host: (host.name, host.members)
    )
    return settled


def _seniority(traits: Traits, before: Claims | None) -> int:
    """First those whose domains are theirs already, then those who change them, then the new ones."""
    if before is None:
        return 2
    return 0 if before == traits.claims else 1


def _obstacles(
    ref: Ref, claims: Claims, rivals: list[_Group], traits: Mapping[Ref, Traits]
) -> Iterator[tuple[Ref, str, str]]:
    """Why *ref* cannot join its rivals' virtual host: which of them, where, and the words."""
    for rival in rivals:
        if rival.claims != claims:
            shared = ", ".join(sorted(rival.claims & claims))
            yield min(rival.members), "virtualHost.domains", f"{shared}: already served by"
    members = sorted(rivals[0].members)
    if rivals[0].claims != claims:
        return
    if traits[members[0]].ssl != traits[ref].ssl:
        yield members[0], "sslConfig", "is not the same as that of the same domains in"
    if traits[ref].has_options:
        for member in members:
            if traits[member].has_options:
                yield member, "virtualHost.options", "the same domains have options already in"


def _host(group: _Group, traits: Mapping[Ref, Traits]) -> Host:
    members = tuple(sorted(group.members))
    if len(members) == 1:
        return Host(name=str(members[0]), members=members)
    named = any(traits[ref].domains for ref in members)
    return Host(name=merged_name(group.claims if named else ()), members=members)


def merged_name(domains: Collection[str]) -> str:
    return f"merged-{','.join(sorted(domains))}" if domains else CATCH_ALL
