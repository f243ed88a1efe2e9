"""What replicas know of refused versions: held here too, unless an Envoy here has accepted one."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace

from services.gloo.parts import part_digest, parts_of
from services.gloo.quarantine.held import Heard, Held, Place, Version
from services.gloo.quarantine.shelf import Shelf
from services.gloo.resources import Resource


class Hearing:
    """``approved`` are versions that were heard to be refused, and that an Envoy here has accepted."""

    def __init__(self) -> None:
        self._known: dict[Place, dict[Version, Heard]] = {}
        self.approved: set[Version] = set()

    def learn(self, heard: Mapping[Version, Heard]) -> tuple[set[Version], set[Place]]:
        """Take over all that replicas know by now: what is over, and the places of what is news."""
        before = {version: each for known in self._known.values() for version, each in known.items()}
        self._known = {}
        for version, each in heard.items():
            self._known.setdefault(version.place, {})[version] = each
        self.approved &= {version for version, each in heard.items() if not each.accepted}
        news = {version.place for version, each in heard.items() if before.get(version) != each}
        return before.keys() - heard.keys(), news

    def places(self, shelf: Shelf) -> list[Place]:
        """Those on the shelf that something is known of."""
        return [place for place in self._known if place[:2] == (shelf.role, shelf.type_url)]

    def taken(self, place: Place) -> list[Version]:
        """What some Envoy accepts, whoever else has refused it."""
        known = self._known.get(place, {})
        return [version for version, heard in known.items() if heard.accepted or version in self.approved]

    def apply(self, shelf: Shelf, place: Place, connected: Container[str]) -> None:
        """Hold what others have heard refused, and let go of what one of their Envoys has accepted."""
        wanted, case = shelf.wanted.by_name[place.name], shelf.case(place.name)
        parts, good = shelf.wanted_parts(place.name), shelf.good_parts(place.name)
        for version, heard in self._known.get(place, {}).items():
            if not version.is_in(parts):
                continue
            held = case.held.get(version.part)
            if heard.accepted or version in self.approved:
                case.let_go(version, connected)
            elif held is None and shelf.proven(version):
                self.approved.add(version)
            elif held is not None or heard.held.elsewhere:
                case.held[version.part] = _agreed(held, heard.held, good.get(version.part), wanted)
                for group in case.groups:
                    group.give_up(version.part)
                case.groups = [group for group in case.groups if group.parts]
                case.published.clear()

    def approve(self, shelf: Shelf, resource: Resource, connected: Container[str]) -> bool:
        """Note which of the versions heard of a client has accepted; whether one was held here."""
        if not self._known:
            return False
        place = Place(shelf.role, shelf.type_url, resource.name)
        doubtful = [version for version, heard in self._known.get(place, {}).items() if not heard.accepted]
        parts, moved = parts_of(place.type_url, resource.body) if doubtful else {}, False
        for version in doubtful:
            if version.is_in(parts):
                self.approved.add(version)
                if (case := shelf.cases.get(place.name)) is not None:
                    moved |= case.let_go(version, connected)
        return moved


def _agreed(held: Held | None, heard: Held, good: bytes | None, wanted: Resource) -> Held:
    """What is held once it was heard of: all replicas are to serve and to say the same."""
    if good is not None and part_digest(good) == heard.refused:
        good = None
    known = [each.good for each in (heard, held) if each is not None and each.good is not None]
    stands_in = b"" if b"" in known else next(iter(known), good)
    if held is not None and not (held.elsewhere or heard.elsewhere):
        return replace(held, good=stands_in)  # we know who has refused it
    return replace(heard, good=stands_in, sources=wanted.sources)
