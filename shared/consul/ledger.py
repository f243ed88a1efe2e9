"""What a watch of a prefix has told, and what an answer adds to it.

Keys that vanish while the index went back (a wiped or restored store), or by the dozen while it stood still,
are held for a while before that is believed.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from shared.consul.operations import RawRow, Row

log = logging.getLogger(__name__)

MANY = 10  # vanished objects, from which on an unmoved index is doubted


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixChange:
    """What is new under a prefix: rows to put, keys to drop. The first one is *initial*, and may be empty."""

    changed: tuple[Row, ...] = ()
    gone: frozenset[str] = frozenset()
    index: int
    initial: bool = False


@dataclass(slots=True)
class Ledger:
    """What a watch of a prefix knows: the version of every key, and whether a loss is to be believed yet."""

    hold: float
    name: str = ""
    known: dict[str, int] = field(default_factory=dict)
    synced: bool = False
    max_index: int = 0
    doubtful_since: float | None = None

    @classmethod
    def joined(cls, parts: Collection[Ledger], *, hold: float, name: str) -> Ledger:
        """What the ledgers of a prefix's parts know together."""
        doubts = [part.doubtful_since for part in parts if part.doubtful_since is not None]
        return cls(
            hold=hold,
            name=name,
            known={key: stamp for part in parts for key, stamp in part.known.items()},
            synced=True,
            max_index=max(part.max_index for part in parts),
            doubtful_since=min(doubts, default=None),
        )

    def part(self, name: str, keys: Iterable[str] = ()) -> Ledger:
        """What we know of *keys* alone."""
        return replace(self, name=name, known={key: self.known[key] for key in keys}, synced=True)

    @property
    def held(self) -> bool:
        return self.doubtful_since is not None

    def take(self, index: int, rows: Sequence[RawRow], now: float) -> PrefixChange | None:
        """The change an answer brings; None when it brings none. A loss that is held is no part of it."""
        known = self.known
        fresh = {row["Key"]: _stamp(row) for row in rows}
        gone = known.keys() - fresh.keys()
        if gone and self._holds(index, len(gone), now):
            fresh |= {key: known[key] for key in gone}
            gone = set()
        else:
            # A doubt that is over, either way, means that the new history is the true one.
            self.max_index = index if self.held else max(self.max_index, index)
            self.doubtful_since = None
        initial, self.synced = not self.synced, True
        changed = tuple(Row.of(row) for row in rows if known.get(row["Key"]) != fresh[row["Key"]])
        if not changed and not gone and not initial:
            return None
        self.known = fresh
        return PrefixChange(changed=changed, gone=frozenset(gone), index=index, initial=initial)

    def _holds(self, index: int, vanished: int, now: float) -> bool:
        """Whether the loss is kept from everybody, for now."""
        if not self._doubts(index, vanished):
            return False
        if self.doubtful_since is None:
            self.doubtful_since = now
            log.warning(
                "objects vanished although the index did not advance: holding them",
                extra={"prefix": self.name, "vanished": vanished, "index": index, "hold": self.hold},
            )
        if now - self.doubtful_since < self.hold:
            return True
        log.error("the objects stay away: dropping them", extra={"prefix": self.name, "vanished": vanished})
        return False

    def _doubts(self, index: int, vanished: int) -> bool:
        """Whether a lost history explains the loss better than a deletion does.

        Once doubted, an index that climbs again proves nothing: a wiped store is being written anew.
        """
        if self.hold <= 0:
            return False
        implausible = vanished > MANY and vanished * 2 > len(self.known)
        return self.held or index < self.max_index or (index == self.max_index and implausible)


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
