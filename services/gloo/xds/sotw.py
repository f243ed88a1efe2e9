"""State-of-the-World: each request names the whole subscription, each response a version of it.

Clusters and listeners are sent in full, since what a response leaves out is removed by it; of the other
types only what is news. A version is the sum of the digests of what the client has once it has taken the
response: a client that reconnects with it, here or at another replica, is sent nothing again.
"""

from __future__ import annotations

from services.gloo.resources import EMPTY, MODULUS, Resource, Resources
from services.gloo.xds.subscription import (
    FULL,
    WILDCARD,
    Blame,
    Comparisons,
    Hold,
    Push,
    Receipt,
    SotwRequest,
    Subscription,
    Verdict,
)


def receive(state: Subscription, request: SotwRequest, blame: Blame, now: float, retry: float) -> Receipt:
    """Take in a request. One that answers an older response than the last is stale and changes nothing; a
    stream's first answers nothing, whatever nonce it brings along from another."""
    if state.started and request.nonce and request.nonce != str(state.nonce):
        return Receipt(verdict=Verdict.STALE)
    receipt = Receipt(verdict=Verdict.QUIET)
    if request.nonce and state.flights:
        flight = state.flights[-1]
        if request.error is not None:
            receipt = state.rejected(flight, request.error, blame, now, retry)
        else:
            receipt = state.accepted(flight)
    elif request.nonce and state.doubtful and _accepts(request, state.doubtful.version):
        receipt = state.reconsidered(state.doubtful)
    first, state.started = not state.started, True
    changed = _select(state, request.names)
    if first:
        state.claimed = request.version
    elif receipt.verdict is Verdict.QUIET and not changed and request.error is None:
        _repeat(state, answered=bool(request.nonce))
    return receipt


def _accepts(request: SotwRequest, version: str) -> bool:
    """Whether an answer to a push already refused accepts it.

    While a cluster warms, Envoy keeps its answers back; the refusal of one push then goes out with the nonce
    of the next, right before the acceptance of that one.
    """
    return request.error is None and request.version == version


def _select(state: Subscription, names: frozenset[str]) -> bool:
    """Make *names* the subscription; whether that is a change. What is new is to be answered."""
    wildcard = WILDCARD in names or (not names and state.legacy_wildcard)
    explicit = names - {WILDCARD}
    added = explicit - state.names
    changed = explicit != state.names or wildcard != state.wildcard
    for name in added:
        if not state.covers(name):
            state.differs[name] = None
    if wildcard and not state.wildcard:
        state.differs = {name: state.has(name) for name in explicit}
        state.base = EMPTY
    if state.type_url in FULL and (added or (wildcard and not state.wildcard)):
        state.answer = True
    state.asked = (state.asked & explicit) | added
    state.named = state.named or bool(names)
    state.names, state.wildcard = explicit, wildcard
    return changed


def _repeat(state: Subscription, *, answered: bool) -> None:
    """Answer the same question again: an Envoy that warms a cluster anew asks for endpoints it has."""
    if state.type_url not in FULL:
        state.asked.update(state.names)
    elif not answered and (state.names or state.wildcard):
        state.answer = True


def plan(state: Subscription, target: Resources, hold: Hold, compare: Comparisons, now: float) -> Push | None:
    """The response that is due, if one is."""
    if state.claimed:
        claimed, state.claimed = state.claimed, ""
        if claimed == _version(state, target, compare):
            state.base, state.differs, state.answer = target, {}, False
            state.asked.clear()
            state.sent = state.acked = target.version
            return None
    change = state.advance(target, hold, compare, now)
    if state.type_url in FULL:
        if not (change.put or change.drop or state.answer):
            return None
        complete = state.wildcard and not state.differs
        resources = compare.ordered(target) if complete else _all(state, target)
    else:
        if not change.put:
            return None
        complete, resources = False, tuple(change.put)
    return Push(
        type_url=state.type_url,
        version=_version(state, target, compare),
        target=target.version,
        resources=resources,
        changed=tuple(change.put),
        removed=tuple(change.drop),
        was=change.was,
        complete=complete,
    )


def _all(state: Subscription, target: Resources) -> tuple[Resource, ...]:
    """All a client should have once it has taken the response; what waits is as the client has it."""
    names = set(target.by_name) if state.wildcard else state.names & target.by_name.keys()
    names |= {name for name in state.differs if state.covers(name)}
    return tuple(resource for name in sorted(names) if (resource := state.has(name)))


def _version(state: Subscription, target: Resources, compare: Comparisons) -> str:
    total = target.digest if state.wildcard else compare.sum(target, frozenset(state.names))
    for name, have in state.differs.items():
        if state.base is target and state.covers(name):
            want = target.by_name.get(name)
            total += (have.digest if have else 0) - (want.digest if want else 0)
    return f"{total % MODULUS:016x}"
