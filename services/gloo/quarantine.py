"""Quarantine: what an Envoy refuses goes back to its last good version, alone; all else is served at once.

Translation says what is wanted, Envoys say what they take; between the two stands what is served. Of a
refused resource those parts are suspect that differ from what was accepted last. One is convicted at once.
Of several, those that Envoy's words are found in are left out first, else one half; what is then accepted
is innocent, and if what was left out must be guilty and is one part, it is convicted without being sent
again. A convicted part is held at its last good bytes, or left out when there are none, until it changes.

One Envoy that refuses is enough, unless another one has accepted the very version: then the one that refuses
is on its own, and its refusals of that resource count for nothing until it accepts something. What is held
is held for a role, not for one Envoy, and each replica learns it from its own Envoys: two replicas differ
from the time the one was told until the other is.

Pure: no I/O, and the time comes in as *now*.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from services.gloo.parts import WHOLE, domains_of, joined, part_digest, parts_of, without_domains
from services.gloo.resources import (
    CLUSTER,
    EMPTY,
    LISTENER,
    ROUTES,
    Resource,
    Resources,
    Snapshot,
    TypeUrl,
)
from shared.ref import Source

HANDLED = (CLUSTER, LISTENER, ROUTES)
RETRY_SECONDS = 300.0
SEARCH_SECONDS = 5.0  # without an answer for so long a search is given up and everything offered
MOST_VERSIONS = 64  # whose answers are still awaited, of one resource
MOST_WORDS = 64  # of Envoy's text that are looked for
LEAST_WORD = 3
_WORD_END = re.compile(r"[\s'\"]+")
_HOST_NUMBER = re.compile(r"RouteConfigurationValidationError\.VirtualHosts\[(\d+)\]")


class Place(NamedTuple):
    """A resource of a role."""

    role: str
    type_url: TypeUrl
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """Who refused, and in which words."""

    client: str
    node: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A part that is not served as it is wanted; *good* stands in for it, nothing when it is None."""

    place: Place
    part: str
    refused: int  # the digest of the bytes that were
    good: bytes | None
    blame: Blame
    at: float
    sources: frozenset[Source]

    @property
    def machine(self) -> bool:
        """Whether the refusal may be the machine's fault, as an address in use."""
        return self.place.type_url == LISTENER


@dataclass(slots=True)
class Group:
    """Parts left out for now, by the digests they had. With *blame* one of them is guilty, provided that
    *beside*, what was refused together with them, is accepted without them."""

    parts: dict[str, int]
    blame: Blame | None = None
    beside: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Case:
    """What is known about one resource's refusals."""

    held: dict[str, Held] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)
    asked: str = ""  # the client whose acceptance moves the search on
    since: float = 0.0
    refused: dict[int, str] = field(default_factory=dict)  # versions, and by whom
    outvoted: set[str] = field(default_factory=set)
    published: deque[int] = field(default_factory=lambda: deque(maxlen=MOST_VERSIONS))  # since a decision

    @property
    def waiting(self) -> set[str]:
        return {part for group in self.groups for part in group.parts}

    @property
    def idle(self) -> bool:
        return not (self.held or self.groups or self.outvoted)


@dataclass(slots=True)
class Shelf:
    """One type of one role. *good* is what was accepted last, or, for the names in *assumed*, what was
    served first and nobody has refused so far."""

    wanted: Resources = EMPTY
    served: Resources = EMPTY
    good: dict[str, Resource] = field(default_factory=dict)
    assumed: set[str] = field(default_factory=set)
    cases: dict[str, Case] = field(default_factory=dict)


class Quarantine:
    """``want``, ``accepted``, ``refused`` and ``tick`` move it; ``served`` is what comes of it."""

    def __init__(self, *, retry: float = RETRY_SECONDS) -> None:
        self._retry = retry
        self._wanted: dict[str, Snapshot] = {}
        self._served: dict[str, Snapshot] = {}
        self._shelves: dict[tuple[str, TypeUrl], Shelf] = {}
        self._restored: dict[str, list[Held]] = {}
        self._clients: set[str] = set()

    # --- what comes in ------------------------------------------------------------------------------------

    def want(self, role: str, snapshot: Snapshot) -> None:
        """Translation's newest; a part that changed is tried again."""
        self._wanted[role] = snapshot
        for type_url in HANDLED:
            shelf, wanted = self._shelf(role, type_url), snapshot.of(type_url)
            if shelf.wanted is not wanted:
                self._take(role, type_url, shelf, wanted)
        self._serve(role)

    def forget(self, role: str) -> None:
        self._wanted.pop(role, None)
        self._served.pop(role, None)
        self._restored.pop(role, None)
        for type_url in HANDLED:
            self._shelves.pop((role, type_url), None)

    def restore(self, role: str, snapshot: Snapshot, held: Iterable[Held]) -> None:
        """What was served, and held back, before a restart; it counts once something is wanted."""
        for type_url in HANDLED:
            shelf = self._shelf(role, type_url)
            shelf.good.update(snapshot.of(type_url).by_name)
            shelf.assumed.update(shelf.good)
        self._restored[role] = list(held)

    def connected(self, client: str) -> None:
        self._clients.add(client)

    def disconnected(self, client: str) -> None:
        self._clients.discard(client)
        for shelf in self._shelves.values():
            for case in shelf.cases.values():
                case.outvoted.discard(client)

    def accepted(
        self, client: str, role: str, type_url: TypeUrl, resources: Iterable[Resource], now: float
    ) -> bool:
        """A client took these; whether something else is served for that."""
        shelf, moved = self._shelves.get((role, type_url)), False
        if shelf is None or role not in self._wanted:
            return False
        for each in resources:
            case = shelf.cases.get(each.name)
            if case is not None:
                moved |= self._accepted(client, shelf, case, Place(role, type_url, each.name), each, now)
            elif shelf.good.get(each.name) is not each or each.name in shelf.assumed:
                _prove(shelf, each)
        if moved:
            self._serve(role)
        return moved

    def refused(self, place: Place, blame: Blame, resource: Resource, now: float) -> bool:
        """A client would not take this; whether something else is served for that."""
        shelf = self._shelves.get((place.role, place.type_url))
        if shelf is None or place.role not in self._wanted or place.name not in shelf.wanted.by_name:
            return False
        case = shelf.cases.setdefault(place.name, Case())
        moved = self._refused(place, shelf, case, blame, resource, now)
        if case.idle and place.type_url != ROUTES:
            del shelf.cases[place.name]
        if moved:
            self._serve(place.role)
        return moved

    def tick(self, now: float) -> set[str]:
        """Give up what took too long, try again what may have mended itself; the roles served anew."""
        roles = set()
        for (role, _), shelf in self._shelves.items():
            for case in shelf.cases.values():
                if case.groups and now >= case.since + SEARCH_SECONDS:
                    case.groups.clear()
                    roles.add(role)
                for part in [part for part, held in case.held.items() if now >= self._again(held)]:
                    del case.held[part]
                    roles.add(role)
        for role in roles:
            self._serve(role)
        return roles

    def wake_at(self) -> float:
        """When to call ``tick``; infinity when there is nothing to wait for."""
        cases = [case for shelf in self._shelves.values() for case in shelf.cases.values()]
        ends = [case.since + SEARCH_SECONDS for case in cases if case.groups]
        ends += [self._again(held) for case in cases for held in case.held.values()]
        return min(ends, default=float("inf"))

    # --- what comes out -----------------------------------------------------------------------------------

    def served(self, role: str) -> Snapshot | None:
        return self._served.get(role)

    def held(self, role: str) -> list[Held]:
        """What is held back, in order."""
        if role not in self._wanted:
            return self._restored.get(role, [])
        found = [
            held
            for type_url in HANDLED
            for case in self._shelf(role, type_url).cases.values()
            for held in case.held.values()
        ]
        return sorted(found, key=lambda held: (held.place, held.part))

    def searching(self, role: str) -> bool:
        """Whether it is being found out what an Envoy refuses."""
        return any(
            case.groups
            for type_url in HANDLED
            if (shelf := self._shelves.get((role, type_url)))
            for case in shelf.cases.values()
        )

    def handles(self, place: Place) -> bool:
        """Whether what an Envoy says of this resource is told by ``held``, now or soon."""
        shelf = self._shelves.get((place.role, place.type_url))
        case = shelf.cases.get(place.name) if shelf else None
        return case is not None and bool(case.held or case.groups)

    # --- deciding -----------------------------------------------------------------------------------------

    def _accepted(
        self, client: str, shelf: Shelf, case: Case, place: Place, resource: Resource, now: float
    ) -> bool:
        case.outvoted.discard(client)
        if resource.digest in case.refused:
            return self._cleared(client, shelf, case, place, resource)
        if place.type_url == ROUTES:
            if resource.digest not in case.published:
                return False  # an answer from before the last decision
            while case.published[0] != resource.digest:
                case.published.popleft()
        _prove(shelf, resource)
        if not case.groups or (client != case.asked and case.asked in self._clients):
            return False
        self._move_on(place, shelf, case, now)
        return True

    def _cleared(self, client: str, shelf: Shelf, case: Case, place: Place, resource: Resource) -> bool:
        """Somebody takes what was refused: it is good, and who refused it is on its own."""
        refuser = case.refused.pop(resource.digest)
        if refuser != client and refuser in self._clients:
            case.outvoted.add(refuser)
        _prove(shelf, resource)
        parts = parts_of(place.type_url, resource.body) if case.held else {}
        clear = [
            part
            for part, held in case.held.items()
            if part in parts and part_digest(parts[part]) == held.refused
        ]
        for part in clear:
            del case.held[part]
        moved = bool(clear or case.groups)
        case.groups.clear()
        return moved

    def _refused(
        self, place: Place, shelf: Shelf, case: Case, blame: Blame, resource: Resource, now: float
    ) -> bool:
        good = shelf.good.get(place.name)
        if blame.client in case.outvoted:
            return False
        if good is not None and good.digest == resource.digest and place.name not in shelf.assumed:
            case.outvoted.add(blame.client)
            return False
        if not self._awaited(place, shelf, case, resource):
            return False  # something else is served by now, and will have its own answer
        suspects = self._suspects(place, shelf, case, resource)
        if not suspects:
            return False
        case.refused[resource.digest] = blame.client
        while len(case.refused) > MOST_VERSIONS:
            del case.refused[next(iter(case.refused))]
        case.asked, case.since = blame.client, now
        case.published.clear()
        for group in case.groups:
            group.blame = None
        digests = {part: part_digest(body) for part, body in suspects.items()}
        if len(suspects) == 1:
            ((part, digest),) = digests.items()
            self._convict(place, shelf, case, part, digest, blame, now)
        else:
            aside = counted(blame.text, resource, suspects) or accused(blame.text, suspects)
            aside = aside or set(list(suspects)[len(suspects) // 2 :])
            beside = {part: digest for part, digest in digests.items() if part not in aside}
            case.groups.insert(0, Group({part: digests[part] for part in sorted(aside)}, blame, beside))
        return True

    def _suspects(self, place: Place, shelf: Shelf, case: Case, resource: Resource) -> dict[str, bytes]:
        """The parts of a refused resource that nobody has accepted so far."""
        parts = parts_of(place.type_url, resource.body)
        for _ in range(2):
            good = shelf.good.get(place.name)
            base = parts_of(place.type_url, good.body) if good else {}
            found = {part: body for part, body in parts.items() if base.get(part) != body}
            if not found and place.name in shelf.assumed:
                del shelf.good[place.name]  # it was no good after all
                shelf.assumed.discard(place.name)
                continue
            break
        if WHOLE not in base and len(found) > 1:
            found.pop(WHOLE, None)  # without it nothing could be offered
        return found

    def _convict(
        self, place: Place, shelf: Shelf, case: Case, part: str, digest: int, blame: Blame, now: float
    ) -> None:
        if (held := case.held.get(part)) is not None:
            case.held[part] = replace(held, good=None, at=now)  # what stood in for it is refused, too
            return
        good = shelf.good.get(place.name)
        wanted = shelf.wanted.by_name[place.name]
        case.held[part] = Held(
            place=place,
            part=part,
            refused=digest,
            good=parts_of(place.type_url, good.body).get(part) if good else None,
            blame=blame,
            at=now,
            sources=wanted.sources,
        )

    def _move_on(self, place: Place, shelf: Shelf, case: Case, now: float) -> None:
        """What was offered is accepted: offer, split or convict what was left out."""
        case.since = now
        case.published.clear()
        while case.groups:
            group = case.groups.pop(0)
            if group.blame is None:
                return
            if len(group.parts) > 1:
                parts, half = list(group.parts.items()), len(group.parts) // 2
                beside = group.beside | dict(parts[:half])
                case.groups.insert(0, Group(dict(parts[half:]), group.blame, beside))
                return
            for part, digest in group.parts.items():
                self._convict(place, shelf, case, part, digest, group.blame, now)

    def _awaited(self, place: Place, shelf: Shelf, case: Case, resource: Resource) -> bool:
        if place.type_url == ROUTES:
            return resource.digest in case.published
        served = shelf.served.by_name.get(place.name)
        return served is not None and served.digest == resource.digest

    def _again(self, held: Held) -> float:
        """When a part is tried again although it has not changed: what may be the machine's fault, and what
        was refused by an Envoy that is gone."""
        if held.machine or held.blame.client not in self._clients:
            return held.at + self._retry
        return float("inf")

    # --- serving ------------------------------------------------------------------------------------------

    def _shelf(self, role: str, type_url: TypeUrl) -> Shelf:
        return self._shelves.setdefault((role, type_url), Shelf())

    def _take(self, role: str, type_url: TypeUrl, shelf: Shelf, wanted: Resources) -> None:
        there = wanted.by_name
        for name in shelf.good.keys() - there.keys():
            del shelf.good[name]
            shelf.assumed.discard(name)
        for name in there.keys() - shelf.good.keys():
            if name not in shelf.wanted.by_name:
                shelf.good[name] = there[name]
                shelf.assumed.add(name)
        for name, case in list(shelf.cases.items()):
            if name not in there or (case.idle and type_url != ROUTES):
                del shelf.cases[name]
        for held in self._restored.get(role, ()):
            if held.place.type_url == type_url and held.place.name in there:
                shelf.cases.setdefault(held.place.name, Case()).held[held.part] = held
        if type_url == HANDLED[-1]:
            self._restored.pop(role, None)
        for name, case in shelf.cases.items():
            before = shelf.wanted.by_name.get(name)
            if (case.held or case.groups) and before is not there[name]:
                _drop_changed(case, parts_of(type_url, there[name].body))
        shelf.wanted = wanted

    def _serve(self, role: str) -> None:
        wanted = self._wanted[role]
        changed: dict[TypeUrl, Resources] = {}
        for type_url in HANDLED:
            shelf = self._shelf(role, type_url)
            put, drop = [], []
            for name, case in shelf.cases.items():
                if case.held or case.groups:
                    made = _substitute(type_url, case, shelf.wanted.by_name[name], shelf.good.get(name))
                    put += [made] if made is not None else []
                    drop += [name] if made is None else []
            served = shelf.wanted.patched(put=put, drop=drop) if put or drop else shelf.wanted
            if (put or drop) and served == shelf.served:
                served = shelf.served  # the same set for the same content: streams compare by identity
            shelf.served = served
            if served is not shelf.wanted:
                changed[type_url] = served
            if type_url == ROUTES:
                for name, each in served.by_name.items():
                    published = shelf.cases.setdefault(name, Case()).published
                    if not published or published[-1] != each.digest:
                        published.append(each.digest)
        self._served[role] = wanted.replaced(changed) if changed else wanted


def counted(text: str, resource: Resource, parts: Mapping[str, bytes]) -> set[str]:
    """The virtual host that Envoy's text gives by its number."""
    if (found := _HOST_NUMBER.search(text)) is None:
        return set()
    hosts = [part for part in parts_of(ROUTES, resource.body) if part != WHOLE]
    return set(hosts[int(found[1]) : int(found[1]) + 1]) & parts.keys()


def accused(text: str, parts: Mapping[str, bytes]) -> set[str]:
    """The parts that hold a word of Envoy's text which the fewest of them hold; none when all or none do.

    A word may be a virtual host's name, a route's, a domain, or the value that Envoy dislikes.
    """
    words = {word.rstrip(".,;:)") for word in _WORD_END.split(text)} - {""}
    found: set[str] = set()
    for word in sorted(words, key=lambda word: (-len(word), word))[:MOST_WORDS]:
        if len(word) < LEAST_WORD:
            continue
        having = {part for part, body in parts.items() if word.encode() in body}
        if having and len(having) < (len(found) or len(parts)):
            found = having
    return found


def _prove(shelf: Shelf, resource: Resource) -> None:
    if resource.name in shelf.wanted.by_name:
        shelf.good[resource.name] = resource
        shelf.assumed.discard(resource.name)


def _drop_changed(case: Case, parts: Mapping[str, bytes]) -> None:
    """Let go of what is another version by now, or gone."""
    known = case.held.keys() | case.waiting.union(*(group.beside for group in case.groups))
    digests = {part: part_digest(parts[part]) for part in known if part in parts}
    case.held = {part: held for part, held in case.held.items() if digests.get(part) == held.refused}
    groups = []
    for group in case.groups:
        same = {part: digest for part, digest in group.parts.items() if digests.get(part) == digest}
        if same == group.parts and group.beside.items() <= digests.items():
            groups.append(group)
        elif same:
            groups.append(Group(same))
    case.groups = groups


def _substitute(type_url: TypeUrl, case: Case, wanted: Resource, good: Resource | None) -> Resource | None:
    """The resource to serve: with stand-ins for what is held or waits; None when nothing can be served."""
    waiting = case.waiting
    base = parts_of(type_url, good.body) if good and waiting else {}
    parts = parts_of(type_url, wanted.body)
    served: dict[str, bytes] = {}
    for part, body in parts.items():
        held = case.held.get(part)
        stand_in = held.good if held else base.get(part) if part in waiting else body
        if stand_in is not None:
            served[part] = stand_in
    if WHOLE not in served:
        return None
    for part in sorted(served):
        if part != WHOLE and served[part] is not parts[part]:
            _give_up_domains(served, part, parts[part])
    return joined(type_url, wanted, served)


def _give_up_domains(served: dict[str, bytes], part: str, wanted: bytes) -> None:
    """A stand-in may have domains that the newer version gave up and another host took over since."""
    lower = {domain.lower() for domain in domains_of(served[part])}
    extra = lower - {domain.lower() for domain in domains_of(wanted)}
    if not extra:
        return
    others = (host for name, host in served.items() if name not in (part, WHOLE))
    taken = extra & {domain.lower() for host in others for domain in domains_of(host)}
    if taken and not (left := without_domains(served[part], taken)):
        del served[part]
    elif taken:
        served[part] = left
