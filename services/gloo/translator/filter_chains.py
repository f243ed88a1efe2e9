"""Filter chains of a TLS listener: one for each distinct TLS configuration, chosen by the name asked for.

Configurations that differ in nothing but their names are one chain. A chain's name and content depend on
nothing but its own configuration, so an edit of one drains the connections of no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from protos import gloo
from protos.envoy import listener, tls
from services.gloo.plugin import Scope
from services.gloo.translator.matching import EVERY_NAME, Claims, Holder, spots_of
from services.gloo.translator.secret import names_asked_for
from services.gloo.translator.sources import Lent, Origin, Reports, attribute, tls_origins_of
from services.gloo.translator.ssl import downstream_tls, tls_socket
from services.gloo.translator.supported import refuse_unread
from shared.codec.encode import encode, length_delimited
from shared.incremental.memo import Memo
from shared.ref import Ref, Source
from shared.report import Report

SOCKET_FIELD = 6  # of envoy.config.listener.v3.FilterChain
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a configuration comes to on its own: its context, None if it cannot be, and that as the bytes of a
    transport socket; the secrets it names; what was found, and what was looked at."""

    context: tls.DownstreamTlsContext | None
    socket: bytes
    secrets: frozenset[str]
    report: Report
    looked: Mapping[tuple[str, Ref], Any]


class Configurations(Memo[gloo.SslConfig, Made]):
    """What the configurations of a listener came to the last time, so that an edit of one costs one."""

    def made(self, config: gloo.SslConfig, scope: Scope) -> Made:
        made = self.known(config)
        if made is None or any(scope.read(*key) != value for key, value in made.looked.items()):
            made = make(config, scope)
        return self.keep(config, made)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What is remembered of a listener's TLS: configurations that were good, by their places, to stand in for
    broken ones; which secrets Envoys have taken; and what configurations came to."""

    last_good: Mapping[Origin, gloo.SslConfig] = field(default_factory=dict)
    trying: Trying = ALL_TAKEN
    known: Configurations = field(default_factory=Configurations)


def make(config: gloo.SslConfig, scope: Scope) -> Made:
    report, looked = Report(), dict[tuple[str, Ref], Any]()

    def read(kind: str, ref: Ref) -> Any:
        value = looked[kind, ref] = scope.read(kind, ref)
        return value

    refuse_unread(config, report)
    own = Scope(path="", report=report, policy=scope.policy, read=read)
    context = None if report.errors else downstream_tls(config, own)
    socket = b"" if context is None else encode(tls_socket(context))
    return Made(context=context, socket=socket, secrets=names_asked_for(socket), report=report, looked=looked)


@dataclass(slots=True, kw_only=True)
class Chain:
    """A filter chain in the making; ``good`` are the configurations it is made of, by where they stand."""

    context: tls.DownstreamTlsContext
    socket: bytes
    secrets: frozenset[str]
    timeout: timedelta | None
    names: set[str] = field(default_factory=set)
    good: dict[Origin, gloo.SslConfig] = field(default_factory=dict)

    @property
    def server_names(self) -> list[str]:
        """Those it is for, none for all."""
        return [] if EVERY_NAME in self.names else sorted(self.names)

    @property
    def name(self) -> str:
        """It is called by its first name."""
        return next(iter(self.server_names), "*")

    def build(self, filters: Sequence[listener.Filter]) -> listener.FilterChain:
        """The chain around *filters*."""
        names = self.server_names
        return listener.FilterChain(
            name=self.name,
            filter_chain_match=listener.FilterChainMatch(server_names=names) if names else None,
            filters=list(filters),
            transport_socket=tls_socket(self.context),
            transport_socket_connect_timeout=self.timeout,
        )

    def encoded(self, filters: bytes) -> bytes:
        """``build`` as bytes, around *filters* as bytes: there may be thousands of chains around the same."""
        names = self.server_names
        match = listener.FilterChain(filter_chain_match=listener.FilterChainMatch(server_names=names))
        rest = listener.FilterChain(name=self.name, transport_socket_connect_timeout=self.timeout)
        return b"".join(
            (
                encode(match) if names else b"",
                filters,
                length_delimited(SOCKET_FIELD, self.socket),
                encode(rest),
            )
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
    remembered: Remembered,
    claims: Claims | None = None,
    match: listener.FilterChainMatch | None = None,
) -> list[Chain]:
    """The chains of a listener. What is wrong with a configuration goes to *reports*, and the last good one
    from the same place is used. So it is while an Envoy has not taken what a configuration newly names.
    *match* is what all of them take, and *claims* what others do."""
    chains: dict[tuple[bytes, timedelta | None], Chain] = {}
    claims = claims or Claims()
    last_good, trying, known = remembered.last_good, remembered.trying, remembered.known
    for each in brought:
        report, made = Report(), known.made(each.config, scope)
        report.add(made.report)
        if each.place in last_good and not (made.socket and all(map(trying.takes, made.secrets))):
            good = replace(each, config=last_good[each.place])
            before = known.made(good.config, scope)
            sources = [each.origin.source]
            if before.socket and (not made.socket or trying.waits(made.secrets, before.secrets, sources)):
                each, made = good, before
        if made.context is not None:
            timeout = each.config.transport_socket_connect_timeout
            if (chain := chains.get((made.socket, timeout))) is None:
                chain = chains[made.socket, timeout] = Chain(
                    context=made.context, socket=made.socket, secrets=made.secrets, timeout=timeout
                )
            what = "served with another sslConfig, that of"
            holder = Holder(chain=chain, who=str(each.origin.source), one=f"is {what}", all=f"are {what}")
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
