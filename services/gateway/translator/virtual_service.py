"""A virtual service to its part of a virtual host: the unit of the gateway's incremental work."""

from __future__ import annotations

from dataclasses import replace

from protos import gateway
from services.gateway.translator.delegation import TooManyRoutes, Walk
from services.gateway.translator.model import (
    RT,
    RULES,
    VHO,
    VS,
    Lent,
    Part,
    Read,
    Routed,
    Rules,
    Step,
    Traits,
    TranslatedService,
    Version,
    labels_of,
    report_of,
)
from services.gateway.translator.options import add_options
from services.gateway.translator.render import Rendering, render_host, render_ssl
from shared.errors import InvalidResource
from shared.ref import Ref, Source
from shared.report import Report
from shared.store.view import ALL


def translate_service(ref: Ref, read: Read, rendering: Rendering) -> TranslatedService:
    """Translate the version as written; where that will not do, also the last good one."""
    version: Version[gateway.VirtualService] = read(VS, ref)
    outcome = TranslatedService()
    if version.current is not None:
        outcome = _translate(ref, version.current, read, rendering)
    settled = outcome.offered is not None and outcome.offered.complete and not version.contested
    if settled or version.fallback is None:
        return outcome
    last = _translate(ref, version.fallback, read, rendering)
    tables = {source: report for source, report in last.reports.items() if source.kind == RT}
    return replace(
        outcome,
        held=last.offered,
        used=outcome.used | last.used,
        reports={**tables, **outcome.reports},
    )


def _translate(
    ref: Ref, service: gateway.VirtualService, read: Read, rendering: Rendering
) -> TranslatedService:
    source = Source(VS, ref)
    host, reports = service.virtual_host, dict[Source, Report]()
    report = report_of(reports, source)
    if host is None:
        report.error("virtualHost", "is missing")
        return TranslatedService(reports=reports)
    host, lent, used = _with_options(host, ref.namespace, read, report)
    _check_domains(host.domains, report)
    walk, routes = _walk(host, Step(source, "virtualHost"), read)
    for told, findings in walk.reports.items():
        report_of(reports, told).add(findings)
    done = TranslatedService(used=used | walk.used, reports=reports)
    if report.errors:
        return done
    rules: Rules = read(RULES, ALL)
    traits = Traits(
        labels=labels_of(service.metadata),
        domains=tuple(host.domains),
        ssl=render_ssl(service.ssl_config, rules) if service.ssl_config is not None else None,
        has_options=host.options is not None,
    )
    body = render_host(ref, host, routes, rendering, lent)
    return replace(done, offered=Part(traits=traits, body=body, complete=walk.complete))


def _with_options(
    host: gateway.VirtualHost, namespace: str, read: Read, report: Report
) -> tuple[gateway.VirtualHost, Lent, frozenset[Source]]:
    """The host with all its options in place, its own and those it refers to: who lends what, and all that it
    refers to."""

    def warn(path: str, text: str) -> None:
        report.warn(f"virtualHost.{path}", text)

    try:
        options, lent, used = add_options(host.options, host.options_config_refs, VHO, namespace, read, warn)
    except InvalidResource as invalid:
        report.error(f"virtualHost.{invalid.path}", invalid.problem)
        return host, {}, frozenset()
    return (host if options is host.options else replace(host, options=options)), lent, used


def _walk(host: gateway.VirtualHost, start: Step, read: Read) -> tuple[Walk, list[Routed]]:
    """Walk the route tables; again with the last good version of those that were found wrong."""
    held, wrong = frozenset[Ref](), dict[Source, Report]()
    while True:
        walk = Walk(read=read, host=host.options, held=held)
        try:
            routes = walk.expand(host.routes, start)
        except TooManyRoutes as invalid:
            report_of(walk.reports, start.source).error(invalid.path, invalid.problem)
            routes = []
        replaceable = {ref for ref in walk.blamed - held if _has_fallback(ref, read)}
        if not replaceable:
            for source, report in wrong.items():
                report_of(walk.reports, source).errors[:0] = report.errors
            return walk, routes
        wrong |= {Source(RT, ref): walk.reports[Source(RT, ref)] for ref in replaceable}
        held |= replaceable


def _has_fallback(ref: Ref, read: Read) -> bool:
    version: Version[gateway.RouteTable] | None = read(RT, ref)
    return version is not None and version.fallback is not None


def _check_domains(domains: list[str], report: Report) -> None:
    seen: set[str] = set()
    for i, domain in enumerate(domains):
        with report.collect():
            if not domain:
                raise InvalidResource(f"virtualHost.domains[{i}]", "is empty")
            if domain.lower() in seen:
                raise InvalidResource(f"virtualHost.domains[{i}]", f"{domain} is listed twice")
        seen.add(domain.lower())
