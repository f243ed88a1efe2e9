"""Virtual hosts: the unit that is translated and encoded by itself, and their join to a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest

from protos import gloo
from protos.envoy import route
from services.gloo import checks
from services.gloo.plugin import Policy, Reader, Scope
from services.gloo.resources import Resource, resource
from services.gloo.translator.consul import ConsulSelection
from services.gloo.translator.destination import Found
from services.gloo.translator.forwarding import settled
from services.gloo.translator.names import FALLBACK_CLUSTER, virtual_host_name
from services.gloo.translator.patches import Joined, join_patches, looked_at
from services.gloo.translator.route import MAX_BODY, Surroundings, fallback_route, translate_route
from services.gloo.translator.scripts import scripts_in
from services.gloo.translator.sources import Lent, Origin, Reports, attribute, lent_to, origins_of
from services.gloo.translator.supported import refuse_unread
from shared.codec.encode import encode, length_delimited, varint
from shared.ref import Ref, Source
from shared.report import Report

ROUTES_FIELD = 3  # of envoy.config.route.v3.VirtualHost
VIRTUAL_HOSTS_FIELD = 2  # of envoy.config.route.v3.RouteConfiguration


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedRoute:
    """One route as it is to be served, with all it came to and what it looked at for that."""

    given: gloo.Route
    encoded: tuple[bytes, ...]
    report: Report
    found: Found
    origins: tuple[Origin, ...]
    reads: Mapping[tuple[str, Ref], object]
    lent: Lent


@dataclass(frozen=True, slots=True, kw_only=True)
class TranslatedHost:
    """A virtual host as bytes, with all that others need to know of it.

    ``body`` holds what can be served: without the broken routes, or with the fallback in their place. It
    is empty when options of the host itself are broken, for without them (say, without authentication) it
    would let through what it must not.
    """

    name: str
    domains: tuple[str, ...]
    body: bytes
    owners: tuple[Origin, ...]
    sources: frozenset[Source]
    reports: Reports
    clusters: frozenset[str]
    scripts: frozenset[str]
    selections: frozenset[ConsulSelection]
    served: Sequence[ServedRoute] = field(repr=False, compare=False)  # one for each route
    terms: object = field(repr=False, compare=False)  # under which ``served`` holds

    @property
    def broken(self) -> bool:
        return any(report.errors for report in self.reports.values())

    def report_of(self, *errors: str) -> Reports:
        """Errors of the host as a whole, handed to the objects it came from."""
        report, reports = Report(), Reports()
        for text in errors:
            report.error("", text)
        attribute(report, self.owners, reports)
        return reports

    def refused(self, text: str, good: bytes | None) -> Reports:
        """An Envoy's refusal of this host, for which *good* stands in: handed to the object that all routes
        which are new in it are from, else to those of the whole host."""
        new = [
            route_origins(each.origins, self.owners, i)
            for i, each in enumerate(self.served)
            if good and any(length_delimited(ROUTES_FIELD, one) not in good for one in each.encoded)
        ]
        if len({origins[-1].source if origins else None for origins in new}) != 1:
            return self.report_of(text)
        origins = new[0]
        if len(new) > 1:  # it may be any of them
            if not origins or origins[-1].source in {each.source for each in self.owners}:
                return self.report_of(text)
            origins = [*origins[:-1], Origin(source=origins[-1].source)]
        report, reports = Report(), Reports()
        report.error("", text)
        attribute(report, origins, reports)
        return reports


def translate_virtual_host(
    host: gloo.VirtualHost,
    path: str,
    owner: Source,
    read: Reader,
    policy: Policy,
    *,
    max_body: int = MAX_BODY,
    listener: gloo.HttpListenerOptions | None = None,
    routes: str = "",
    previous: TranslatedHost | None = None,
) -> TranslatedHost:
    """*path* is the host's in *owner*, the Proxy: there go the problems of a host that names no sources.
    *routes* is the name of its route configuration.

    With its *previous* translation at hand only the routes that differ from it are translated; what the
    others read is read again, so the record of reads is the same as without. Of the *listener*'s options
    those are here that ``looked_at`` leaves.
    """
    name = virtual_host_name(host.name)
    found, report, reports = Found(), Report(), Reports()
    refuse_unread(host, report)
    if not host.name:
        report.error("name", "required")
    listener = listener or gloo.HttpListenerOptions()
    scope = Scope(path="options", report=report, policy=policy, read=read, listener=listener)
    patch = join_patches("on_virtual_host", host.options, scope)
    usable = not report.errors
    domains = valid_domains(host.domains, report)
    found.clusters |= patch.clusters
    origins = origins_of(host)
    sources = {origin.source for origin in origins} or {owner}
    inherited = looked_at(host.options, gloo.VirtualHostOptions)
    around = Surroundings(
        virtual_host=name,
        routes=routes,
        read=read,
        policy=policy,
        max_body=max_body,
        host=inherited,
        listener=listener,
    )
    terms = (name, policy, max_body, inherited, listener)
    known = previous.served if previous is not None and previous.terms == terms else ()
    served: list[ServedRoute] = []
    for i, (given, before) in enumerate(zip_longest(host.routes, known[: len(host.routes)])):
        each = reuse(before, given, read) or serve_route(given, i, around)
        served.append(each)
        found.add(each.found)
        sources.update(origin.source for origin in each.origins)
        if not each.report.clean:
            here = [Origin(source=owner, path=f"{path}.routes[{i}]")]
            attribute(each.report, route_origins(each.origins, origins, i) or here, reports, each.lent)
    owners = host_origins(origins) or [Origin(source=owner, path=path)]
    body = b""
    if usable and domains:
        encoded = [one for each in served for one in each.encoded]
        with report.collect():
            body = join_host(name, domains, encoded, patch)
    attribute(report, owners, reports, lent_to(host))
    return TranslatedHost(
        name=name,
        domains=tuple(domains),
        body=body,
        owners=tuple(owners),
        sources=frozenset(sources),
        reports=reports,
        clusters=frozenset(found.clusters),
        scripts=scripts_in(body),
        selections=frozenset(found.selections),
        served=served,
        terms=terms,
    )


def join_host(name: str, domains: Sequence[str], routes: Sequence[bytes], patch: Joined) -> bytes:
    """A virtual host from its encoded routes, in the order of its fields."""
    tail = route.VirtualHost()
    patch.write(tail)
    head = encode(route.VirtualHost(name=name, domains=list(domains)))
    return b"".join((head, *(length_delimited(ROUTES_FIELD, each) for each in routes), encode(tail)))


def reuse(served: ServedRoute | None, given: gloo.Route, read: Reader) -> ServedRoute | None:
    """*served*, if it is of the same route and everything it looked at is as it was."""
    if served is None or (served.given is not given and served.given != given):
        return None
    now = [read(*key) is then for key, then in served.reads.items()]  # all of them, for the record
    return served if all(now) else None


def serve_route(given: gloo.Route, index: int, around: Surroundings) -> ServedRoute:
    """Translate and encode one route. A broken one is left out, or gives way to the fallback."""
    reads: dict[tuple[str, Ref], object] = {}

    def read(kind: str, ref: Ref, /) -> object:
        if (kind, ref) not in reads:
            reads[kind, ref] = around.read(kind, ref)
        return reads[kind, ref]

    found = Found()
    routes, report = translate_route(given, index, replace(around, read=read), found)
    encoded: list[bytes] = []
    if not report.errors:
        with report.collect():
            encoded = [encode(each) for each in routes]
    if report.errors:
        found = Found()
        if around.policy.replace_invalid_routes and routes:
            found = Found(clusters={FALLBACK_CLUSTER})
            encoded = [encode(fallback_route(each)) for each in routes]
    return ServedRoute(
        given=given,
        encoded=tuple(encoded),
        report=report,
        found=found,
        origins=origins_of(given),
        reads=reads,
        lent=lent_to(given),
    )


def valid_domains(domains: Sequence[str], report: Report) -> list[str]:
    """The domains Envoy can match; none at all stands for every one."""
    valid: dict[str, str] = {}
    for i, domain in enumerate(domains or ("*",)):
        if problem := domain_problem(domain):
            report.error(f"domains[{i}]", problem)
        elif domain.lower() in valid:
            report.error(f"domains[{i}]", f"{checks.shown(domain)} is listed twice")
        else:
            valid[domain.lower()] = domain
    return list(valid.values())


def domain_problem(domain: str) -> str | None:
    if not domain:
        return "an empty domain"
    inner = domain[1:] if domain.startswith("*") else domain.removesuffix("*")
    if "*" in inner:
        return f"{checks.shown(domain)}: one * may stand at the beginning or at the end, nowhere else"
    return checks.authority(domain)


def host_origins(origins: Sequence[Origin]) -> list[Origin]:
    """Where in each of its sources a virtual host stands."""
    return [
        Origin(source=each.source, path="virtualHost" if each.path is None else each.path) for each in origins
    ]


def route_origins(inner: Sequence[Origin], outer: Sequence[Origin], index: int) -> list[Origin]:
    """Where in each of its sources a route stands, so far as they tell.

    A route that tells its sources but not where in them is at its own index when it comes straight from
    the one VirtualService its host was made of. One that tells nothing belongs to the host's sources.
    """
    if not inner:
        return [Origin(source=e.source, path=f"{e.path}.routes[{index}]") for e in host_origins(outer)]
    straight = {each.source for each in inner} == {each.source for each in outer}
    guess = f"virtualHost.routes[{index}]" if straight else ""
    return [Origin(source=e.source, path=guess if e.path is None else e.path) for e in inner]


def join_route_configuration(
    name: str,
    hosts: Sequence[TranslatedHost],
    options: gloo.RouteConfigurationOptions | None = None,
    *,
    forwarding_by: str = "",
) -> Resource:
    """A route configuration from its hosts' cached bytes; nothing is encoded again. *forwarding_by* is the
    cluster of those routes that forward to any host."""
    options = options or gloo.RouteConfigurationOptions()
    tail = route.RouteConfiguration(
        most_specific_header_mutations_wins=bool(options.most_specific_header_mutations_wins),
        max_direct_response_body_size_bytes=options.max_direct_response_body_size_bytes,
    )
    body, tag = [encode(route.RouteConfiguration(name=name))], varint(VIRTUAL_HOSTS_FIELD << 3 | 2)
    for host in hosts:
        if host.body:
            body += tag, varint(len(host.body)), host.body  # joined once, as there may be thousands
    body.append(encode(tail))
    sources = frozenset[Source]().union(*[host.sources for host in hosts])
    return resource(name, settled(b"".join(body), name, forwarding_by), sources)


def find_conflicts(
    hosts: Sequence[TranslatedHost], serving: Mapping[str, str] | None = None
) -> dict[int, list[str]]:
    """The hosts of one listener that cannot be served beside the others, by index, and why.

    Names and domains must be unique, without regard to case. Who already serves a domain keeps it
    (*serving*: domain to the name of its host), else who comes first; so a newcomer never takes it away.
    """
    names: dict[str, int] = {}
    domains: dict[str, int] = {}
    problems: dict[int, list[str]] = {}
    held = serving or {}

    def incumbent(i: int) -> bool:
        return any(held.get(domain.lower()) == hosts[i].name for domain in hosts[i].domains)

    for i in sorted(range(len(hosts)), key=lambda i: (not incumbent(i), i)):
        host, found = hosts[i], []
        if host.name in names:
            found.append(f"another virtual host of this listener is named {host.name}, too")
        found += [
            f"domain {domain} is shared by virtual host {hosts[domains[domain.lower()]].name}"
            for domain in host.domains
            if domain.lower() in domains
        ]
        if found:
            problems[i] = found
        else:
            names[host.name] = i
            domains.update((domain.lower(), i) for domain in host.domains)
    return problems
