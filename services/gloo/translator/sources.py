"""Whose mistake it is: the objects a part of a Proxy came from, and reports handed to each of them.

Listeners, virtual hosts and routes of a Proxy say in their metadata which objects they were made from,
and ``path`` in an entry says where in that object. The innermost source (the last one) owns a problem; the
objects it was reached through are told of it as a warning, so a mistake costs only the object it is in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from protos import gloo
from protos._generated.google import protobuf
from services.gloo.translator.names import ref_of
from shared.codec.wellknown import dict_of
from shared.ref import Ref, Source
from shared.report import Problem, Report, join

Reports = dict[Source, Report]


class HasSources(Protocol):
    """A part of a Proxy that carries metadata in either of Gloo's two forms."""

    metadata: protobuf.Struct | None
    metadata_static: gloo.SourceMetadata | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A source and where in it, None when that is not known."""

    source: Source
    path: str | None = None


def origins_of(part: HasSources) -> tuple[Origin, ...]:
    """The objects *part* came from, the outermost first."""
    if part.metadata is not None:
        entries = dict_of(part.metadata).get("sources")
        return tuple(_origins(entries if isinstance(entries, list) else []))
    if part.metadata_static is not None:
        return tuple(
            Origin(source=Source(_kind(entry.resource_kind), ref_of(entry.resource_ref)))
            for entry in part.metadata_static.sources
            if entry.resource_ref is not None
        )
    return ()


def tls_origins_of(part: HasSources) -> list[tuple[Origin, ...]]:
    """Of a listener's TLS configurations, one by one: the objects that brought it."""
    told = dict_of(part.metadata).get("sslConfigurations") if part.metadata is not None else None
    entries = [each.get("sources") if isinstance(each, Mapping) else None for each in told or ()]
    return [tuple(_origins(each)) if isinstance(each, list) else () for each in entries]


def _origins(entries: Sequence[Any]) -> Iterator[Origin]:
    for entry in entries:
        if isinstance(entry, Mapping):
            nested = (entry.get(key) for key in ("resourceRef", "ResourceRef", "resource_ref"))
            ref = next((each for each in nested if isinstance(each, Mapping)), entry)
            if name := _text(ref, "name"):
                source = Source(_kind(_text(entry, "kind")), Ref(_text(ref, "namespace"), name))
                yield Origin(source=source, path=_text(entry, "path") or None)


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    return value if isinstance(value, str) else ""


def _kind(kind: str) -> str:
    """``*v1.VirtualService`` as everybody else writes it."""
    return kind.rpartition(".")[2].lstrip("*")


def attribute(report: Report, origins: Sequence[Origin], reports: Reports) -> None:
    """Hand *report* to the innermost of *origins*, and a warning of its errors to those around it."""
    if report.clean or not origins:
        return
    *around, owner = origins
    here = owner.path or ""
    reports.setdefault(owner.source, Report()).add(report, here)
    for origin in around:
        if origin.source != owner.source:
            for problem in report.errors:
                inner = Problem(join(here, problem.path), problem.text)
                reports.setdefault(origin.source, Report()).warn(
                    origin.path or "", f"{owner.source}: {inner}"
                )
