"""What a watch of a prefix has told, and what an answer adds to it.

A loss is a deletion, unless something else explains it better. When Consul has lost its history (it was
wiped, or restored from an older snapshot) what vanished is held until it is back or somebody releases it;
when a good part of everything vanishes though the index stands still, it is held for a short while. What
comes back or is written anew is told at once, and what has come back can be deleted like anything else.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from shared.consul.operations import RawRow, Row

MANY = 10  # vanished objects, from which on an unmoved index is doubted
LOST = b"lost from Consul, which forgot it while we were away"
"""Stands for a value that nobody remembers; no object, so that whoever has a last good version keeps it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixChange:
    """What is new under a prefix: rows to put, keys to drop. The first one is *initial*, and may be empty."""

    changed: tuple[Row, ...] = ()
    gone: frozenset[str] = frozenset()
    index: int
    initial: bool = False


@dataclass(slots=True)
class Ledger:
    """What a watch of a prefix knows: the version of every key, and which of them Consul does not show.

    *hold* is how long an implausible loss is doubted, in seconds; *limit* how long what a lost history took
    is held at most, by default for ever.
    """

    hold: float
    limit: float = math.inf
    name: str = ""
    known: dict[str, int] = field(default_factory=dict)
    held: dict[str, float] = field(default_factory=dict)
    """Until when what Consul does not show any more is held, by key."""
    synced: bool = False
    max_index: int = 0
    history: int = 0
    doubtful_until: float = -math.inf

    @classmethod
    def joined(cls, parts: Collection[Ledger], *, name: str) -> Ledger:
        """What the ledgers of a prefix's parts know together."""
        one = next(iter(parts))
        return cls(
            hold=one.hold,
            limit=one.limit,
            name=name,
            known={key: stamp for part in parts for key, stamp in part.known.items()},
            held={key: until for part in parts for key, until in part.held.items()},
            synced=True,
            max_index=max(part.max_index for part in parts),
            history=min(part.history for part in parts),
            doubtful_until=max(part.doubtful_until for part in parts),
        )

    def part(self, name: str, keys: Iterable[str] = ()) -> Ledger:
        """What we know of *keys* alone."""
        keys = list(keys)
        return replace(
            self,
            name=name,
            known={key: self.known[key] for key in keys},
            held={key: self.held[key] for key in keys if key in self.held},
            synced=True,
        )

    def doubts(self, now: float) -> bool:
        """Whether something is held that may come back without the index moving: look again soon."""
        return bool(self.held) and now < self.doubtful_until

    @property
    def until(self) -> float:
        """When the first of what is held has been held long enough."""
        return min(self.held.values(), default=math.inf)

    def loses(self, rows: Sequence[RawRow]) -> bool:
        """Whether *rows* lack something that is not held yet."""
        return not self.known.keys() <= {row["Key"] for row in rows} | self.held.keys()

    def release(self) -> None:
        """Believe that what is held is gone; the next ``take`` tells it."""
        self.held = dict.fromkeys(self.held, -math.inf)

    def take(
        self,
        index: int,
        rows: Sequence[RawRow],
        now: float,
        *,
        history: int = 0,
        owed: Collection[str] = (),
    ) -> PrefixChange | None:
        """The change an answer brings; None when it brings none. What is held is no part of it.

        *history* tells one past of Consul from another. *owed* are keys that were lost before the first
        answer: those it lacks are held, with a value that is none.
        """
        known, initial = self.known, not self.synced
        fresh = {row["Key"]: _stamp(row) for row in rows}
        for key in self.held.keys() & fresh.keys():
            del self.held[key]
        changed = [Row.of(row) for row in rows if known.get(row["Key"]) != fresh[row["Key"]]]
        if initial and self.hold > 0:
            missing = sorted(set(owed) - fresh.keys())
            changed += [Row(key=key, value=LOST, index=1) for key in missing]
            known = known | dict.fromkeys(missing, 0)
            self.held |= dict.fromkeys(missing, now + self.limit)
        gone = known.keys() - fresh.keys()
        self._hold(gone - self.held.keys(), index, history, now)
        dropped = {key for key in gone if self.held.get(key, now) <= now}
        for key in dropped:
            self.held.pop(key, None)
        self.known = fresh | {key: known[key] for key in gone - dropped}
        self.synced = True
        if not changed and not dropped and not initial:
            return None
        return PrefixChange(changed=tuple(changed), gone=frozenset(dropped), index=index, initial=initial)

    def _hold(self, vanished: Collection[str], index: int, history: int, now: float) -> None:
        """Hold what *vanished* if a deletion is not the best explanation."""
        lost = bool(vanished) and (index < self.max_index or history != self.history)
        implausible = len(vanished) > MANY and len(vanished) * 2 > len(self.known)
        if self.hold > 0 and lost:
            self.held |= dict.fromkeys(vanished, now + self.limit)
        elif self.hold > 0 and implausible and index == self.max_index:
            self.doubtful_until = now + self.hold
            self.held |= dict.fromkeys(vanished, self.doubtful_until)
        self.max_index = index if lost else max(self.max_index, index)
        self.history = history


def _stamp(row: RawRow) -> int:
    """What tells two versions of a row apart. The index alone does not: a wiped store counts anew."""
    return hash((row["ModifyIndex"], row["Value"], row["Flags"], row.get("Session")))


def merged(changes: Sequence[PrefixChange]) -> PrefixChange:
    """Changes of disjoint parts as one."""
    if len(changes) == 1:
        return changes[0]
    return PrefixChange(
        changed=tuple(row for change in changes for row in change.changed),
        gone=frozenset[str]().union(*(change.gone for change in changes)),
        index=max(change.index for change in changes),
    )
