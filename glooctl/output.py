"""Objects on standard output, in the form that ``-o`` names."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from glooctl import tables
from shared.codec import text
from shared.store import keys
from shared.store.keys import Kind

Document = dict[str, Any]
Table = Callable[..., str]

TABLES: dict[Kind, Table] = {
    keys.UPSTREAM: tables.upstreams,
    keys.VIRTUAL_SERVICE: tables.virtual_services,
    keys.ROUTE_TABLE: tables.route_tables,
    keys.VIRTUAL_HOST_OPTION: partial(tables.option_objects, "VIRTUAL HOST OPTION"),
    keys.ROUTE_OPTION: partial(tables.option_objects, "ROUTE OPTION"),
    keys.LISTENER_OPTION: partial(tables.option_objects, "LISTENER OPTION"),
    keys.HTTP_LISTENER_OPTION: partial(tables.option_objects, "HTTP LISTENER OPTION"),
    keys.MATCHABLE_HTTP_GATEWAY: partial(tables.matchable_gateways, "HTTP GATEWAY"),
    keys.MATCHABLE_TCP_GATEWAY: partial(tables.matchable_gateways, "TCP GATEWAY"),
    keys.GATEWAY: tables.gateways,
    keys.PROXY: tables.proxies,
    keys.UPSTREAM_GROUP: tables.upstream_groups,
    keys.ARTIFACT: tables.artifacts,
}


def show(kind: Kind, documents: Sequence[Document], form: str) -> None:
    """Print *documents* as a table, YAML, JSON or Kubernetes-shaped YAML."""
    if form in ("table", "wide"):
        print(TABLES[kind](documents, wide=form == "wide"))
    elif form == "json":
        for document in documents:
            print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        rendered = [document if form == "yaml" else kube(kind, document) for document in documents]
        print("---\n".join(text.render(document) for document in rendered), end="")


def kube(kind: Kind, document: Document) -> Document:
    """The object in the shape of a Kubernetes resource: what is neither metadata nor status is its spec."""
    outside = ("metadata", "status", "namespacedStatuses")
    shaped: Document = {
        "apiVersion": f"{kind.group}/{kind.version}",
        "kind": kind.name,
        "metadata": document.get("metadata", {}),
        "spec": {key: value for key, value in document.items() if key not in outside},
    }
    if "status" in document:
        shaped["status"] = document["status"]
    return shaped
