"""Who hears of a change, and in which order: connections that make little work first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from time import monotonic
from typing import Protocol

from services.gloo.xds.cache import Cache
from services.gloo.xds.line import Line, Peer

AT_ONCE = 8  # looks in one turn of the loop
AGAIN = 1.0  # seconds: a connection's second stream comes after the first of those that made as much work
FEW = 8  # streams of one connection that are not kept waiting

_serial = count()


class Listener(Protocol):
    """One stream, to whom a change may or may not be of interest."""

    def look(self, changes: int, *, first: bool) -> None:
        """See about so many changes; *first*: it is one of the first streams of its connection."""


class _Row:
    """The streams of one connection, and those that have not looked yet."""

    __slots__ = ("listeners", "looks", "peer")

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.listeners: dict[Listener, int] = {}  # with the change they looked at last
        self.looks: list[Listener] = []


class Audience:
    """Who hears of a role's changes: connections that make little work first, and each connection's second
    stream after all others' first."""

    def __init__(self) -> None:
        self._rows: dict[Peer, _Row] = {}
        self._turns: list[tuple[float, int, _Row]] = []
        self._changes = 0
        self.turning = False

    def __bool__(self) -> bool:
        return bool(self._rows)

    def join(self, peer: Peer, listener: Listener) -> None:
        row = self._rows.get(peer)
        if row is None:
            row = self._rows[peer] = _Row(peer)
        row.listeners[listener] = self._changes

    def leave(self, peer: Peer, listener: Listener) -> None:
        row = self._rows[peer]
        del row.listeners[listener]
        if not row.listeners:
            del self._rows[peer]

    def changed(self) -> None:
        self._changes += 1
        now = monotonic()
        self._turns = [(max(row.peer.free_at, now), next(_serial), row) for row in self._rows.values()]
        heapify(self._turns)
        for _, _, row in self._turns:
            row.looks = list(row.listeners)
            row.looks.reverse()
        if not self.turning:
            self._turn()

    def _turn(self) -> None:
        """A few looks, then let others have the loop."""
        for _ in range(min(AT_ONCE, len(self._turns))):
            at, _, row = heappop(self._turns)
            self._look(row)
            if row.looks:
                heappush(self._turns, (at + AGAIN, next(_serial), row))
        self.turning = bool(self._turns)
        if self.turning:
            asyncio.get_running_loop().call_soon(self._turn)

    def _look(self, row: _Row) -> None:
        listener = row.looks.pop()
        seen = row.listeners.get(listener)
        if seen is None:  # it has left
            return
        row.listeners[listener] = self._changes
        listener.look(self._changes - seen, first=len(row.listeners) - len(row.looks) <= FEW)


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
