"""Quarantine: what an Envoy refuses goes back to its last good version, alone; all else is served at once.

Translation says what is wanted, Envoys say what they take; between the two stands what is served. Of a
refused resource those parts are suspect that differ from what was accepted last. One is convicted at once.
Of several, those that Envoy's words are found in are left out first, else one half; what is then accepted
is innocent, and if what was left out must be guilty and is one part, it is convicted without being sent
again. A convicted part is held at its last good bytes, or left out when there are none, until it changes.

One Envoy that refuses is enough, unless another one has accepted the very version: then the one that refuses
is on its own, and its refusals of that resource count for nothing until it accepts something. What is held
is held for a role, not for one Envoy, and by every replica: what an Envoy of another one has refused comes
in as ``Heard`` and is held as if it had been refused here, unless an Envoy here has accepted it.

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
from services.gloo.translator.forwarding import one_before
from shared.ref import Source

HANDLED = (CLUSTER, LISTENER, ROUTES)  # never secrets: what stands in for something goes through Consul
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


class Version(NamedTuple):
    """A part as it was wanted once, by the digest of its bytes."""

    place: Place
    part: str
    digest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A part that is not served as it is wanted.

    *good* stands in for it; None: there is nothing; empty: there was, and it was refused, too.
    """

    place: Place
    part: str
    refused: int  # the digest of the bytes that were
    good: bytes | None
    blame: Blame
    at: float
    sources: frozenset[Source] = frozenset()
    elsewhere: bool = False  # it is for another replica to try it again

    @property
    def version(self) -> Version:
        return Version(self.place, self.part, self.refused)

    @property
    def machine(self) -> bool:
        """Whether the refusal may be the machine's fault, as an address in use."""
        return self.place.type_url == LISTENER


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What replicas know of a version: that it was refused, or also that some Envoy takes it."""

    held: Held
    accepted: bool = False


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
    """``want``, ``accepted``, ``refused``, ``hear`` and ``tick`` move it; ``served`` is what comes of it.

    ``approved`` are versions that were heard to be refused, and that an Envoy here has accepted.
    """

    def __init__(self, *, retry: float = RETRY_SECONDS) -> None:
        self._retry = retry
        self._wanted: dict[str, Snapshot] = {}
        self._served: dict[str, Snapshot] = {}
        self._shelves: dict[tuple[str, TypeUrl], Shelf] = {}
        self._restored: dict[str, list[Held]] = {}
        self._clients: set[str] = set()
        self._heard: dict[Place, dict[Version, Heard]] = {}
        self.approved: set[Version] = set()

    # --- what comes in ------------------------------------------------------------------------------------

    def want(self, role: str, snapshot: Snapshot, condemned: Iterable[Held] = ()) -> None:
        """Translation's newest; a part that changed is tried again, but for those that are *condemned*."""
        self._wanted[role] = snapshot
        for type_url in HANDLED:
            shelf, wanted = self._shelf(role, type_url), snapshot.of(type_url)
            if shelf.wanted is not wanted:
                self._take(role, type_url, shelf, wanted)
        self._restored.pop(role, None)
        for held in condemned:
            case = self._shelf(role, held.place.type_url).cases.setdefault(held.place.name, Case())
            if held.version not in self._taken(held.place):
                case.held.setdefault(held.part, held)
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
            if self._heard and (place := Place(role, type_url, each.name)) in self._heard:
                moved |= self._approve(shelf, place, each)
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

    def hear(self, heard: Mapping[Version, Heard]) -> set[str]:
        """Take over all that replicas know by now; the roles served anew."""
        before = {version: each for known in self._heard.values() for version, each in known.items()}
        self._heard = {}
        for version, each in heard.items():
            self._heard.setdefault(version.place, {})[version] = each
        self.approved &= {version for version, each in heard.items() if not each.accepted}
        moved = set[Place]()
        for version in before.keys() - heard.keys():
            if (held := self._held_as(version)) is not None and held.elsewhere:
                del self._shelves[version.place[:2]].cases[version.place.name].held[version.part]
                moved.add(version.place)
        moved |= {version.place for version, each in heard.items() if before.get(version) != each}
        roles = set()
        for place in moved:
            shelf = self._shelves.get((place.role, place.type_url))
            if shelf is not None and place.role in self._wanted and place.name in shelf.wanted.by_name:
                self._apply(place, shelf, shelf.wanted.by_name[place.name])
                roles.add(place.role)
        for role in roles:
            self._serve(role)
        return roles

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

    @property
    def all_held(self) -> list[Held]:
        """What is held back of all roles that something is wanted for."""
        return [held for role in self._wanted for held in self.held(role)]

    def wanted(self, versions: Iterable[Version]) -> set[Version]:
        """Those that are what translation wants now."""
        found = set()
        parts: dict[Place, Mapping[str, bytes]] = {}
        for version in versions:
            place = version.place
            if place not in parts:
                shelf = self._shelves.get((place.role, place.type_url))
                each = shelf.wanted.by_name.get(place.name) if shelf else None
                parts[place] = parts_of(place.type_url, each.body) if each else {}
            if _is(version, parts[place]):
                found.add(version)
        return found

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
        taken = {version.part for version in self._taken(place) if _is(version, suspects)}
        suspects = {part: body for part, body in suspects.items() if part not in taken}
        if not suspects:
            case.outvoted.add(blame.client)
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

    # --- hearing from others ------------------------------------------------------------------------------

    def _apply(self, place: Place, shelf: Shelf, wanted: Resource) -> None:
        """Hold what others have heard refused, and let go of what one of their Envoys has accepted."""
        parts, good = parts_of(place.type_url, wanted.body), shelf.good.get(place.name)
        case = shelf.cases.setdefault(place.name, Case())
        for version, heard in self._heard.get(place, {}).items():
            if not _is(version, parts):
                continue
            held = case.held.get(version.part)
            if heard.accepted or version in self.approved:
                self._let_go(case, version)
            elif held is None and _proven(shelf, version):
                self.approved.add(version)
            elif held is not None or heard.held.elsewhere:
                case.held[version.part] = _agreed(held, heard.held, good, wanted)
                case.groups = [group for group in case.groups if _without(group, version.part)]
                case.published.clear()

    def _let_go(self, case: Case, version: Version) -> bool:
        """Serve it: an Envoy takes it, and one that refuses it is on its own."""
        held = case.held.get(version.part)
        if held is None or held.version != version:
            return False
        del case.held[version.part]
        if held.blame.client in self._clients:
            case.outvoted.add(held.blame.client)
        return True

    def _approve(self, shelf: Shelf, place: Place, resource: Resource) -> bool:
        """Note which of the versions heard of a client has accepted; whether one was held here."""
        doubtful = [version for version, heard in self._heard[place].items() if not heard.accepted]
        parts, moved = parts_of(place.type_url, resource.body) if doubtful else {}, False
        for version in doubtful:
            if _is(version, parts):
                self.approved.add(version)
                if (case := shelf.cases.get(place.name)) is not None:
                    moved |= self._let_go(case, version)
        return moved

    def _taken(self, place: Place) -> list[Version]:
        known = self._heard.get(place, {})
        return [version for version, heard in known.items() if heard.accepted or version in self.approved]

    def _held_as(self, version: Version) -> Held | None:
        """What is held for this very version."""
        shelf = self._shelves.get(version.place[:2])
        case = shelf.cases.get(version.place.name) if shelf else None
        held = case.held.get(version.part) if case else None
        return held if held and held.version == version else None

    def _convict(
        self, place: Place, shelf: Shelf, case: Case, part: str, digest: int, blame: Blame, now: float
    ) -> None:
        if (held := case.held.get(part)) is not None:  # what stood in for it is refused, too
            case.held[part] = replace(held, good=b"", at=now)
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
        if held.elsewhere or (held.blame.client in self._clients and not held.machine):
            return float("inf")
        return held.at + self._retry

    # --- serving ------------------------------------------------------------------------------------------

    def _shelf(self, role: str, type_url: TypeUrl) -> Shelf:
        return self._shelves.setdefault((role, type_url), Shelf())

    def _take(self, role: str, type_url: TypeUrl, shelf: Shelf, wanted: Resources) -> None:
        there = wanted.by_name
        for name in there.keys() - shelf.good.keys():
            if name not in shelf.wanted.by_name:
                good = one_before(there[name], shelf.good.values())
                shelf.good[name] = good or there[name]
                if good is None:
                    shelf.assumed.add(name)
        for name in shelf.good.keys() - there.keys():
            del shelf.good[name]
            shelf.assumed.discard(name)
        for name, case in list(shelf.cases.items()):
            if name not in there or (case.idle and type_url != ROUTES):
                del shelf.cases[name]
        for held in self._restored.get(role, ()):
            if held.place.type_url == type_url and held.place.name in there:
                shelf.cases.setdefault(held.place.name, Case()).held[held.part] = held
        for name, case in shelf.cases.items():
            before = shelf.wanted.by_name.get(name)
            if (case.held or case.groups) and before is not there[name]:
                _drop_changed(case, parts_of(type_url, there[name].body))
        for place in self._heard:
            name = place.name
            news = name in there and there[name] is not shelf.wanted.by_name.get(name)
            if news and place[:2] == (role, type_url):
                self._apply(place, shelf, there[name])
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


def _is(version: Version, parts: Mapping[str, bytes]) -> bool:
    body = parts.get(version.part)
    return body is not None and part_digest(body) == version.digest


def _proven(shelf: Shelf, version: Version) -> bool:
    """Whether it is in what an Envoy has accepted last."""
    place, good = version.place, shelf.good.get(version.place.name)
    if good is None or place.name in shelf.assumed:
        return False
    return _is(version, parts_of(place.type_url, good.body))


def _agreed(held: Held | None, heard: Held, good: Resource | None, wanted: Resource) -> Held:
    """What is held once it was heard of: all replicas are to serve and to say the same."""
    place, part = heard.place, heard.part
    before = parts_of(place.type_url, good.body).get(part) if good else None
    if before is not None and part_digest(before) == heard.refused:
        before = None
    known = [each.good for each in (heard, held) if each is not None and each.good is not None]
    stands_in = b"" if b"" in known else next(iter(known), before)
    if held is not None and not (held.elsewhere or heard.elsewhere):
        return replace(held, good=stands_in)  # we know who has refused it
    return replace(heard, good=stands_in, sources=wanted.sources)


def _without(group: Group, part: str) -> bool:
    """Leave *part* out of the group, from which nothing can be deduced then; whether any is left."""
    if group.parts.pop(part, None) is not None or part in group.beside:
        group.blame, group.beside = None, {}
    return bool(group.parts)


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
        if stand_in:
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
