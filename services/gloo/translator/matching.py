"""Which connections a filter chain takes, and that no two of a listener take the same.

Envoy looks at the port and address a connection goes to, then the server name it asks for, then whether it
is TLS, then where it comes from, and never goes back: who asks for a name that some chain has is not taken by
one without names, even if it comes from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from ipaddress import ip_network
from itertools import product

from protos import gloo
from protos.envoy import core, listener
from services.gloo import checks
from services.gloo.plugin import Scope
from shared.codec.encode import encode

EVERY_NAME = ""
TLS = "tls"
ANYWHERE = ("0.0.0.0/0", "::/0")

Spot = tuple[object, ...]
"""What Envoy tells connections apart by, one value of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A filter chain that took its spots: *who* that is, and what becomes of one name and of all of them."""

    chain: object
    who: str
    one: str = "goes to"
    all: str = "go to"

    def said_of(self, name: object) -> str:
        return f"{name} {self.one} {self.who}" if name else f"needed: all other names {self.all} {self.who}"


@dataclass(frozen=True, slots=True)
class Claims:
    """The spots of a listener that are taken."""

    taken: dict[Spot, Holder] = field(default_factory=dict)

    def rival(self, spots: Iterable[Spot], chain: object) -> tuple[Spot, Holder] | None:
        """The first of *spots* that is another's than *chain*'s."""
        held = ((spot, self.taken[spot]) for spot in spots if spot in self.taken)
        return next(((spot, holder) for spot, holder in held if holder.chain is not chain), None)

    def take(self, spots: Iterable[Spot], holder: Holder) -> None:
        for spot in spots:
            self.taken[spot] = holder


def spots_of(match: listener.FilterChainMatch | None, names: Iterable[str] = ()) -> list[Spot]:
    """The spots that *match* takes, with these *names* unless it has its own; the name comes first."""
    match = match or listener.FilterChainMatch()
    return list(
        product(
            match.server_names or list(names) or [EVERY_NAME],
            [match.transport_protocol],
            [match.destination_port],
            _ranges(match.prefix_ranges),
            _ranges(match.source_prefix_ranges),
        )
    )


def _ranges(given: Sequence[core.CidrRange]) -> list[str]:
    return [f"{each.address_prefix}/{each.prefix_len or 0}" for each in given] or [*ANYWHERE]


def narrow(chain: listener.FilterChain, match: listener.FilterChainMatch) -> None:
    """Have *chain* take only what *match* says, too. A chain that ends TLS takes nothing else."""
    own = chain.filter_chain_match or listener.FilterChainMatch()
    found = listener.FilterChainMatch(
        server_names=own.server_names,
        destination_port=match.destination_port,
        prefix_ranges=match.prefix_ranges,
        source_prefix_ranges=match.source_prefix_ranges,
        transport_protocol=TLS if chain.transport_socket is not None else "",
    )
    chain.filter_chain_match = found if found != listener.FilterChainMatch() else None


def translate_matcher(given: gloo.ListenerMatcher | None, scope: Scope) -> listener.FilterChainMatch:
    """What *given* says of addresses and ports; names are the business of what is behind."""
    given = given or gloo.ListenerMatcher()
    if given.destination_port is not None and (problem := checks.port(given.destination_port)):
        scope.error("destinationPort", problem)
    return listener.FilterChainMatch(
        destination_port=given.destination_port,
        prefix_ranges=translate_ranges(given.prefix_ranges, "prefixRanges", scope),
        source_prefix_ranges=translate_ranges(given.source_prefix_ranges, "sourcePrefixRanges", scope),
    )


def translate_ranges(given: Sequence[gloo.CidrRange], where: str, scope: Scope) -> list[core.CidrRange]:
    """Ranges of addresses, without the bits that do not count."""
    found: dict[str, core.CidrRange] = {}
    for i, each in enumerate(given):
        at, bits = f"{where}[{i}]", each.prefix_len or 0
        if not checks.is_ip(each.address_prefix):
            scope.error(f"{at}.addressPrefix", f"{checks.shown(each.address_prefix)} is no IP address")
            continue
        most = ip_network(each.address_prefix).max_prefixlen
        if bits > most:
            scope.error(f"{at}.prefixLen", f"{bits} is out of range; 0 to {most}")
            continue
        network = ip_network(f"{each.address_prefix}/{bits}", strict=False)
        made = core.CidrRange(address_prefix=str(network.network_address), prefix_len=bits)
        found.setdefault(str(network), made)
    return list(found.values())


def key_of(given: gloo.ListenerMatcher | None) -> str:
    """Digits that stand for what *given* matches, empty if that is everything. The rest of its TLS does not
    count, so another certificate makes no other names."""
    if given is None:
        return ""
    ssl = given.ssl_config
    names = sorted(name.lower() for name in ssl.sni_domains) if ssl is not None else []
    told = gloo.ListenerMatcher(
        ssl_config=gloo.SslConfig(sni_domains=names) if ssl is not None else None,
        source_prefix_ranges=given.source_prefix_ranges,
        prefix_ranges=given.prefix_ranges,
        destination_port=given.destination_port,
    )
    if told == gloo.ListenerMatcher():
        return ""
    return str(int.from_bytes(blake2b(encode(told), digest_size=8).digest(), "big"))
