"""Who gets a domain, whatever the order in which it is asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.translator.conflicts import settle
from services.gateway.translator.model import Traits
from shared.ref import Ref

GATEWAY = Ref("gloo-system", "gw")
DOMAINS = st.frozensets(st.sampled_from(["a", "b", "c", "*"]), min_size=1, max_size=3)
WORLDS = st.dictionaries(
    st.sampled_from([Ref("ns", f"v{i}") for i in range(6)]), st.tuples(DOMAINS, st.booleans(), st.booleans())
)


def traits(domains: frozenset[str], ssl: bool, options: bool) -> Traits:
    return Traits(labels={}, domains=tuple(sorted(domains)), ssl=b"{}" if ssl else None, has_options=options)


@given(WORLDS, st.randoms())
def test_every_domain_has_one_host_and_the_order_of_asking_does_not_matter(world, random) -> None:  # type: ignore[no-untyped-def]
    known = {ref: traits(*about) for ref, about in world.items()}
    shuffled = list(known)
    random.shuffle(shuffled)

    settled = settle(GATEWAY, shuffled, known, {})

    domains = [domain for host in settled.hosts for domain in known[host.members[0]].claims]
    placed = {ref for host in settled.hosts for ref in host.members}
    assert len(domains) == len(set(domains))
    assert placed | settled.losers == set(known)
    assert not placed & settled.losers
    assert settled == settle(GATEWAY, sorted(known), known, {})
    for host in settled.hosts:
        assert len({known[ref].claims for ref in host.members}) == 1
        assert sum(known[ref].has_options for ref in host.members) <= 1


@given(WORLDS, WORLDS)
def test_whoever_served_its_domains_before_goes_on_serving_them(old, new) -> None:  # type: ignore[no-untyped-def]
    known = {ref: traits(*about) for ref, about in old.items()}
    first = settle(GATEWAY, known, known, {})
    before = {ref: known[ref].claims for host in first.hosts for ref in host.members}
    newcomers = {Ref("a-first", ref.name): traits(*about) for ref, about in new.items()}
    kept = {ref: known[ref] for ref in before}

    second = settle(GATEWAY, [*newcomers, *kept], {**newcomers, **kept}, before)

    assert not second.losers & kept.keys()
