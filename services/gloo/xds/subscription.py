"""One type of one client: what it asked for, what it has, what it refused. No I/O, no clock.

What a client has is kept as the set last compared with (``base``, shared by all streams) and the few names
in which the client differs from it. So a stream costs little memory however large the snapshot is, and a
change costs what changed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Set
from dataclasses import dataclass, field
from enum import Enum

from services.gloo.resources import CLUSTER, EMPTY, LISTENER, MODULUS, Resource, Resources, TypeUrl

WILDCARD = "*"
FULL = frozenset((CLUSTER, LISTENER))  # State-of-the-World sends all of these; what is left out is removed
MAX_TRIALS = 64
MESSAGE_KEPT = 8_000  # characters of a refusal: names come first, and the reason last


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Who a client says it is; only on a stream's first request."""

    id: str
    cluster: str
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SotwRequest:
    type_url: str
    names: frozenset[str] = frozenset()
    version: str = ""
    nonce: str = ""
    error: str | None = None
    node: Node | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaRequest:
    type_url: str
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    nonce: str = ""
    error: str | None = None
    node: Node | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """A response to send. ``changed`` are the resources that are news to the client; in a full set the
    others come along. ``was`` is what the client has of the changed and removed names; ``target`` the version
    of the snapshot's set, whatever part of it is sent."""

    type_url: TypeUrl
    version: str
    target: str
    resources: tuple[Resource, ...]
    changed: tuple[Resource, ...]
    removed: tuple[str, ...] = ()
    was: Mapping[str, Resource] = field(default_factory=dict)
    complete: bool = False


class Verdict(Enum):
    """What a request means for what was sent before it."""

    QUIET = "quiet"  # no answer to anything: a subscription, or a repetition
    ACKED = "acked"
    NACKED = "nacked"
    STALE = "stale"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """``guilty``: what the refusal is about; empty while that is still being found out."""

    verdict: Verdict
    flight: Flight | None = None
    guilty: tuple[Resource, ...] = ()
    message: str = ""


@dataclass(slots=True, kw_only=True)
class Flight:
    """A push without its answer yet; ``was`` is what the client had of the names it changed."""

    nonce: str
    version: str
    target: str
    at: float
    changed: tuple[Resource, ...]
    removed: tuple[str, ...]
    was: Mapping[str, Resource]
    pushes: int = 1
    trial: bool = False

    @property
    def names(self) -> frozenset[str]:
        return frozenset(resource.name for resource in self.changed) | frozenset(self.removed)


@dataclass(frozen=True, slots=True)
class Refusal:
    """``message`` is the client's, or the part of it that is worth keeping."""

    digest: int
    until: float
    message: str = ""
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Hold:
    """What must wait, as the order of the types has it; *together*: no removal without all additions.

    *keep* says of something we do not have that a client which has it must not lose it, though it asks.
    """

    put: Callable[[Resource], bool] = lambda resource: False
    drop: Callable[[str], bool] = lambda name: False
    keep: Callable[[str], bool] = lambda name: False
    together: bool = False


NOTHING_HELD = Hold()
Blame = Callable[[str, Collection[Resource]], tuple[Resource, ...]]


@dataclass(slots=True)
class Change:
    put: list[Resource] = field(default_factory=list)
    drop: list[str] = field(default_factory=list)
    was: dict[str, Resource] = field(default_factory=dict)


_Compared = tuple[Resources, Resources, tuple[str, ...]]


class Comparisons:
    """Comparisons of large sets, made once for all streams that need the same one."""

    def __init__(self, limit: int = 16) -> None:
        self._limit = limit
        self._names: OrderedDict[tuple[int, int], tuple[Resources, Resources, tuple[str, ...]]] = (
            OrderedDict()
        )
        self._ordered: OrderedDict[int, tuple[Resources, tuple[Resource, ...]]] = OrderedDict()
        self._sums: OrderedDict[tuple[int, frozenset[str]], tuple[Resources, int]] = OrderedDict()

    def changed(self, old: Resources, new: Resources) -> tuple[str, ...]:
        """The names whose resource differs between the two sets."""
        if old is new:
            return ()
        if known := self._names.get(key := (id(old), id(new))):
            return known[2]
        before, after = old.by_name, new.by_name
        names = [name for name, resource in after.items() if not same(before.get(name), resource)]
        names += [name for name in before if name not in after]
        self._names[key] = old, new, tuple(names)  # holding both sets keeps their ids theirs
        if len(self._names) > self._limit:
            self._names.popitem(last=False)
        return self._names[key][2]

    def ordered(self, target: Resources) -> tuple[Resource, ...]:
        """All of *target*, by name."""
        if known := self._ordered.get(id(target)):
            return known[1]
        members = tuple(target.by_name[name] for name in sorted(target.by_name))
        self._ordered[id(target)] = target, members
        if len(self._ordered) > self._limit:
            self._ordered.popitem(last=False)
        return members

    def sum(self, target: Resources, names: frozenset[str]) -> int:
        """The digest of *target*'s resources among *names*."""
        if known := self._sums.get(key := (id(target), names)):
            return known[1]
        total = sum(r.digest for name in names if (r := target.by_name.get(name))) % MODULUS
        self._sums[key] = target, total
        if len(self._sums) > self._limit:
            self._sums.popitem(last=False)
        return total


def same(have: Resource | None, want: Resource | None) -> bool:
    return have is want or (have is not None and want is not None and have.digest == want.digest)


@dataclass(slots=True)
class Subscription:
    """The state of one type on one stream."""

    type_url: TypeUrl
    names: Set[str] = frozenset()
    wildcard: bool = False
    named: bool = False  # a name was asked for on this stream: an empty list no longer means all
    started: bool = False

    base: Resources = EMPTY
    differs: dict[str, Resource | None] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)  # to be answered whatever the client has
    unsure: set[str] = field(default_factory=set)  # refused, and perhaps half applied
    answer: bool = False  # a response is owed even if it is empty
    claimed: str = ""  # the version a reconnecting client says it has

    flights: list[Flight] = field(default_factory=list)
    refused: dict[str, Refusal] = field(default_factory=dict)
    trials: list[tuple[Resource, ...]] = field(default_factory=list)
    tried: int = 0
    trying: bool = False
    doubtful: Flight | None = None  # the last push, while it is the one that was refused

    nonce: int = 0
    sent: str = ""
    acked: str = ""

    def covers(self, name: str) -> bool:
        return self.wildcard or name in self.names

    def has(self, name: str) -> Resource | None:
        return self.differs[name] if name in self.differs else self.base.by_name.get(name)

    @property
    def legacy_wildcard(self) -> bool:
        """Whether a request without names now means everything: on the two types that know it, until a
        name was asked for."""
        return not self.named and self.type_url in FULL

    @property
    def at_rest(self) -> bool:
        """Whether nothing is left to do until the snapshot changes or the client asks."""
        return not (self.differs or self.unsure or self.trials or self.owed)

    @property
    def owed(self) -> bool:
        """Whether the client has asked for something that was not looked at yet."""
        return bool(self.asked or self.answer or self.claimed)

    def settled(self, now: float, deadline: float) -> bool:
        """Whether the client has all it should have, and has said so or had the time to."""
        return not self.differs and not self.unsure and not self.waiting(now, deadline)

    def waiting(self, now: float, deadline: float) -> list[Flight]:
        return [flight for flight in self.flights if now < flight.at + deadline]

    def unanswered(self, now: float, deadline: float) -> int:
        return sum(flight.pushes for flight in self.waiting(now, deadline))

    def advance(self, target: Resources, hold: Hold, compare: Comparisons, now: float) -> Change:
        """Move the client to *target*, except for what must wait; what is given back must be sent."""
        self._next_trial()
        names = dict.fromkeys(compare.changed(self.base, target))
        names.update(dict.fromkeys((*self.differs, *self.asked, *self.unsure)))
        change, kept, unsure, waits = Change(), dict[str, Resource | None](), set[str](), False
        for name in names:
            if not self.covers(name):
                self.refused.pop(name, None)
                continue
            have, want = self.has(name), target.by_name.get(name)
            asked, doubted = name in self.asked, name in self.unsure
            if same(have, want) and not asked and not doubted:
                continue
            if want is None:
                held = have is not None and ((not asked and hold.drop(name)) or hold.keep(name))
            else:
                held = self._refuses(want, now) or (not asked and hold.put(want))
                waits |= held
            if held:
                kept[name] = have
                if doubted:
                    unsure.add(name)
                continue
            if have is not None:
                change.was[name] = have
            if want is None:
                self.refused.pop(name, None)
                change.drop.append(name)
            else:
                change.put.append(want)
        if waits and hold.together:
            for name in change.drop:
                kept[name] = change.was.pop(name, None)
            change.drop.clear()
        self.base, self.differs, self.unsure = target, kept, unsure
        self.asked.clear()
        return change

    def takes(self, push: Push, nonce: int, now: float, *, merge: bool) -> None:
        """*push* goes out. With *merge* one answer speaks for all that is unanswered."""
        flight = Flight(
            nonce=str(nonce),
            version=push.version,
            target=push.target,
            at=now,
            changed=push.changed,
            removed=push.removed,
            was=push.was,
            trial=self.trying,
        )
        self.trying = False
        if merge and self.flights:
            earlier = self.flights.pop()
            flight.pushes += earlier.pushes
            flight.was = {**push.was, **earlier.was}
            newer = flight.names
            flight.changed += tuple(r for r in earlier.changed if r.name not in newer)
        self.flights.append(flight)
        self.nonce, self.sent, self.answer, self.doubtful = nonce, push.target, False, None

    def accepted(self, flight: Flight) -> Receipt:
        self.flights.remove(flight)
        self.acked = flight.target
        return Receipt(verdict=Verdict.ACKED, flight=flight)

    def rejected(self, flight: Flight, message: str, blame: Blame, now: float, retry: float) -> Receipt:
        """Take note of a refusal: the guilty are not offered again until they change, the others are.

        Where the client's words name nobody, halves are offered until the guilty one stands alone.
        """
        self.flights.remove(flight)
        if len(message) > MESSAGE_KEPT:
            message = f"{message[: MESSAGE_KEPT // 2]}…{message[-MESSAGE_KEPT // 2 :]}"
        self.doubtful = flight
        if not flight.trial and not self.trials:
            self.tried = 0
        guilty = blame(message, flight.changed)
        if not guilty and (len(flight.changed) == 1 or self.tried >= MAX_TRIALS):
            guilty = flight.changed
        suspects = guilty
        if not guilty and flight.changed:
            half = len(flight.changed) // 2
            self.trials[:0] = [flight.changed[:half], flight.changed[half:]]
            suspects = flight.changed
        superseded = frozenset[str]().union(*(later.names for later in self.flights))
        for name in flight.names - superseded:
            self.differs[name] = flight.was.get(name)
            self.unsure.add(name)
        for resource in suspects:
            self.refused[resource.name] = Refusal(resource.digest, now + retry, message, now)
        return Receipt(verdict=Verdict.NACKED, flight=flight, guilty=guilty, message=message)

    def reconsidered(self, flight: Flight) -> Receipt:
        """A refused push was accepted after all: the refusal was a late one, of the push before."""
        for resource in flight.changed:
            refusal = self.refused.get(resource.name)
            if refusal and refusal.digest == resource.digest:
                del self.refused[resource.name]
            self.differs[resource.name] = resource
            self.unsure.discard(resource.name)
        self.doubtful, self.acked = None, flight.target
        return Receipt(verdict=Verdict.ACKED, flight=flight)

    def _next_trial(self) -> None:
        if not self.trials or self.flights:
            return
        self.tried, self.trying = self.tried + 1, True
        for resource in self.trials.pop(0):
            refusal = self.refused.get(resource.name)
            if refusal and refusal.digest == resource.digest:
                del self.refused[resource.name]

    def _refuses(self, want: Resource, now: float) -> bool:
        refusal = self.refused.get(want.name)
        if refusal is None:
            return False
        if refusal.digest == want.digest and now < refusal.until:
            return True
        del self.refused[want.name]
        return False
