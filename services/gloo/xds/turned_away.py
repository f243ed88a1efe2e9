"""Who was turned away and why, for operators: bounded, whoever comes and however often."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from time import monotonic
from typing import Any

log = logging.getLogger(__name__)

SHOWN = 50
LOG_EVERY = 1.0  # seconds; what is not logged is listed and counted all the same
LOGGED_AT_ONCE = 10


class TurnedAway:
    """The last of them, the same one again once with its number."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._logs = float(LOGGED_AT_ONCE)
        self._at = monotonic()

    def add(self, *, problem: str, address: str, node: str = "", role: str = "") -> None:
        key = node, role, problem
        known = self._entries.pop(key, None)
        entry = {
            "node": node,
            "role": role,
            "address": address,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "problem": problem,
        }
        if known is None and self._may_log():  # it will come again and again
            log.warning("an xDS client is turned away: %s", problem, extra=entry)
        self._entries[key] = {**entry, "times": known["times"] + 1 if known else 1}
        if len(self._entries) > SHOWN:
            del self._entries[next(iter(self._entries))]

    def listed(self) -> list[dict[str, Any]]:
        """The last first."""
        return [dict(entry) for entry in reversed(self._entries.values())]

    def _may_log(self) -> bool:
        now = monotonic()
        self._logs = min(self._logs + (now - self._at) / LOG_EVERY, LOGGED_AT_ONCE)
        self._at = now
        if self._logs < 1:
            return False
        self._logs -= 1
        return True
