"""Hybrid listeners: HTTP and TCP side by side on one address, told apart by server name or source address.

Each matched listener has filter chains of its own, and HTTP a route configuration of its own. A mistake costs
only the one it is in: its chains stay as they were. A chain is called by what its matched listener matches,
so an edit of one closes the connections of no other.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from protos import gloo
from protos.envoy import listener
from services.gloo import checks
from services.gloo.plugin import Policy, Scope
from services.gloo.resources import Resource, resource
from services.gloo.translator.consul import ConsulSelection
from services.gloo.translator.filter_chains import Brought, translate_chains
from services.gloo.translator.forward_proxy import forward_proxies
from services.gloo.translator.listener import (
    Surroundings,
    TranslatedListener,
    check_listener,
    framed,
    join_http,
    network_filters,
    secrets_of,
    translate_listener,
)
from services.gloo.translator.matching import (
    TLS,
    Claims,
    Holder,
    key_of,
    narrow,
    spots_of,
    translate_matcher,
)
from services.gloo.translator.names import route_configuration_name
from services.gloo.translator.patches import Joined, join_patches
from services.gloo.translator.secret import names_asked_for
from services.gloo.translator.sources import (
    Lender,
    MatchedOrigins,
    Origin,
    Reports,
    attribute,
    lent_to,
    matched_origins_of,
)
from services.gloo.translator.ssl import sni_problem
from services.gloo.translator.supported import refuse_unread
from services.gloo.translator.tcp import asks_for_name, asks_for_names, translate_tcp
from services.gloo.translator.udp import translate_udp
from shared.codec.encode import encode, varint
from shared.codec.overlay import overlay, taken
from shared.ref import Source
from shared.report import Report, join

PLAIN = "plain"
MATCHER_TLS = "matcher.sslConfig"

Chains = Mapping[str, listener.FilterChain]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpPart:
    """HTTP of a listener, at *path* in it, and the name of its route configuration."""

    routes: str
    path: str
    http: gloo.HttpListener


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A matched listener; its *key* tells it from the others."""

    key: str
    given: gloo.MatchedListener
    told: MatchedOrigins

    @property
    def tls(self) -> gloo.SslConfig | None:
        """What it says of TLS, None for plain text."""
        matcher = self.given.matcher
        if matcher is not None and matcher.ssl_config is not None:
            return matcher.ssl_config
        return gloo.SslConfig() if self.given.ssl_configurations else None

    @property
    def words(self) -> str:
        origin = self.told.origins[-1]
        return f"{origin.path} of {origin.source}" if origin.path else str(origin.source)


@dataclass(slots=True, kw_only=True)
class Done:
    """What a matched listener comes to: its chains under their own names."""

    chains: list[listener.FilterChain] = field(default_factory=list)
    tls: dict[Origin, gloo.SslConfig] = field(default_factory=dict)
    secrets: dict[str, frozenset[Source]] = field(default_factory=dict)
    selections: frozenset[ConsulSelection] = frozenset()
    clusters: tuple[Resource, ...] = ()
    broken: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the matched listeners of one listener share."""

    name: str
    around: Surroundings
    manager: Mapping[bool, Mapping[str, Any]]  # of the listener's options, for TCP and for HTTP
    claims: Claims = field(default_factory=Claims)
    reports: Reports = field(default_factory=dict)


def http_parts(given: gloo.Listener) -> Iterator[HttpPart]:
    """What of a listener has virtual hosts."""
    if given.http_listener is not None:
        name = route_configuration_name(given.name)
        yield HttpPart(routes=name, path="httpListener", http=given.http_listener)
    for i, (key, each) in enumerate(_keyed(given)):
        if each.http_listener is not None:
            at = f"hybridListener.matchedListeners[{i}].httpListener"
            yield HttpPart(routes=routes_of(given.name, key), path=at, http=each.http_listener)


def fetches(made: Resource, routes: str) -> bool:
    """Whether a listener has its routes by that name."""
    return varint(len(routes.encode())) + routes.encode() in made.body


def routes_of(listener: str, key: str) -> str:
    name = route_configuration_name(listener)
    return f"{name}-{key}" if key else name


def _keyed(given: gloo.Listener) -> Iterator[tuple[str, gloo.MatchedListener]]:
    """The matched listeners, called by what they match; of several alike the later ones are numbered."""
    seen: Counter[str] = Counter()
    for each in given.hybrid_listener.matched_listeners if given.hybrid_listener is not None else ():
        key = "-".join(filter(None, ["" if each.tcp_listener is None else "tcp", key_of(each.matcher)]))
        seen[key] += 1
        yield "-".join(filter(None, [key, str(seen[key]) if seen[key] > 1 else ""])), each


def translate_any(given: gloo.Listener, around: Surroundings) -> TranslatedListener:
    """A listener of any type."""
    if given.udp_listener is not None:
        return translate_udp(given, around)
    translate = translate_listener if given.hybrid_listener is None else translate_hybrid
    found = translate(given, around)
    around.remembered.known.end_round()
    return found


def translate_hybrid(given: gloo.Listener, around: Surroundings) -> TranslatedListener:
    report, origins = Report(), around.origins(given)
    refuse_unread(given, report)
    check_listener(given, report)
    if around.conflict:
        report.error("", around.conflict)
    parts = parts_of(given, around.path, around.owner)
    frame, frames = _frames(given, parts, around.policy, report)
    shared = Shared(name=given.name, around=around, manager=frames)
    attribute(report, origins, shared.reports, lent_to(given))
    before = chains_by_part(around.served)
    done, chains = join_parts(parts, before, shared)
    found, sources = None, frozenset(origin.source for origin in origins)
    if chains and not report.errors:
        out = framed(given, frame, chains, with_names=_looks_for_names(given, chains))
        found = resource(given.name, encode(out), sources)
    secrets: dict[str, frozenset[Source]] = {}
    for name, asking in ((name, asking) for each in done for name, asking in each.secrets.items()):
        secrets[name] = secrets.get(name, frozenset()) | asking
    for name in names_asked_for(found.body) if found is not None else ():
        secrets.setdefault(name, sources)
    return TranslatedListener(
        resource=found,
        reports=shared.reports,
        tls={place: config for each in done for place, config in each.tls.items()},
        secrets=secrets,
        selections=frozenset[ConsulSelection]().union(*(each.selections for each in done)),
        clusters=tuple(made for each in done for made in each.clusters),
    )


def parts_of(given: gloo.Listener, path: str, owner: Source) -> list[Part]:
    told, found = matched_origins_of(given), []
    for i, (key, each) in enumerate(_keyed(given)):
        at = f"{path}.hybridListener.matchedListeners[{i}]"
        said = told[i] if i < len(told) and told[i].origins else None
        origins = said or MatchedOrigins(origins=(Origin(source=owner, path=at),))
        found.append(Part(key=key, given=each, told=origins))
    return found


def _frames(
    given: gloo.Listener, parts: Sequence[Part], policy: Policy, report: Report
) -> tuple[Joined, dict[bool, Mapping[str, Any]]]:
    """What the listener's options come to: around the chains, and in those of TCP and of HTTP."""
    kinds = {part.given.tcp_listener is not None for part in parts} or {False}
    joined = {
        tcp: join_patches(
            "on_any_listener", given.options, Scope(path="options", report=report, policy=policy, tcp=tcp)
        )
        for tcp in sorted(kinds)
    }
    return next(iter(joined.values())), {tcp: each.manager for tcp, each in joined.items()}


def chains_by_part(served: Resource | None) -> dict[str, Chains]:
    """The chains of a hybrid listener as it was served, under their own names, by part."""
    found: defaultdict[str, dict[str, listener.FilterChain]] = defaultdict(dict)
    for chain in listener.Listener.parse(served.body).filter_chains if served is not None else ():
        key, colon, name = chain.name.partition(":")
        if colon:
            found[key][name] = replace(chain, name=name)
    return dict(found)


def join_parts(
    parts: Sequence[Part], before: Mapping[str, Chains], shared: Shared
) -> tuple[list[Done], list[listener.FilterChain]]:
    """What the matched listeners come to, and their chains. Those that served before are first to choose."""
    done: list[Done] = []
    chains: list[listener.FilterChain] = []
    lost = False
    for part in sorted(parts, key=lambda part: part.key not in before):
        stale = before.get(part.key, {})
        made = translate_part(part, stale, shared)
        if made.broken:
            made.chains = list(_kept(stale, shared.claims))
            lost |= not made.chains
        done.append(made)
        chains += _called(part.key, made.chains)
    if lost:  # one that is no more may be the broken one before it was given another matcher
        for key in sorted(before.keys() - {part.key for part in parts}):
            chains += _called(key, _kept(before[key], shared.claims))
    return done, sorted(chains, key=lambda chain: chain.name)


def _called(key: str, chains: Iterable[listener.FilterChain]) -> Iterator[listener.FilterChain]:
    return (replace(chain, name=f"{key}:{chain.name}") for chain in chains)


def _kept(stale: Chains, claims: Claims) -> Iterator[listener.FilterChain]:
    """The chains as they were, but for those whose connections others take by now."""
    for chain in stale.values():
        spots = spots_of(chain.filter_chain_match)
        if claims.rival(spots, None) is None:
            claims.take(spots, Holder(chain=chain, who="what was served before"))
            yield chain


def translate_part(part: Part, stale: Chains, shared: Shared) -> Done:
    """A matched listener; *stale* are the chains that served before, for TCP hosts to stay as they were."""
    report = Report()
    refuse_unread(part.given, report)
    match = translate_matcher(part.given.matcher, shared.around.scope("matcher", report))
    done, claims = Done(), Claims(dict(shared.claims.taken))
    if part.given.http_listener is not None:
        done = http_part(part, part.given.http_listener, match, claims, report, shared)
    elif part.given.tcp_listener is not None:
        done = tcp_part(part, part.given.tcp_listener, match, claims, report, stale, shared)
    else:
        report.error("", "no listener type; one of httpListener, tcpListener")
        done.broken = True
    if not done.broken:
        shared.claims.taken.update(claims.taken)
    attribute(report, part.told.origins, shared.reports, part.told.lent)
    return done


def http_part(
    part: Part,
    http: gloo.HttpListener,
    match: listener.FilterChainMatch,
    claims: Claims,
    report: Report,
    shared: Shared,
) -> Done:
    scope, remembered = shared.around.scope("httpListener", report), shared.around.remembered
    joined = join_http(http, shared.manager[False], scope)
    if http.options is not None and http.options.http3 is not None:
        scope.error(
            "options.http3", "cannot be had on a hybrid listener, nor with isolated hosts, which make one"
        )
    routes, sources = routes_of(shared.name, part.key), [origin.source for origin in part.told.origins]
    clusters = forward_proxies(routes, http, scope, sources)
    filters = network_filters(routes, http, joined)
    brought = list(configurations(part))
    known = {each.place for each in brought} & remembered.last_good.keys()
    done = Done(tls={place: remembered.last_good[place] for place in known}, clusters=clusters)
    if not http.virtual_hosts:
        return done
    if part.tls is not None:
        within = replace(match, transport_protocol=TLS)
        chains = translate_chains(brought, scope, shared.reports, remembered, claims, within)
        done.tls |= {place: config for chain in chains for place, config in chain.good.items()}
        done.secrets = secrets_of(chains)
        done.chains = [chain.build(filters) for chain in chains]
    else:
        done.chains = [listener.FilterChain(name=PLAIN, filters=filters)]
        _claim(part, match, claims, report)
    done.broken = bool(report.errors)
    for chain in done.chains:
        narrow(chain, match)
    return done


def _claim(part: Part, match: listener.FilterChainMatch, claims: Claims, report: Report) -> None:
    """Have the chain of plain HTTP take its connections, unless some are another's already."""
    spots = spots_of(match)
    if (rival := claims.rival(spots, part.key)) is not None:
        report.error("matcher", f"takes connections that go to {rival[1].who}")
        return
    claims.take(spots, Holder(chain=part.key, who=part.words))


def configurations(part: Part) -> Iterator[Brought]:
    """The TLS configurations of a part, each with what the matcher gives where it says nothing."""
    default = part.given.matcher.ssl_config if part.given.matcher is not None else None
    owner = part.told.origins[-1]
    lender = Lender(origin=replace(owner, path=join(owner.path or "", MATCHER_TLS)))
    lenders = {name: replace(each, of="") for name, each in part.told.lent.items()}
    for i, config in enumerate(part.given.ssl_configurations):
        here = replace(owner, path=join(owner.path or "", f"sslConfigurations[{i}]"))
        lent = {name: lenders.get(f"{MATCHER_TLS}.{name}", lender) for name in taken(config, default)}
        for origin in (part.told.tls[i] if i < len(part.told.tls) else ()) or (here,):
            merged = overlay(config, default) or config
            yield Brought(config=merged, origin=origin, lent=lent, part=part.key)


def tcp_part(
    part: Part,
    tcp: gloo.TcpListener,
    match: listener.FilterChainMatch,
    claims: Claims,
    report: Report,
    stale: Chains,
    shared: Shared,
) -> Done:
    """TCP hosts take the names of the matcher, each some of them if it says which."""
    scope, trying = shared.around.scope("tcpListener", report), shared.around.remembered.trying
    if part.given.ssl_configurations:
        report.error("sslConfigurations", "goes with httpListener; a TCP host has an sslConfig of its own")
    _check_names(tcp.tcp_hosts, part.tls, report)
    hosts = replace(tcp, tcp_hosts=[_named(host, part.tls) for host in tcp.tcp_hosts])
    if report.errors:  # which names they are to take is not known
        hosts, claims = tcp, Claims()
    sources = [origin.source for origin in part.told.origins]
    done = translate_tcp(
        hosts, scope, stale, shared.manager[True], claims, match, trying=trying, sources=sources
    )
    broken = bool(report.errors)
    report.add(done.report)
    return Done(chains=done.chains, selections=frozenset(done.found.selections), broken=broken)


def _named(host: gloo.TcpHost, ssl: gloo.SslConfig | None) -> gloo.TcpHost:
    """*host* with the names of *ssl*, unless it has its own."""
    own = host.ssl_config or gloo.SslConfig()
    if ssl is None or own.sni_domains or not ssl.sni_domains:
        return host
    return replace(host, ssl_config=replace(own, sni_domains=ssl.sni_domains))


def _check_names(hosts: Sequence[gloo.TcpHost], ssl: gloo.SslConfig | None, report: Report) -> None:
    if ssl is None:
        return
    if ssl != gloo.SslConfig(sni_domains=ssl.sni_domains):
        report.warn(MATCHER_TLS, "only sniDomains have an effect on TCP; hosts have sslConfigs")
    for i, name in enumerate(ssl.sni_domains):
        if problem := sni_problem(name):
            report.error(f"{MATCHER_TLS}.sniDomains[{i}]", problem)
    known = {name.lower() for name in ssl.sni_domains}
    for i, host in enumerate(hosts):
        for j, name in enumerate(host.ssl_config.sni_domains if host.ssl_config is not None else ()):
            if known and name.lower() not in known:
                at = f"tcpListener.tcpHosts[{i}].sslConfig.sniDomains[{j}]"
                report.error(at, f"{checks.shown(name)} is none of the matcher's sniDomains")


def _looks_for_names(given: gloo.Listener, chains: Sequence[listener.FilterChain]) -> bool:
    """Whether Envoy has to look for TLS, for which clients must be the first to speak."""
    return any(asks_for_name(chain) for chain in chains) or any(
        bool(each.ssl_configurations)
        or (each.matcher is not None and each.matcher.ssl_config is not None)
        or (each.tcp_listener is not None and asks_for_names(each.tcp_listener, ()))
        for each in (given.hybrid_listener.matched_listeners if given.hybrid_listener is not None else ())
    )
