"""A case: what is known of one resource's refusals, and what is held or left out for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from services.gloo.parts import part_digest
from services.gloo.quarantine.held import Blame, Held, Place, Version

MOST_VERSIONS = 64  # whose answers are still awaited, of one resource


@dataclass(slots=True)
class Group:
    """Parts left out for now, by the digests they had. With *blame* one of them is guilty, provided that
    *beside*, what was refused together with them, is accepted without them."""

    parts: dict[str, int]
    blame: Blame | None = None
    beside: dict[str, int] = field(default_factory=dict)

    def give_up(self, part: str) -> None:
        """Somebody else has convicted *part*; nothing can be deduced of a group that it was in or beside."""
        if self.parts.pop(part, None) is not None or part in self.beside:
            self.blame, self.beside = None, {}


@dataclass(slots=True)
class Case:
    """Routes always have one, for *published*; others from the first refusal until nothing of it is left."""

    place: Place
    held: dict[str, Held] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)
    asked: str = ""  # the client whose acceptance moves the search on
    since: float = 0.0  # the search's last step
    refused: dict[int, str] = field(default_factory=dict)  # versions of the resource, and by whom
    outvoted: set[str] = field(default_factory=set)  # clients that are on their own
    # Digests of what routes were served as since the last decision: older answers say nothing about it.
    published: deque[int] = field(default_factory=lambda: deque(maxlen=MOST_VERSIONS))

    @property
    def waiting(self) -> set[str]:
        return {part for group in self.groups for part in group.parts}

    @property
    def replaces(self) -> bool:
        """Whether something else is served than what is wanted."""
        return bool(self.held or self.groups)

    @property
    def idle(self) -> bool:
        return not (self.replaces or self.outvoted)

    def note_refused(self, digest: int, client: str) -> None:
        self.refused[digest] = client
        while len(self.refused) > MOST_VERSIONS:
            del self.refused[next(iter(self.refused))]

    def held_as(self, version: Version) -> Held | None:
        """What is held for this very version."""
        held = self.held.get(version.part)
        return held if held is not None and held.version == version else None

    def let_go(self, version: Version, connected: Container[str]) -> bool:
        """Serve it: an Envoy takes it, and one that refuses it is on its own. Whether it was held."""
        if (held := self.held_as(version)) is None:
            return False
        del self.held[version.part]
        if held.blame.client in connected:
            self.outvoted.add(held.blame.client)
        return True

    def drop_changed(self, parts: Mapping[str, bytes]) -> None:
        """Let go of what is another version by now, or gone."""
        known = self.held.keys() | self.waiting.union(*(group.beside for group in self.groups))
        digests = {part: part_digest(parts[part]) for part in known if part in parts}
        self.held = {part: held for part, held in self.held.items() if digests.get(part) == held.refused}
        groups = []
        for group in self.groups:
            same = {part: digest for part, digest in group.parts.items() if digests.get(part) == digest}
            if same == group.parts and group.beside.items() <= digests.items():
                groups.append(group)
            elif same:
                groups.append(Group(same))
        self.groups = groups
