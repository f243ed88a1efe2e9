"""Timeouts: how long a route waits for the upstream's whole answer."""

from __future__ import annotations

from datetime import timedelta

from services.gloo import checks
from services.gloo.plugin import Feature, Patch, Scope


def limit_answer(timeout: timedelta, scope: Scope) -> Patch:
    """Zero switches the limit off; without the option Envoy waits 15 seconds."""
    if problem := checks.duration(timeout):
        scope.error("", problem)
    return Patch(action={"timeout": timeout})


FEATURES = (Feature(name="timeout", on_route=limit_answer),)
