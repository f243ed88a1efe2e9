"""Attempts: whether the upstream and the client are told how many tries a request took."""

from __future__ import annotations

from services.gloo.plugin import Feature, Patch, Scope


def tell_upstream(wanted: bool, scope: Scope) -> Patch:
    return Patch(fields={"include_request_attempt_count": wanted})


def tell_client(wanted: bool, scope: Scope) -> Patch:
    return Patch(fields={"include_attempt_count_in_response": wanted})


FEATURES = (
    Feature(name="includeRequestAttemptCount", on_virtual_host=tell_upstream),
    Feature(name="includeAttemptCountInResponse", on_virtual_host=tell_client),
)
