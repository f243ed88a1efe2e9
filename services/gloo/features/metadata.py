"""Envoy metadata: facts about a route for Envoy's filters, header values and access logs."""

from __future__ import annotations

from collections.abc import Mapping

from protos.envoy import core, protobuf
from services.gloo.plugin import Feature, Patch, Scope


def state(facts: Mapping[str, protobuf.Struct], scope: Scope) -> Patch:
    if "" in facts:
        scope.error("", "a name is empty; facts stand under the name of who reads them")
    return Patch(fields={"metadata": core.Metadata(filter_metadata=dict(facts))})


FEATURES = (Feature(name="envoyMetadata", on_route=state),)
