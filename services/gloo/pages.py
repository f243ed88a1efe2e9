"""Debug pages that tools read: how far the Envoys are, and what is served to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.gloo.feedback import Feedback
from services.gloo.metrics import StaleMetric
from services.gloo.resources import Snapshot
from services.gloo.xds.server import XdsServer
from shared.ref import Ref, Source
from shared.runtime.breath import Breath
from shared.store.keys import PROXY
from shared.store.objects import Stored


async def roles_page(server: XdsServer, feedback: Feedback, stale: StaleMetric) -> dict[str, Any]:
    """For ``/debug/roles``: how far each role's Envoys are, what they refuse, and how old it may be."""
    return {"roles": await _roles(server, feedback, stale, None)}


async def progress_page(
    path: str, stored: Mapping[Source, Stored], server: XdsServer, feedback: Feedback, stale: StaleMetric
) -> dict[str, Any]:
    """For ``/debug/roles/<kind>/<namespace>/<name>``: how far the Envoys are with one object.

    ``objects`` has the version (Consul's index) in which it is served, and those of all Proxies.
    """
    kind, _, rest = path.partition("/")
    namespace, _, name = rest.partition("/")
    wanted = Source(kind, Ref(namespace, name))
    objects: dict[str, dict[str, int]] = {PROXY.name: {}, kind: {}}
    for source, known in stored.items():
        if source == wanted or source.kind == PROXY.name:
            objects[source.kind][str(source.ref)] = known.index
    concerning = None if kind == PROXY.name else wanted  # all of what a role gets is its Proxy's
    return {"objects": objects, "roles": await _roles(server, feedback, stale, concerning)}


async def _roles(
    server: XdsServer, feedback: Feedback, stale: StaleMetric, concerning: Source | None
) -> dict[str, Any]:
    return {
        role: {
            **told,
            "lastGoodSince": stale.written.get(role),
            "refusals": [
                {"text": str(refusal), "objects": sorted(map(str, refusal.sources))}
                for refusal in feedback.refusals(role)
            ],
        }
        for role, told in (await Breath().between(server.roles(concerning))).items()
    }


def snapshot_page(snapshot: Snapshot | None) -> dict[str, list[dict[str, Any]]]:
    """For ``/debug/snapshot/<role>``: what is served, by type; empty for an unknown role."""
    return {
        type_url: [
            {
                "name": each.name,
                "version": each.version,
                "bytes": len(each.body),
                "objects": sorted(map(str, each.sources)),
            }
            for _, each in sorted(resources.by_name.items())
        ]
        for type_url, resources in (snapshot.by_type.items() if snapshot else ())
    }
