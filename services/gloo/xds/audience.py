"""Who hears of a change, and in which order: connections that make little work first."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from services.gloo.xds.cache import Cache
from services.gloo.xds.line import Line, Peer

AT_ONCE = 8  # looks in one turn of the loop; in the first it is one, since whom it wakes waits for the others
FEW = 8  # streams of one connection that are not kept waiting


class Listener(Protocol):
    """One stream, to whom a change may or may not be of interest."""

    def look(self, changes: int, *, first: bool) -> bool:
        """See about so many changes; *first*: it is one of the first streams of its connection. Whether it is
        late with what it was sent before."""


class _Row:
    """The streams of one connection, and those that have not looked at *change* yet."""

    __slots__ = ("change", "late", "listeners", "looks", "peer")

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.listeners: dict[Listener, int] = {}  # with the change they looked at last
        self.looks: list[Listener] = []
        self.change = 0
        self.late = False

    def look(self, change: int) -> None:
        """Have the next stream look."""
        if self.change != change:
            self.change, self.looks = change, list(reversed(self.listeners))
        if not self.looks or (seen := self.listeners.get(listener := self.looks.pop())) is None:
            return  # it has left
        self.listeners[listener] = change
        self.late = listener.look(change - seen, first=len(self.listeners) - len(self.looks) <= FEW)


class Audience:
    """Who hears of a role's changes, in rounds: in each a connection's next stream. In the first round are
    those who were not late the last time, and those who make little work are the first in it."""

    def __init__(self) -> None:
        self.turning = False
        self._rows: dict[Peer, _Row] = {}
        self._late: dict[_Row, None] = {}
        self._prompt: dict[_Row, None] = {}
        self._round = deque[_Row]()
        self._next_round: list[_Row] = []
        self._changes = 0

    def __bool__(self) -> bool:
        return bool(self._rows)

    def join(self, peer: Peer, listener: Listener) -> None:
        row = self._rows.get(peer)
        if row is None:
            row = self._rows[peer] = _Row(peer)
            self._prompt[row] = None
        row.listeners[listener] = self._changes

    def leave(self, peer: Peer, listener: Listener) -> None:
        row = self._rows[peer]
        del row.listeners[listener]
        if not row.listeners:
            del self._rows[peer]
            self._prompt.pop(row, None)
            self._late.pop(row, None)

    def changed(self) -> None:
        self._changes += 1
        self._round = deque(sorted(self._prompt, key=_load))
        self._next_round = list(self._late)
        if not self.turning:
            self._turn(1)

    def _turn(self, looks: int) -> None:
        """A few looks, then let others have the loop."""
        for _ in range(looks):
            if not self._round:
                self._round, self._next_round = deque(self._next_round), []
            if self._round:
                self._look(self._round.popleft())
        self.turning = bool(self._round or self._next_round)
        if self.turning:
            asyncio.get_running_loop().call_soon(self._turn, min(looks * 2, AT_ONCE))

    def _look(self, row: _Row) -> None:
        row.look(self._changes)
        if row.looks:
            self._next_round.append(row)
        if row.listeners and row.late == (row in self._prompt):
            left, joined = (self._prompt, self._late) if row.late else (self._late, self._prompt)
            del left[row]
            joined[row] = None


def _load(row: _Row) -> float:
    return row.peer.free_at


class Audiences:
    """The audience of each role."""

    def __init__(self, cache: Cache, line: Line) -> None:
        self._cache = cache
        self._line = line
        self._by_role: dict[str, tuple[Audience, Callable[[], None]]] = {}

    def join(self, role: str, peer: Peer, listener: Listener) -> Callable[[], None]:
        """Have *listener* look after every change of *role*; the answer ends that."""
        if role not in self._by_role:
            made = Audience()
            self._by_role[role] = made, self._cache.watch(role, lambda: self._changed(made))
        audience, unwatch = self._by_role[role]
        audience.join(peer, listener)

        def leave() -> None:
            audience.leave(peer, listener)
            if not audience:
                del self._by_role[role]
                unwatch()

        return leave

    def _changed(self, audience: Audience) -> None:
        self._line.changed()
        audience.changed()
