"""Envoys as gloo's ``/debug/xds`` tells of them, as a table. All pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from glooctl.tables import Row, draw, stacked

Document = Mapping[str, Any]

SHORT = {
    "Cluster": "CDS",
    "ClusterLoadAssignment": "EDS",
    "Listener": "LDS",
    "RouteConfiguration": "RDS",
    "Secret": "SDS",
}

REFUSAL_WIDTH = 60


def clients_of(page: Mapping[str, Any], replica: str) -> list[dict[str, Any]]:
    """The Envoys of one gloo, by role and node; those it turned away come with them."""
    found = [{**client, "gloo": replica} for client in page.get("clients") or []]
    found += [{**client, "gloo": replica, "turnedAway": True} for client in page.get("turned_away") or []]
    return sorted(found, key=lambda one: (str(one.get("role")), str(one.get("node"))))


def is_meant(client: Document, which: str) -> bool:
    """Whether *which* is the client's role, its Proxy's name, or its node; empty means all."""
    role = str(client.get("role") or "")
    return not which or which in (role, role.partition("~")[2], client.get("node"))


def table(clients: Iterable[Document], *, wide: bool = False) -> str:
    """One Envoy in several rows: one a type, or why it is sent nothing."""
    header = ["ENVOY", "ROLE", "GLOO", "TYPE", "SENT", "ACKED", "LAG", "LAST REFUSAL"]
    header += ["ADDRESS", "MODE", "SINCE", "SUBSCRIBED"] if wide else []
    rows: list[Row] = []
    for client in clients:
        lines = [type_cells(url, told) for url, told in (client.get("types") or {}).items()]
        if problem := problem_of(client):
            lines.insert(0, ["", "", "", "", f"not served: {problem}", ""])
        first = [client.get("node") or "(unnamed)", client.get("role") or "(none)", client["gloo"]]
        for number, line in enumerate(lines or [["", "", "", "0", "", ""]]):
            who = [str(cell) for cell in first] if number == 0 else ["", "", ""]
            rest = wide_cells(client, line[-1], first=number == 0) if wide else []
            rows += stacked(*([cell] for cell in [*who, *line[:-1], *rest]))
    return draw(header, rows, REFUSAL_WIDTH)


def type_cells(type_url: str, told: Document) -> list[str]:
    name = type_url.rpartition(".")[2]
    return [
        SHORT.get(name, name),
        told.get("versionSent") or "-",
        told.get("versionAcked") or "-",
        str(told.get("lag", "")),
        refusal_text(told.get("lastRefusal")),
        str(told.get("subscribedCount", "")) if "*" not in (told.get("subscribed") or []) else "*",
    ]


def refusal_text(refusal: Document | None) -> str:
    """When, of what, by whose fault, in Envoy's words."""
    if not refusal:
        return ""
    resources = ", ".join(refusal.get("resources") or []) or "(still finding out which)"
    objects = ", ".join(refusal.get("objects") or [])
    what = f"{resources} of {objects}" if objects else resources
    return f"{ago(refusal['secondsAgo'])} ago: {what}: {refusal['message']}"


def problem_of(client: Document) -> str:
    problem = str(client.get("problem") or "")
    return f"turned away {client.get('times', 1)} times: {problem}" if client.get("turnedAway") else problem


def wide_cells(client: Document, subscribed: str, *, first: bool) -> list[str]:
    whole = [str(client.get(name) or "") for name in ("address", "mode", "connectedSince")]
    return [*(whole if first else ["", "", ""]), subscribed]


def ago(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
