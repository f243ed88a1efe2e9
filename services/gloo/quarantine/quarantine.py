"""The way in: what is wanted, heard and answered moves a quarantine; what is served comes of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from services.gloo.quarantine import answers
from services.gloo.quarantine.case import Case
from services.gloo.quarantine.hearing import Hearing
from services.gloo.quarantine.held import Blame, Heard, Held, Place, Version
from services.gloo.quarantine.shelf import Shelf
from services.gloo.resources import CLUSTER, LISTENER, ROUTES, Resource, Resources, Snapshot, TypeUrl

HANDLED = (CLUSTER, LISTENER, ROUTES)  # never secrets: what stands in for something goes through Consul
RETRY_SECONDS = 300.0
SEARCH_SECONDS = 5.0  # without an answer for so long a search is given up and everything offered


class Quarantine:
    """``want``, ``accepted``, ``refused``, ``hear`` and ``tick`` move it; ``served`` is what comes of it."""

    def __init__(self, *, retry: float = RETRY_SECONDS) -> None:
        self._retry = retry
        self._wanted: dict[str, Snapshot] = {}
        self._served: dict[str, Snapshot] = {}
        self._shelves: dict[tuple[str, TypeUrl], Shelf] = {}
        self._restored: dict[str, list[Held]] = {}
        self._clients: set[str] = set()
        self._hearing = Hearing()

    # --- what comes in ------------------------------------------------------------------------------------

    def want(self, role: str, snapshot: Snapshot, condemned: Iterable[Held] = ()) -> None:
        """Translation's newest; a part that changed is tried again, but for those that are *condemned*."""
        self._wanted[role] = snapshot
        restored = self._restored.pop(role, ())
        for type_url in HANDLED:
            shelf, wanted = self._shelf(role, type_url), snapshot.of(type_url)
            if shelf.wanted is not wanted:
                before = shelf.wanted.by_name
                shelf.want(wanted, restored)
                for place in self._hearing.places(shelf):
                    name = place.name
                    if name in wanted.by_name and wanted.by_name[name] is not before.get(name):
                        self._hearing.apply(shelf, place, self._clients)
        for held in condemned:
            case = self._shelf(role, held.place.type_url).case(held.place.name)
            if held.version not in self._hearing.taken(held.place):
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
        for case in self._cases():
            case.outvoted.discard(client)

    def accepted(
        self, client: str, role: str, type_url: TypeUrl, resources: Iterable[Resource], now: float
    ) -> bool:
        """A client took these; whether something else is served for that."""
        shelf, moved = self._shelves.get((role, type_url)), False
        if shelf is None or role not in self._wanted:
            return False
        for each in resources:
            moved |= self._hearing.approve(shelf, each, self._clients)
            if (case := shelf.cases.get(each.name)) is not None:
                moved |= answers.accepted(shelf, case, each, client, self._clients, now)
            else:
                shelf.prove(each)
        if moved:
            self._serve(role)
        return moved

    def refused(self, place: Place, blame: Blame, resource: Resource, now: float) -> bool:
        """A client would not take this; whether something else is served for that."""
        if (shelf := self._wanting(place)) is None:
            return False
        case = shelf.case(place.name)
        moved = answers.refused(shelf, case, resource, blame, self._hearing.taken(place), now)
        if case.idle and place.type_url != ROUTES:
            del shelf.cases[place.name]
        if moved:
            self._serve(place.role)
        return moved

    def hear(self, heard: Mapping[Version, Heard]) -> set[str]:
        """Take over all that replicas know by now; the roles served anew."""
        over, moved = self._hearing.learn(heard)
        for version in over:
            case = self._case(version.place)
            if case is not None and (held := case.held_as(version)) is not None and held.elsewhere:
                del case.held[version.part]
                moved.add(version.place)
        roles = set()
        for place in moved:
            if (shelf := self._wanting(place)) is not None:
                self._hearing.apply(shelf, place, self._clients)
                roles.add(place.role)
        for role in roles:
            self._serve(role)
        return roles

    def tick(self, now: float) -> set[str]:
        """Give up what took too long, try again what may have mended itself; the roles served anew."""
        roles = set()
        for case in self._cases():
            if case.groups and now >= case.since + SEARCH_SECONDS:
                case.groups.clear()
                roles.add(case.place.role)
            for part in [part for part, held in case.held.items() if now >= self._again(held)]:
                del case.held[part]
                roles.add(case.place.role)
        for role in roles:
            self._serve(role)
        return roles

    # --- what comes out -----------------------------------------------------------------------------------

    def served(self, role: str) -> Snapshot | None:
        return self._served.get(role)

    def held(self, role: str) -> list[Held]:
        """What is held back, in order."""
        if role not in self._wanted:
            return self._restored.get(role, [])
        found = [held for case in self._cases(role) for held in case.held.values()]
        return sorted(found, key=lambda held: (held.place, held.part))

    @property
    def all_held(self) -> list[Held]:
        """What is held back of all roles that something is wanted for."""
        return [held for role in self._wanted for held in self.held(role)]

    @property
    def approved(self) -> set[Version]:
        """Versions that were heard to be refused, and that an Envoy here has accepted."""
        return self._hearing.approved

    def wanted(self, versions: Iterable[Version]) -> set[Version]:
        """Those that are what translation wants now."""
        parts: dict[Place, Mapping[str, bytes]] = {}
        found = set()
        for version in versions:
            place = version.place
            if place not in parts:
                shelf = self._wanting(place)
                parts[place] = shelf.wanted_parts(place.name) if shelf is not None else {}
            if version.is_in(parts[place]):
                found.add(version)
        return found

    def searching(self, role: str) -> bool:
        """Whether it is being found out what an Envoy refuses."""
        return any(case.groups for case in self._cases(role))

    def handles(self, place: Place) -> bool:
        """Whether what an Envoy says of this resource is told by ``held``, now or soon."""
        case = self._case(place)
        return case is not None and case.replaces

    def wake_at(self) -> float:
        """When to call ``tick``; infinity when there is nothing to wait for."""
        cases = list(self._cases())
        ends = [case.since + SEARCH_SECONDS for case in cases if case.groups]
        ends += [self._again(held) for case in cases for held in case.held.values()]
        return min(ends, default=float("inf"))

    # --- within -------------------------------------------------------------------------------------------

    def _shelf(self, role: str, type_url: TypeUrl) -> Shelf:
        if (role, type_url) not in self._shelves:
            self._shelves[role, type_url] = Shelf(role, type_url)
        return self._shelves[role, type_url]

    def _wanting(self, place: Place) -> Shelf | None:
        """The shelf on which something is wanted at the place."""
        shelf = self._shelves.get((place.role, place.type_url))
        return shelf if shelf is not None and place.name in shelf.wanted.by_name else None

    def _cases(self, role: str | None = None) -> Iterator[Case]:
        """Those of one role, or of all."""
        some = [(role, type_url) for type_url in HANDLED] if role is not None else list(self._shelves)
        for key in some:
            if (shelf := self._shelves.get(key)) is not None:
                yield from shelf.cases.values()

    def _case(self, place: Place) -> Case | None:
        shelf = self._shelves.get((place.role, place.type_url))
        return shelf.cases.get(place.name) if shelf else None

    def _again(self, held: Held) -> float:
        """When a part is tried again although it has not changed: what may be the machine's fault, and what
        was refused by an Envoy that is gone."""
        if held.elsewhere or (held.blame.client in self._clients and not held.machine):
            return float("inf")
        return held.at + self._retry

    def _serve(self, role: str) -> None:
        wanted = self._wanted[role]
        changed: dict[TypeUrl, Resources] = {}
        for type_url in HANDLED:
            shelf = self._shelf(role, type_url)
            if (served := shelf.serve()) is not shelf.wanted:
                changed[type_url] = served
        self._served[role] = wanted.replaced(changed) if changed else wanted
