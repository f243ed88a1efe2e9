"""Which cluster a route configuration forwards to any host by: one after another, each by a name of its own.

For a moment Envoy answers 503 when it replaces such a cluster by another of its name. So the name follows
from the cluster. Virtual hosts do not know it, for with a mistake in the listener's options the one before
goes on: they hold a name as long in its place, until their bytes are put together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from services.gloo.resources import Resource, resource
from services.gloo.translator.names import FORWARD_PROXY, forward_proxy_name

_VERSION = rb"[0-9a-f]{16}"


def stable_name(name: str) -> str:
    """What all clusters of one route configuration have in common."""
    return name.rpartition(":")[0]


def with_version(made: Resource) -> Resource:
    """The cluster under the name that follows from it."""
    return _renamed(made, f"{stable_name(made.name)}:{made.version}")


def one_before(new: Resource, known: Iterable[Resource]) -> Resource | None:
    """What of *known* the routes forward by that are going to by *new*, under its name."""
    if not new.name.startswith(FORWARD_PROXY):
        return None
    same = (each for each in known if stable_name(each.name) == stable_name(new.name))
    return next((_renamed(each, new.name) for each in same), None)


def forwarding_by(routes: str, *known: Iterable[Resource]) -> str:
    """The name of the first of the clusters that *routes* can forward by; empty: there is none."""
    stable = stable_name(forward_proxy_name(routes))
    return next((each.name for some in known for each in some if stable_name(each.name) == stable), "")


def settled(body: bytes, routes: str, name: str) -> bytes:
    """Virtual hosts of the route configuration *routes*, forwarding by the cluster of that name."""
    return body.replace(forward_proxy_name(routes).encode(), name.encode()) if name else body


def unsettled(body: bytes, routes: str) -> bytes:
    """Virtual hosts as they were before their cluster was settled."""
    name = forward_proxy_name(routes)
    return re.sub(re.escape(stable_name(name) + ":").encode() + _VERSION, name.encode(), body)


def _renamed(cluster: Resource, name: str) -> Resource:
    return resource(name, cluster.body.replace(cluster.name.encode(), name.encode()), cluster.sources)
