"""Whose mistake it is: the objects a part of a Proxy came from, and reports handed to each of them.

Listeners, virtual hosts and routes of a Proxy say in their metadata which objects they were made from,
and ``path`` in an entry says where in that object. The innermost source (the last one) owns a problem; the
objects it was reached through are told of it as a warning, so a mistake costs only the object it is in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from protos import gloo
from protos._generated.google import protobuf
from services.gloo.translator.names import ref_of
from shared.codec.wellknown import dict_of
from shared.ref import Ref, Source
from shared.report import Problem, Report, join

Reports = dict[Source, Report]
Lent = Mapping[str, "Lender"]
"""Who lends what, by its path."""


class HasSources(Protocol):
    """A part of a Proxy that carries metadata in either of Gloo's two forms."""

    metadata: protobuf.Struct | None
    metadata_static: gloo.SourceMetadata | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A source and where in it, None when that is not known."""

    source: Source
    path: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lender:
    """Where something stands that a part of a Proxy has from elsewhere; *of* is what the path there is in
    place of."""

    origin: Origin
    of: str = ""

    def own(self, path: str) -> str:
        return path.removeprefix(self.of).removeprefix(".")


def origins_of(part: HasSources) -> tuple[Origin, ...]:
    """The objects *part* came from, the outermost first."""
    if part.metadata is not None:
        return tuple(_origins(_list(dict_of(part.metadata), "sources")))
    if part.metadata_static is not None:
        return tuple(
            Origin(source=Source(_kind(entry.resource_kind), ref_of(entry.resource_ref)))
            for entry in part.metadata_static.sources
            if entry.resource_ref is not None
        )
    return ()


def tls_origins_of(part: HasSources) -> list[tuple[Origin, ...]]:
    """Of a listener's TLS configurations, one by one: the objects that brought it."""
    told = _list(dict_of(part.metadata), "sslConfigurations") if part.metadata is not None else []
    return list(_tls(told))


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedOrigins:
    """The objects a matched listener came from, those of its TLS configurations, and who lends it options."""

    origins: tuple[Origin, ...] = ()
    tls: tuple[tuple[Origin, ...], ...] = ()
    lent: Lent = field(default_factory=dict)


def matched_origins_of(part: HasSources) -> list[MatchedOrigins]:
    """Of a hybrid listener's matched ones, one by one."""
    told = _list(dict_of(part.metadata), "matchedListeners") if part.metadata is not None else []
    return [_matched(entry) if isinstance(entry, Mapping) else MatchedOrigins() for entry in told]


def _matched(entry: Mapping[str, Any]) -> MatchedOrigins:
    return MatchedOrigins(
        origins=tuple(_origins(_list(entry, "sources"))),
        tls=tuple(_tls(_list(entry, "sslConfigurations"))),
        lent=_lent(_list(entry, "options")),
    )


def _list(entry: Mapping[str, Any], key: str) -> list[Any]:
    value = entry.get(key)
    return value if isinstance(value, list) else []


def _tls(entries: Sequence[Any]) -> Iterator[tuple[Origin, ...]]:
    for each in entries:
        yield tuple(_origins(_list(each, "sources"))) if isinstance(each, Mapping) else ()


def _lent(entries: Sequence[Any]) -> dict[str, Lender]:
    found: dict[str, Lender] = {}
    for entry in entries:
        for origin in _origins([entry]):
            lender = Lender(origin=origin, of=_text(entry, "of") or origin.path or "")
            found |= {f"{lender.of}.{name}": lender for name in _list(entry, "fields")}
    return found


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


def lent_to(part: HasSources) -> dict[str, Lender]:
    """The options of *part* that stand in objects of their own."""
    return _lent(_list(dict_of(part.metadata), "options")) if part.metadata is not None else {}


def attribute(report: Report, origins: Sequence[Origin], reports: Reports, lent: Lent | None = None) -> None:
    """Hand *report* to the innermost of *origins*, and a warning of its errors to those around it.

    What is wrong with a part that is *lent*, by path, goes to who lends it: that is the innermost then.
    """
    if report.clean or not origins:
        return
    for lender, theirs in _by_lender(report, lent):
        *around, owner = origins if lender is None else (*origins, lender.origin)
        here = owner.path or ""
        _add_new(reports.setdefault(owner.source, Report()), theirs, here)
        for origin in around:
            if origin.source != owner.source:
                told = Report()
                for problem in theirs.errors:
                    told.warn("", f"{owner.source}: {Problem(join(here, problem.path), problem.text)}")
                _add_new(reports.setdefault(origin.source, Report()), told, origin.path or "")


def _by_lender(report: Report, lent: Lent | None) -> list[tuple[Lender | None, Report]]:
    """*report* in parts: what is one's own, and what is each lender's, with paths as they have them."""
    if not lent:
        return [(None, report)]
    parts: dict[Lender | None, Report] = {}
    for problems, kind in ((report.errors, "errors"), (report.warnings, "warnings")):
        for problem in problems:
            lender = next((lent[at] for at in lent if _is_within(problem.path, at)), None)
            if lender is not None:
                problem = Problem(lender.own(problem.path), problem.text)
            getattr(parts.setdefault(lender, Report()), kind).append(problem)
    return list(parts.items())


def _is_within(path: str, outer: str) -> bool:
    return path.startswith(outer) and path[len(outer) :][:1] in ("", ".", "[")


def _add_new(known: Report, more: Report, prefix: str) -> None:
    """What is lent to several is found in each of them."""
    found = Report()
    found.add(more, prefix)
    known.errors[:] = dict.fromkeys([*known.errors, *found.errors])
    known.warnings[:] = dict.fromkeys([*known.warnings, *found.warnings])
