"""Delta: requests change the subscription, responses carry what differs, each resource its own version.

What a client is not told it keeps, so each answer names what is gone; and each name asked for is answered,
by the resource or by its absence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from services.gloo.resources import EMPTY, Resource, Resources
from services.gloo.xds.subscription import (
    WILDCARD,
    Blame,
    Comparisons,
    DeltaRequest,
    Hold,
    Push,
    Receipt,
    Subscription,
    Verdict,
)

NAMES_AT_ONCE = 1_000


def parts(request: DeltaRequest) -> Iterator[DeltaRequest]:
    """*request* as requests of few names, to be taken in one after the other. What a client says it has
    belongs to all its names, so such a request stays whole."""
    subscribe, unsubscribe = request.subscribe, request.unsubscribe
    if request.versions or len(subscribe) + len(unsubscribe) <= NAMES_AT_ONCE:
        yield request
        return
    yield replace(request, subscribe=subscribe[:NAMES_AT_ONCE], unsubscribe=())
    rest = DeltaRequest(type_url=request.type_url)
    for start in range(NAMES_AT_ONCE, len(subscribe), NAMES_AT_ONCE):
        yield replace(rest, subscribe=subscribe[start:][:NAMES_AT_ONCE])
    for start in range(0, len(unsubscribe), NAMES_AT_ONCE):
        yield replace(rest, unsubscribe=unsubscribe[start:][:NAMES_AT_ONCE])


def receive(state: Subscription, request: DeltaRequest, blame: Blame, now: float, retry: float) -> Receipt:
    """Take in a request. A stale nonce answers nothing, but the change of the subscription counts."""
    receipt = _answer(state, request, blame, now, retry)
    first, state.started = not state.started, True
    versions = request.versions.items() if first else ()
    held = {name: Resource(name, b"", _digest(version)) for name, version in versions}
    state.differs.update(held)
    if first and not request.subscribe and state.legacy_wildcard:
        _subscribe_all(state, held)
    for name in request.subscribe:
        if name == WILDCARD:
            _subscribe_all(state, held)
        else:
            _subscribe(state, name, held)
    state.named = state.named or bool(request.subscribe)
    for name in request.unsubscribe:
        _unsubscribe(state, name)
    return receipt


def _answer(state: Subscription, request: DeltaRequest, blame: Blame, now: float, retry: float) -> Receipt:
    if not request.nonce:
        return Receipt(verdict=Verdict.QUIET)
    for flight in state.flights:
        if flight.nonce == request.nonce:
            if request.error is not None:
                return state.rejected(flight, request.error, blame, now, retry)
            return state.accepted(flight)
    return Receipt(verdict=Verdict.STALE)


def _subscribe(state: Subscription, name: str, held: dict[str, Resource]) -> None:
    if name not in held:
        if not state.covers(name):
            state.differs[name] = None
        state.asked.add(name)
    _names(state).add(name)


def _subscribe_all(state: Subscription, held: dict[str, Resource]) -> None:
    if state.wildcard:
        return
    if not held:
        state.differs = {name: state.has(name) for name in state.names}
        state.base, state.answer = EMPTY, True
    state.wildcard = True


def _unsubscribe(state: Subscription, name: str) -> None:
    """A name that ``*`` still covers is answered, since the client may have dropped it."""
    if name == WILDCARD:
        state.wildcard = False
    else:
        _names(state).discard(name)
        if state.wildcard:
            state.asked.add(name)
        else:
            state.asked.discard(name)


def _names(state: Subscription) -> set[str]:
    """The names as a set to change in place: ten thousand may come one by one."""
    if not isinstance(state.names, set):
        state.names = set(state.names)
    return state.names


def _digest(version: str) -> int:
    try:
        return int(version, 16)
    except ValueError:
        return -1  # not a version of ours: equal to nothing


def plan(state: Subscription, target: Resources, hold: Hold, compare: Comparisons, now: float) -> Push | None:
    """The response that is due, if one is."""
    change = state.advance(target, hold, compare, now)
    if not (change.put or change.drop or state.answer):
        return None
    put = tuple(sorted(change.put, key=lambda resource: resource.name))
    return Push(
        type_url=state.type_url,
        version=target.version,
        target=target.version,
        resources=put,
        changed=put,
        removed=tuple(sorted(change.drop)),
        was=change.was,
    )
