"""Wanted and stored Upstreams to writes. What people wrote stays; a bad object costs only itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from services.discovery.upstreams.consul import LABEL, PLUGIN, Wanted
from services.discovery.upstreams.edit import Path, Value, edit
from shared.codec import text
from shared.incremental.units import Steps
from shared.ref import Ref
from shared.store.objects import Stored

SPELLINGS = {
    "serviceName": "service_name",
    "serviceTags": "service_tags",
    "dataCenters": "data_centers",
    "instanceTags": "instance_tags",
    "instanceBlacklistTags": "instance_blacklist_tags",
    "sslConfig": "ssl_config",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    ref: Ref
    document: Mapping[str, Any]
    lost: bytes = b""
    """The text that Consul has lost; it may have had edits."""

    @property
    def value(self) -> bytes:
        """The text to write; made when it is asked for, since another replica may be the one to write it."""
        return self.lost or text.render(self.document).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    ref: Ref
    key: str
    index: int
    raw: bytes
    changes: Mapping[Path, Value]

    @property
    def value(self) -> bytes:
        """The text to write: the stored one with the changes."""
        return edit(self.raw, self.changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    ref: Ref
    key: str
    index: int


Write = Create | Update | Delete


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """What to write, and what people should know about objects that are left alone."""

    writes: Mapping[Ref, Write]
    problems: Mapping[Ref, str]


def reconcile(
    wanted: Mapping[Ref, Wanted],
    stored: Mapping[Ref, Stored],
    *,
    unheard: Collection[str] = (),
    lost: Collection[Ref] = (),
) -> Steps[Reconciled]:
    """The writes that make *stored* what *wanted* asks for.

    Of datacenters *unheard* of so far nothing is known: what the store says of them stands. What Consul has
    *lost* of *stored* is written again, once its service is there.
    """
    writes: dict[Ref, Write] = {}
    problems: dict[Ref, str] = {}
    for ref, upstream in wanted.items():
        yield
        there = stored.get(ref)
        if there is None or (ref in lost and there.document is None):
            writes[ref] = Create(ref=ref, document=upstream.document())
        elif (problem := why_not_ours(there)) is not None:
            problems[ref] = f"service {upstream.service!r} is not discovered: {problem}"
        elif ref in lost:
            writes[ref] = Create(ref=ref, document=upstream.document(), lost=there.raw)
        elif changes := differences(upstream, there, unheard):
            writes[ref] = Update(ref=ref, key=there.key, index=there.index, raw=there.raw, changes=changes)
    for ref, there in stored.items():
        yield
        if ref in wanted or ref in lost or not is_labelled(there):
            continue
        if (problem := why_not_ours(there)) is not None:
            problems[ref] = f"its service is gone, but {problem}"
        elif not set(_texts(_consul(there), "dataCenters")) & set(unheard):
            writes[ref] = Delete(ref=ref, key=there.key, index=there.index)
    return Reconciled(writes=writes, problems=problems)


def owned(stored: Iterable[Stored]) -> Steps[dict[str, str]]:
    """The discovered Upstreams by name, with the service each stands for."""
    services: dict[str, str] = {}
    for there in stored:
        yield
        if why_not_ours(there) is None:
            services[there.ref.name] = str(_get(_consul(there), "serviceName") or "")
    return services


def is_labelled(stored: Stored) -> bool:
    metadata = (stored.document or {}).get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, Mapping) else None
    return isinstance(labels, Mapping) and labels.get(LABEL) == PLUGIN


def why_not_ours(stored: Stored) -> str | None:
    """Why *stored* is left alone, in the user's words; None when it is ours to change."""
    if stored.message is None:
        found = "; ".join(map(str, stored.report.errors))
        return f"the Upstream of that name has an error and is left alone: {found}"
    if not is_labelled(stored):
        return f"an Upstream of that name without the label {LABEL}: {PLUGIN} exists and is left alone"
    if not _consul(stored):
        return "the Upstream of that name is no Consul Upstream any more and is left alone"
    return None


def differences(wanted: Wanted, stored: Stored, unheard: Collection[str] = ()) -> dict[Path, Value]:
    """The fields to set; those that discovery only ever fills in are not among them once they are there."""
    consul = _consul(stored)
    beyond = set(_texts(consul, "dataCenters")) & set(unheard)
    tags = {*wanted.tags, *(_texts(consul, "serviceTags") if beyond else ())}
    fields: dict[str, Value] = {
        "serviceName": wanted.service,
        "serviceTags": sorted(tags),
        "dataCenters": sorted({*wanted.datacenters, *beyond}),
    }
    changes: dict[Path, Value] = {
        ("consul", _spelt(consul, name)): value
        for name, value in fields.items()
        if (_get(consul, name) or type(value)()) != value
    }
    return changes | {path: value for path, value in wanted.extras.items() if not _has(stored.document, path)}


def _consul(stored: Stored) -> Mapping[str, Any]:
    consul = (stored.document or {}).get("consul")
    return consul if isinstance(consul, Mapping) else {}


def _spelt(mapping: Mapping[str, Any], name: str) -> str:
    """*name* as *mapping* has it: documents may be in snake case."""
    snake = SPELLINGS.get(name, name)
    return snake if snake in mapping else name


def _get(mapping: Mapping[str, Any], name: str) -> Any:
    return mapping.get(_spelt(mapping, name))


def _texts(mapping: Mapping[str, Any], name: str) -> list[str]:
    return list(_get(mapping, name) or ())


def _has(document: object, path: Path) -> bool:
    for step in path:
        if not isinstance(document, Mapping) or _spelt(document, step) not in document:
            return False
        document = document[_spelt(document, step)]
    return True
