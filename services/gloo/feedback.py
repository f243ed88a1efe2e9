"""What Envoys answer: which refuse what, in their own words, until they accept something else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from services.gloo.resources import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, Resource, TypeUrl
from services.gloo.translator.sources import Reports
from shared.ref import Source
from shared.report import Report

WORDS = {
    CLUSTER: "cluster",
    ENDPOINTS: "endpoints",
    LISTENER: "listener",
    ROUTES: "routes",
    SECRET: "secret",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One resource that one Envoy would not take; ``node`` is that Envoy's id."""

    role: str
    node: str
    type_url: TypeUrl
    name: str
    text: str
    sources: frozenset[Source]

    def __str__(self) -> str:
        return f"Envoy {self.node} refused {WORDS.get(self.type_url, 'resource')} {self.name}: {self.text}"


class Feedback:
    """The observer of the xDS server; *notify* is called with a role whose refusals differ."""

    def __init__(self, notify: Callable[[str], None]) -> None:
        self._notify = notify
        self._nodes: dict[str, tuple[str, str]] = {}
        self._refusals: dict[str, dict[tuple[TypeUrl, str], Refusal]] = {}

    def refusals(self, role: str) -> list[Refusal]:
        """What the Envoys of *role* refuse now; one resource refused by several stands there once."""
        found = {
            (refusal.type_url, refusal.name): refusal
            for client in sorted(self._refusals)
            for refusal in self._refusals[client].values()
            if refusal.role == role
        }
        return [found[key] for key in sorted(found)]

    def connected(self, client: str, role: str, node: str) -> None:
        self._nodes[client] = (role, node)

    def disconnected(self, client: str) -> None:
        self._nodes.pop(client, None)
        self._tell(self._refusals.pop(client, {}).values())

    def acked(self, client: str, role: str, type_url: TypeUrl, version: str, names: frozenset[str]) -> None:
        refused = self._refusals.get(client)
        if not refused:
            return
        mended = [refused.pop((type_url, name)) for name in names if (type_url, name) in refused]
        self._tell(mended)

    def nacked(
        self,
        client: str,
        role: str,
        type_url: TypeUrl,
        version: str,
        resources: tuple[Resource, ...],
        message: str,
    ) -> None:
        node = self._nodes.get(client, ("", client))[1]
        refused = self._refusals.setdefault(client, {})
        for resource in resources:
            refused[type_url, resource.name] = Refusal(
                role=role,
                node=node,
                type_url=type_url,
                name=resource.name,
                text=message,
                sources=resource.sources,
            )
        self._notify(role)

    def _tell(self, ended: Iterable[Refusal]) -> None:
        for role in {refusal.role for refusal in ended}:
            self._notify(role)


def add_refusals(reports: Reports, refusals: Iterable[Refusal], owner: Source) -> None:
    """Join refusals to what was found: the one object a resource comes from owns it, else the Proxy."""
    for refusal in refusals:
        source = next(iter(refusal.sources)) if len(refusal.sources) == 1 else owner
        report = reports[source] = copy_of(reports.get(source))
        report.error("", str(refusal))


def copy_of(report: Report | None) -> Report:
    copied = Report()
    if report is not None:
        copied.add(report)
    return copied
