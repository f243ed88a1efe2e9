"""The author's part of a document, and its fingerprint: what a status speaks of.

A status says in ``details.observed`` which version of its object it judges. Without that, one that stands
beside a text edited since could not be told from the verdict on the edit. No message classes here, so that
a command line which only reads documents starts fast.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final

STATUS_FIELDS: Final = ("status", "namespacedStatuses", "namespaced_statuses")
OBSERVED: Final = "observed"
_BOOKKEEPING = frozenset({"resourceVersion", "resource_version", "generation"})


def spec_of(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The author's part of *document*: no status, no resource version, no generation."""
    spec = {name: value for name, value in document.items() if name not in STATUS_FIELDS}
    if isinstance(metadata := spec.get("metadata"), dict):
        spec["metadata"] = {name: value for name, value in metadata.items() if name not in _BOOKKEEPING}
    return spec


def fingerprint(spec: Mapping[str, Any]) -> str:
    """Sixteen digits that name *spec*, however it is spelt."""
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"), default=str)
    return blake2b(text.encode(), digest_size=8).hexdigest()


def status_in(document: Mapping[str, Any], namespace: str) -> Mapping[str, Any]:
    """The status in *document*, empty when there is none; *namespace* picks among namespaced ones."""
    namespaced = document.get("namespacedStatuses", document.get("namespaced_statuses"))
    if isinstance(namespaced, Mapping):
        statuses = namespaced.get("statuses")
        status = statuses.get(namespace) if isinstance(statuses, Mapping) else None
    else:
        status = document.get("status")
    return status if isinstance(status, Mapping) else {}


def observed(status: Mapping[str, Any]) -> str:
    """The fingerprint of the spec that *status* is the last word about; empty when it does not say."""
    details = status.get("details")
    return str(details.get(OBSERVED) or "") if isinstance(details, Mapping) else ""
