"""What connections hold of something there is only so much of: who holds most makes room for others."""

from __future__ import annotations

from services.gloo.xds.line import Peer


class Holdings:
    """How much each connection holds."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._total = 0
        self._held: dict[Peer, int] = {}

    def change(self, peer: Peer, by: int) -> None:
        self._total += by
        if held := self.of(peer) + by:
            self._held[peer] = held
        else:
            self._held.pop(peer, None)

    def of(self, peer: Peer) -> int:
        return self._held.get(peer, 0)

    def room(self, more: int = 0) -> bool:
        return self._total + more <= self._limit

    def most(self) -> Peer | None:
        return max(self._held, key=self.of, default=None)
