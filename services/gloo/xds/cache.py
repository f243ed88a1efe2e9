"""What each role is served: the one place where translation's output meets the streams."""

from __future__ import annotations

from collections.abc import Callable

from services.gloo.resources import Snapshot

Wake = Callable[[], None]


class Cache:
    """Snapshots by role. Streams read the newest when they are ready to send, so a burst of changes
    reaches a slow client as one.

    A removed role's clients keep what they have: nothing is ever sent because something is unknown.
    """

    def __init__(self) -> None:
        self._snapshots: dict[str, Snapshot] = {}
        self._waiting: dict[str, set[Wake]] = {}

    def get(self, role: str) -> Snapshot | None:
        return self._snapshots.get(role)

    def roles(self) -> frozenset[str]:
        return frozenset(self._snapshots)

    def set(self, role: str, snapshot: Snapshot) -> None:
        if self._snapshots.get(role) is snapshot:
            return
        self._snapshots[role] = snapshot
        for wake in tuple(self._waiting.get(role, ())):
            wake()

    def remove(self, role: str) -> None:
        self._snapshots.pop(role, None)

    def watch(self, role: str, wake: Wake) -> Callable[[], None]:
        """Call *wake* after every change of *role*; the answer ends that."""
        waiting = self._waiting.setdefault(role, set())
        waiting.add(wake)

        def leave() -> None:
            waiting.discard(wake)
            if not waiting and self._waiting.get(role) is waiting:
                del self._waiting[role]

        return leave
