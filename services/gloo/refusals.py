"""Refusals: what Envoys would not take, in words for people, and whose report they go into."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from services.gloo.parts import WHOLE
from services.gloo.quarantine.held import Held, Place
from services.gloo.resources import (
    CLUSTER,
    CONFIDENTIAL,
    ENDPOINTS,
    EXTENSION,
    LISTENER,
    ROUTES,
    SECRET,
    TypeUrl,
)
from services.gloo.translator.sources import Reports
from shared.ref import Source
from shared.report import Report
from shared.store.keys import UPSTREAM

WORDS = {
    CLUSTER: "cluster",
    ENDPOINTS: "endpoints",
    LISTENER: "listener",
    ROUTES: "routes",
    SECRET: "secret",
    EXTENSION: "filter",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What one Envoy would not take: a resource, or a *part* of one; ``node`` is that Envoy's id.

    With *held* it is the quarantine's, which says what stands in for it.
    """

    role: str
    node: str
    type_url: TypeUrl
    name: str
    text: str
    sources: frozenset[Source]
    part: str = WHOLE
    held: Held | None = None

    def __str__(self) -> str:
        what = f"{WORDS.get(self.type_url, 'resource')} {self.name}"
        if self.part != WHOLE:
            what = f"virtual host {self.part} of {what}"
        if self.held is not None:
            what += ", served in its last good version" if self.held.good else ", not served"
        return f"Envoy {self.node} refused {what}: {self.text}"


class Told(NamedTuple):
    """What an Envoy would not take, in its words, as replicas tell each other."""

    place: Place
    node: str
    text: str


def add_refusals(reports: Reports, refusals: Iterable[Refusal], owner: Source) -> None:
    """Join refusals to what was found: the one object a resource comes from owns it, else the Proxy. Of a
    secret every object of the Proxy is told that refers to it."""
    for refusal in refusals:
        sources = refusal.sources
        if refusal.type_url in CONFIDENTIAL and len(sources) > 1:
            sources = frozenset(source for source in sources if source.kind != UPSTREAM.name)
        elif len(sources) > 1:
            sources = frozenset()
        for source in sources or (owner,):
            report = reports[source] = copy_of(reports.get(source))
            report.error("", str(refusal))


def copy_of(report: Report | None) -> Report:
    copied = Report()
    if report is not None:
        copied.add(report)
    return copied
