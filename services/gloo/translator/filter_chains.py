"""Filter chains of a TLS listener: one for each distinct TLS configuration, chosen by the name asked for.

Configurations that differ in nothing but their names are one chain. A chain's name and content depend on
nothing but its own configuration, so an edit of one drains the connections of no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import timedelta

from protos import gloo
from protos.envoy import listener, tls
from services.gloo.plugin import Scope
from services.gloo.translator.matching import EVERY_NAME, Claims, Holder, spots_of
from services.gloo.translator.secret import names_asked_for
from services.gloo.translator.sources import Lent, Origin, Reports, attribute, tls_origins_of
from services.gloo.translator.ssl import downstream_tls, tls_socket
from services.gloo.translator.supported import refuse_unread
from shared.codec.encode import encode
from shared.ref import Source
from shared.report import Report

NO_CONFIGS: Mapping[Origin, gloo.SslConfig] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """A TLS configuration and the place it stands in; of several with the same one each has its own.

    What it has by default is *lent* to it, by field. One that serves in several parts of a listener is
    remembered for each *part*.
    """

    config: gloo.SslConfig
    origin: Origin
    lent: Lent = field(default_factory=dict)
    part: str = ""

    @property
    def place(self) -> Origin:
        """Where it is remembered."""
        return replace(self.origin, path=f"{self.part}:{self.origin.path}") if self.part else self.origin

    @property
    def names(self) -> list[str]:
        return [name.lower() for name in self.config.sni_domains] or [EVERY_NAME]


@dataclass(frozen=True, slots=True)
class Trying:
    """*takes* says of a secret's name whether an Envoy has taken it; with one of several untaken, all are
    tried on for the objects that are to name them."""

    takes: Callable[[str], bool] = lambda name: True
    tried: dict[str, frozenset[Source]] = field(default_factory=dict)
    untaken: set[str] = field(default_factory=set)

    def waits(self, names: Set[str], known: Set[str], sources: Iterable[Source]) -> bool:
        """Whether what names *known* has to wait before it names *names*; if so they are tried."""
        untaken = {name for name in names - known if not self.takes(name)}
        for name in names - known if untaken else ():
            self.tried[name] = self.tried.get(name, frozenset()).union(sources)
        self.untaken.update(untaken)
        return bool(untaken)


ALL_TAKEN = Trying()


@dataclass(slots=True, kw_only=True)
class Chain:
    """A filter chain in the making; ``good`` are the configurations it is made of, by where they stand."""

    context: tls.DownstreamTlsContext
    timeout: timedelta | None
    names: set[str] = field(default_factory=set)
    good: dict[Origin, gloo.SslConfig] = field(default_factory=dict)

    def build(self, filters: Sequence[listener.Filter]) -> listener.FilterChain:
        """The chain around *filters*; it is called by its first name."""
        names = [] if EVERY_NAME in self.names else sorted(self.names)
        return listener.FilterChain(
            name=names[0] if names else "*",
            filter_chain_match=listener.FilterChainMatch(server_names=names) if names else None,
            filters=list(filters),
            transport_socket=tls_socket(self.context),
            transport_socket_connect_timeout=self.timeout,
        )


def configurations(given: gloo.Listener, path: str, owner: Source) -> list[Brought]:
    """The TLS configurations of a listener; *path* is its own in *owner*, the Proxy."""
    told = tls_origins_of(given)
    found = []
    for i, config in enumerate(given.ssl_configurations):
        own = Origin(source=owner, path=f"{path}.sslConfigurations[{i}]")
        origins = told[i] if i < len(told) else ()
        found += [Brought(config=config, origin=origin) for origin in origins or (own,)]
    return found


def translate_chains(
    brought: Iterable[Brought],
    scope: Scope,
    reports: Reports,
    last_good: Mapping[Origin, gloo.SslConfig] = NO_CONFIGS,
    trying: Trying = ALL_TAKEN,
    claims: Claims | None = None,
    match: listener.FilterChainMatch | None = None,
) -> list[Chain]:
    """The chains of a listener. What is wrong with a configuration goes to *reports*, and the last good one
    from the same place is used. So it is while an Envoy has not taken what a configuration newly names.
    *match* is what all of them take, and *claims* what others do."""
    chains: dict[tuple[bytes, timedelta | None], Chain] = {}
    claims = claims or Claims()
    for each in brought:
        report = Report()
        refuse_unread(each.config, report)
        context = None if report.errors else downstream_tls(each.config, _within(scope, report))
        names = names_in(context)
        if each.place in last_good and (context is None or not all(map(trying.takes, names))):
            good = replace(each, config=last_good[each.place])
            before = downstream_tls(good.config, _within(scope, Report()))
            sources = [each.origin.source]
            if before is not None and (context is None or trying.waits(names, names_in(before), sources)):
                each, context = good, before
        if context is not None:
            timeout = each.config.transport_socket_connect_timeout
            chain = chains.setdefault((encode(context), timeout), Chain(context=context, timeout=timeout))
            what = "served with another sslConfig, that of"
            holder = Holder(chain=id(chain), who=str(each.origin.source), one=f"is {what}", all=f"are {what}")
            for name in each.names:
                spots = spots_of(match, [name])
                if (rival := claims.rival(spots, holder.chain)) is not None:
                    report.error("sniDomains", rival[1].said_of(name))
                    continue
                claims.take(spots, holder)
                chain.names.add(name)
                chain.good[each.place] = each.config
        attribute(report, [each.origin], reports, each.lent)
    return [chain for chain in chains.values() if chain.names]


def names_in(context: tls.DownstreamTlsContext | None) -> frozenset[str]:
    """The secrets that *context* names."""
    return frozenset() if context is None else names_asked_for(encode(tls_socket(context)))


def _within(scope: Scope, report: Report) -> Scope:
    return Scope(path="", report=report, policy=scope.policy, read=scope.read)
