"""gRPC clients without an Envoy (``xds:///``): the role ``<role>~api`` and what it is served.

Such a client asks for a listener by the name it was told to call. So every domain of a Proxy's virtual hosts,
those with a ``*`` aside, is an API listener, and every virtual host a route configuration: gRPC refuses one
in which any route switches on a filter that it does not know, as CORS, and that should cost no other host.
Clusters and endpoints are the Envoys'. All is derived from what those are served, while anybody asks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import lru_cache

from protos.envoy import hcm, listener, router
from services.gloo.features.router import ROUTER
from services.gloo.parts import WHOLE, domains_of, parts_of
from services.gloo.resources import LISTENER, ROUTES, Resource, Resources, Snapshot, TypeUrl, resource
from services.gloo.translator.ads import ADS
from services.gloo.translator.virtual_host import VIRTUAL_HOSTS_FIELD
from services.gloo.xds import Cache, Observer
from shared.codec.encode import encode, length_delimited, pack

log = logging.getLogger(__name__)

SUFFIX = "~api"


class Proxyless:
    """Keeps the API roles that clients have asked for; an observer in front of the Envoys' *observer*.

    What gRPC refuses is no verdict on what Envoys are served, so it is logged and goes no further.
    """

    def __init__(self, cache: Cache, observer: Observer) -> None:
        self._cache = cache
        self._observer = observer
        self._roles: dict[str, str] = {}  # of connected clients
        self._leave: dict[str, Callable[[], None]] = {}

    def connected(self, client: str, role: str, node: str) -> None:
        if not role.endswith(SUFFIX):
            self._observer.connected(client, role, node)
            return
        self._roles[client] = role
        if role not in self._leave:
            self._leave[role] = self._cache.watch(role.removesuffix(SUFFIX), lambda: self._derive(role))
            self._derive(role)

    def disconnected(self, client: str) -> None:
        role = self._roles.pop(client, None)
        if role is None:
            self._observer.disconnected(client)
        elif role not in self._roles.values():
            self._leave.pop(role)()
            self._cache.remove(role)

    def acked(
        self,
        client: str,
        role: str,
        type_url: TypeUrl,
        version: str,
        resources: tuple[Resource, ...],
        removed: tuple[str, ...],
    ) -> None:
        if client not in self._roles:
            self._observer.acked(client, role, type_url, version, resources, removed)

    def nacked(
        self,
        client: str,
        role: str,
        type_url: TypeUrl,
        version: str,
        resources: tuple[Resource, ...],
        message: str,
    ) -> None:
        if client not in self._roles:
            self._observer.nacked(client, role, type_url, version, resources, message)
            return
        names = [each.name for each in resources]
        log.warning(
            "a gRPC client refused a resource",
            extra={"role": role, "type": type_url, "resources": names, "error": message},
        )

    def _derive(self, role: str) -> None:
        snapshot = self._cache.get(role.removesuffix(SUFFIX))
        if snapshot is None:
            return
        before = self._cache.get(role) or Snapshot()
        listeners: dict[str, Resource] = {}
        routes: dict[str, Resource] = {}
        for _, given in sorted(snapshot.of(ROUTES).by_name.items(), reverse=True):
            for host, domains in hosts(given):
                routes[host.name] = host
                listeners.update((domain, api_listener(domain, host.name)) for domain in domains)
        changes = {LISTENER: listeners, ROUTES: routes}
        self._cache.set(
            role, snapshot.replaced({kind: _moved(before.of(kind), made) for kind, made in changes.items()})
        )


def _moved(before: Resources, made: Mapping[str, Resource]) -> Resources:
    return before.patched(put=made.values(), drop=before.by_name.keys() - made.keys())


@lru_cache(maxsize=64)
def hosts(given: Resource) -> tuple[tuple[Resource, tuple[str, ...]], ...]:
    """The virtual hosts of a route configuration, each in one of its own, and its plain domains."""
    return tuple(
        (
            route_configuration(f"{given.name}/{name}", host),
            tuple(domain for domain in domains_of(host) if "*" not in domain),
        )
        for name, host in parts_of(ROUTES, given.body).items()
        if name != WHOLE
    )


@lru_cache(maxsize=65_536)
def route_configuration(name: str, host: bytes) -> Resource:
    return resource(name, length_delimited(1, name.encode()) + length_delimited(VIRTUAL_HOSTS_FIELD, host))


@lru_cache(maxsize=65_536)
def api_listener(domain: str, routes: str) -> Resource:
    """A listener without an address; gRPC wants the router and knows none of our other filters."""
    manager = hcm.HttpConnectionManager(
        rds=hcm.Rds(config_source=ADS, route_config_name=routes),
        http_filters=[hcm.HttpFilter(name=ROUTER, typed_config=pack(router.Router()))],
    )
    made = listener.Listener(name=domain, api_listener=listener.ApiListener(api_listener=pack(manager)))
    return resource(domain, encode(made))
