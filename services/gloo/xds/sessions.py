"""One stream: its types in an order that never breaks traffic. No I/O; the clock comes in as *now*.

Make before break: clusters, endpoints, listeners, routes. A listener or route that mentions a cluster not
yet acknowledged waits for it, and nothing else does. What is removed goes last: clusters when listeners and
routes are acknowledged and a grace time has passed, the others when nobody can ask for them any more. Every
wait ends with a deadline, so a silent client only harms itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from services.gloo.resources import (
    CLUSTER,
    ENDPOINTS,
    EXTENSION,
    LISTENER,
    ROUTES,
    SECRET,
    Resource,
    Snapshot,
    TypeUrl,
)
from services.gloo.xds import delta, nack, sotw
from services.gloo.xds.options import Options
from services.gloo.xds.subscription import (
    NOTHING_HELD,
    Comparisons,
    DeltaRequest,
    Hold,
    Push,
    Receipt,
    SotwRequest,
    Subscription,
)
from services.gloo.xds.wire import LONGEST_NAME, Frames, mentions

ORDER = (CLUSTER, ENDPOINTS, SECRET, EXTENSION, LISTENER, ROUTES)
RANK = {type_url: rank for rank, type_url in enumerate(ORDER)}
REMOVED_AFTER = {
    ENDPOINTS: (CLUSTER,),
    SECRET: (CLUSTER, LISTENER),
    EXTENSION: (CLUSTER,),
    ROUTES: (LISTENER,),
}
PATIENCE = 1.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A framed response, and what it says."""

    push: Push
    nonce: str
    data: bytes


class LimitExceeded(Exception):
    """A stream asks for more than it may."""


@dataclass(slots=True)
class Session:
    """The state of one stream. ``next`` is asked for messages until it has none."""

    delta: bool
    options: Options
    frames: Frames
    compare: Comparisons
    subscriptions: dict[TypeUrl, Subscription] = field(default_factory=dict)  # in the order of serving
    retiring: dict[str, float | None] = field(default_factory=dict)  # clusters to go, and when
    blocked: bool = False  # a type has too many pushes unanswered

    def receive(self, type_url: TypeUrl, request: SotwRequest | DeltaRequest, now: float) -> Receipt:
        state = self.subscriptions.get(type_url)
        if state is None:
            if len(self.subscriptions) >= self.options.max_types:
                raise LimitExceeded(f"more than {self.options.max_types} types on one stream")
            if len(type_url) > LONGEST_NAME:
                raise LimitExceeded(f"a type's name is at most {LONGEST_NAME} characters")
            state = Subscription(type_url)
            known = {**self.subscriptions, type_url: state}
            self.subscriptions = dict(sorted(known.items(), key=lambda item: _rank(item[0])))
        retry = self.options.refusal_retry
        if isinstance(request, DeltaRequest):
            receipt = delta.receive(state, request, nack.blame, now, retry)
        else:
            receipt = sotw.receive(state, request, nack.blame, now, retry)
        if len(state.names) > self.options.max_names:
            raise LimitExceeded(f"more than {self.options.max_names} names in one subscription")
        return receipt

    def next(self, snapshot: Snapshot, now: float) -> Outgoing | None:
        """The next message due; it counts as sent."""
        plan = delta.plan if self.delta else sotw.plan
        while True:
            self.blocked = False
            for state in self.subscriptions.values():
                target = snapshot.of(state.type_url)
                if state.base is target and state.at_rest:
                    continue
                if self._overdue(state, now):
                    self.blocked = True
                    continue
                push = plan(state, target, self._hold(state.type_url, snapshot, now), self.compare, now)
                if push is not None:
                    return self._send(state, push, snapshot, now)
            if not self._schedule_removals(now):
                return None

    def due(self, snapshot: Snapshot, clock: Callable[[], float]) -> bool:
        """Whether ``next`` has anything new to look at in *snapshot*. Asked of every client at every change.

        What waits already, waits for time to pass or for the client.
        """
        for state in self.subscriptions.values():
            if state.base is snapshot.of(state.type_url) and not state.owed:
                continue
            if not self.blocked or not self._overdue(state, clock()):
                return True
        return False

    def lags(self, now: float) -> bool:
        """Whether the client takes its time with what it was sent, or would not take it."""
        return any(
            state.refused or any(flight.at < now - PATIENCE for flight in state.flights)
            for state in self.subscriptions.values()
        )

    def forget(self) -> None:
        """Let go of all that is known of the client, whoever still holds the session."""
        self.subscriptions = {}
        self.retiring = {}

    @property
    def names(self) -> int:
        """How many the client has asked for."""
        return sum(len(state.names) for state in self.subscriptions.values())

    def _overdue(self, state: Subscription, now: float) -> bool:
        """Whether the client leaves too many pushes unanswered."""
        limit = self.options.max_unanswered
        return len(state.flights) > 0 and state.unanswered(now, self.options.ack_deadline) >= limit

    @property
    def at_rest(self) -> bool:
        """Whether an answer of the client cannot set anything going."""
        if self.blocked or self.retiring:
            return False
        return all(state.at_rest for state in self.subscriptions.values())

    def wake_at(self, now: float) -> float | None:
        """When to ask ``next`` again although nothing has happened."""
        if self.at_rest:
            return None
        times = [at for at in self.retiring.values() if at is not None]
        for state in self.subscriptions.values():
            for flight in state.flights:
                times += flight.at + self.options.ack_deadline, flight.at + self.options.change_deadline
            times += (refusal.until for refusal in state.refused.values())
        return min((at for at in times if at > now), default=None)

    def _send(self, state: Subscription, push: Push, snapshot: Snapshot, now: float) -> Outgoing:
        nonce, data = self.frames.frame(push, delta=self.delta, newer_than=state.nonce)
        state.takes(push, nonce, now, merge=not self.delta)
        state.flights = state.flights[-self.options.max_unanswered :]
        if state.type_url == CLUSTER:
            self._repeat_endpoints(push, snapshot)
        return Outgoing(push=push, nonce=str(nonce), data=data)

    def _repeat_endpoints(self, push: Push, snapshot: Snapshot) -> None:
        """A changed cluster warms until it is given its endpoints again, even unchanged ones."""
        endpoints = self.subscriptions.get(ENDPOINTS)
        if endpoints is None:
            return
        served = snapshot.of(ENDPOINTS).by_name
        for cluster in push.changed:
            if endpoints.covers(cluster.name):
                names = [cluster.name]
            else:  # it may know its endpoints by another name
                names = [name for name in endpoints.names if mentions(cluster.body, (name.encode(),))]
            endpoints.asked.update(name for name in names if name in served)

    def _hold(self, type_url: TypeUrl, snapshot: Snapshot, now: float) -> Hold:
        if type_url == CLUSTER:
            return Hold(drop=lambda name: self._stays(name, now))
        if type_url not in RANK:
            return NOTHING_HELD
        before = REMOVED_AFTER.get(type_url, ())
        if type_url == EXTENSION:
            return Hold(
                put=lambda want: want.late and self._still_used(want, snapshot, now),
                drop=lambda name: not self._settled(before, now),
                keep=partial(_is_named, snapshot),
            )
        if type_url in (ENDPOINTS, SECRET):
            return Hold(drop=lambda name: not self._settled(before, now))
        awaited: list[bytes] | None = None

        def waits(want: Resource) -> bool:
            nonlocal awaited
            if awaited is None:
                awaited = self._awaited_clusters(snapshot, now)
            return bool(awaited) and mentions(want.body, awaited)

        return Hold(
            put=waits,
            drop=lambda name: not self._settled(before, now),
            together=type_url == LISTENER,
        )

    def _still_used(self, want: Resource, snapshot: Snapshot, now: float) -> bool:
        """Whether the client may have routes that use what *want* takes away."""
        has, routes = self.subscriptions[EXTENSION].has(want.name), self.subscriptions.get(ROUTES)
        if has is None or routes is None:
            return False
        sent = routes.base is snapshot.of(ROUTES)
        return not sent or not routes.settled(now, self.options.ack_deadline)

    def _awaited_clusters(self, snapshot: Snapshot, now: float) -> list[bytes]:
        """The clusters on their way to the client, on trial, or not even that.

        A cluster the client has in an older version goes on serving while it warms: it is waited for briefly.
        """
        clusters = self.subscriptions.get(CLUSTER)
        if clusters is None:
            return []
        names = set(self.compare.changed(clusters.base, snapshot.of(CLUSTER)))
        names.update(cluster.name for group in clusters.trials for cluster in group)
        for flight in clusters.waiting(now, self.options.ack_deadline):
            brief = now >= flight.at + self.options.change_deadline
            names.update(c.name for c in flight.changed if not (brief and c.name in flight.was))
        return [name.encode() for name in names]

    def _settled(self, types: tuple[TypeUrl, ...], now: float) -> bool:
        states = filter(None, map(self.subscriptions.get, types))
        return all(state.settled(now, self.options.ack_deadline) for state in states)

    def _stays(self, name: str, now: float) -> bool:
        """Whether a cluster that is gone from the snapshot stays with the client for now."""
        at = self.retiring.setdefault(name, None)
        if at is None or at > now:
            return True
        del self.retiring[name]
        return False

    def _schedule_removals(self, now: float) -> bool:
        """Set the time for clusters that nobody uses any more; whether some may go at once."""
        clusters = self.subscriptions.get(CLUSTER)
        if clusters is None or not self.retiring:
            return False
        self.retiring = {name: at for name, at in self.retiring.items() if name in clusters.differs}
        unscheduled = [name for name, at in self.retiring.items() if at is None]
        if not unscheduled or not self._settled((LISTENER, ROUTES), now):
            return False
        self.retiring.update(dict.fromkeys(unscheduled, now + self.options.removal_grace))
        return self.options.removal_grace <= 0


def _is_named(snapshot: Snapshot, filter_name: str) -> bool:
    """Whether a filter's name is in what is served. An Envoy that lost it would answer 500 in its place; the
    key in it may be away with its Vault."""
    name = (filter_name.encode(),)
    served = (snapshot.of(type_url).by_name.values() for type_url in (CLUSTER, LISTENER))
    return any(mentions(each.body, name) for some in served for each in some)


def _rank(type_url: TypeUrl) -> tuple[int, str]:
    return RANK.get(type_url, len(RANK)), type_url
