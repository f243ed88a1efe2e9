"""A whole Proxy at once, from the same units the running gloo keeps apart: for offline use and for tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from protos import gloo
from services.gloo.plugin import Policy, Reader
from services.gloo.resources import Resource
from services.gloo.translator.addresses import listener_conflicts
from services.gloo.translator.consul import ConsulSelection
from services.gloo.translator.forwarding import forwarding_by
from services.gloo.translator.hybrid import HttpPart, fetches, http_parts, translate_any
from services.gloo.translator.listener import Surroundings
from services.gloo.translator.patches import looked_at
from services.gloo.translator.route import MAX_BODY
from services.gloo.translator.sources import Reports
from services.gloo.translator.supported import refuse_unread
from services.gloo.translator.virtual_host import (
    TranslatedHost,
    find_conflicts,
    join_route_configuration,
    translate_virtual_host,
)
from shared.ref import Source
from shared.report import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class TranslatedProxy:
    """What a Proxy comes to by itself; all other clusters are those of the upstreams."""

    listeners: tuple[Resource, ...]
    routes: tuple[Resource, ...]
    hosts: tuple[TranslatedHost, ...]
    selections: frozenset[ConsulSelection]
    clusters: tuple[Resource, ...]  # that forward to any host
    reports: Reports


def translate_proxy(proxy: gloo.Proxy, owner: Source, read: Reader, policy: Policy) -> TranslatedProxy:
    reports: Reports = {owner: check_proxy(proxy)}
    listeners: list[Resource] = []
    clusters: list[Resource] = []
    routes, hosts, selections = [], [], set[ConsulSelection]()
    conflicts = listener_conflicts(proxy.listeners)
    for i, given in enumerate(proxy.listeners):
        around = Surroundings(
            path=f"listeners[{i}]", owner=owner, conflict=conflicts.get(i, ""), policy=policy, read=read
        )
        done = translate_any(given, around)
        merge_reports(reports, done.reports)
        for part in http_parts(given):
            served = list(
                serve_hosts(given, part, f"listeners[{i}].{part.path}", owner, read, policy, reports)
            )
            hosts += served
            if done.resource is not None and fetches(done.resource, part.routes):
                to = forwarding_by(part.routes, done.clusters)
                routes.append(
                    join_route_configuration(part.routes, served, given.route_options, forwarding_by=to)
                )
        if done.resource is not None:
            listeners += filter(None, [done.resource, done.http3])
            selections |= done.selections
            clusters += done.clusters
    selections.update(*(host.selections for host in hosts))
    return TranslatedProxy(
        listeners=tuple(listeners),
        routes=tuple(routes),
        hosts=tuple(hosts),
        selections=frozenset(selections),
        clusters=tuple(clusters),
        reports=reports,
    )


def check_proxy(proxy: gloo.Proxy) -> Report:
    """What is wrong with a Proxy apart from its listeners."""
    report = Report()
    refuse_unread(proxy, report)
    return report


def serve_hosts(
    given: gloo.Listener,
    part: HttpPart,
    path: str,
    owner: Source,
    read: Reader,
    policy: Policy,
    reports: Reports,
) -> Iterator[TranslatedHost]:
    """The virtual hosts of a part of a listener that can stand beside each other."""
    hosts = [
        translate_virtual_host(
            host,
            f"{path}.virtualHosts[{i}]",
            owner,
            read,
            policy,
            max_body=max_body(given),
            listener=looked_at(part.http.options, gloo.HttpListenerOptions),
            routes=part.routes,
        )
        for i, host in enumerate(part.http.virtual_hosts)
    ]
    conflicts = find_conflicts(hosts)
    for i, host in enumerate(hosts):
        merge_reports(reports, host.reports)
        merge_reports(reports, host.report_of(*conflicts.get(i, ())))
        if i not in conflicts and host.body:
            yield host


def max_body(given: gloo.Listener) -> int:
    """How long the body of a direct response may be on this listener."""
    limit = given.route_options.max_direct_response_body_size_bytes if given.route_options else None
    return MAX_BODY if limit is None else limit


def merge_reports(into: Reports, more: Reports) -> None:
    """Add *more*; what was found before, on another listener with the same host, is not told twice."""
    for source, report in more.items():
        known = into.setdefault(source, Report())
        known.errors += [problem for problem in report.errors if problem not in known.errors]
        known.warnings += [problem for problem in report.warnings if problem not in known.warnings]
