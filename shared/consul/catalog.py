"""The service registry as typed reads: services, nodes, instances, checks.

The paths and the ``of`` constructors also serve ``watch_query``, whose bodies are what these calls read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.consul.client import Consul
from shared.consul.http import Consistency, Params

SERVICES = "/v1/catalog/services"
NODES = "/v1/catalog/nodes"
NODE = "/v1/catalog/node/"
HEALTH_SERVICE = "/v1/health/service/"
HEALTH_STATE_ANY = "/v1/health/state/any"

OWN_SERVICE = "gloo-control-plane"
"""The name our processes register under to have a health check; never an upstream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine of the catalog."""

    name: str
    address: str
    datacenter: str = ""
    tagged_addresses: Mapping[str, str] = field(default_factory=dict)
    meta: Mapping[str, str] = field(default_factory=dict)
    index: int = 0

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Node:
        return cls(
            name=raw["Node"],
            address=raw["Address"],
            datacenter=raw.get("Datacenter") or "",
            tagged_addresses=raw.get("TaggedAddresses") or {},
            meta=raw.get("Meta") or {},
            index=raw.get("ModifyIndex", 0),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One instance of a service, as its node registered it; an empty *address* means the node's."""

    id: str
    name: str
    address: str
    port: int
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict)
    tagged_addresses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    weights: tuple[int, int] = (1, 1)
    kind: str = ""
    index: int = 0

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Service:
        weights = raw.get("Weights") or {}
        return cls(
            id=raw["ID"],
            name=raw["Service"],
            address=raw.get("Address") or "",
            port=raw.get("Port") or 0,
            tags=tuple(raw.get("Tags") or ()),
            meta=raw.get("Meta") or {},
            tagged_addresses=raw.get("TaggedAddresses") or {},
            weights=(weights.get("Passing", 1), weights.get("Warning", 1)),
            kind=raw.get("Kind") or "",
            index=raw.get("ModifyIndex", 0),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The state of one check (``passing``, ``warning``, ``critical``); a node's own has no *service_id*."""

    id: str
    node: str
    status: str
    service_id: str = ""
    service: str = ""
    index: int = 0

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Check:
        return cls(
            id=raw["CheckID"],
            node=raw["Node"],
            status=raw["Status"],
            service_id=raw.get("ServiceID") or "",
            service=raw.get("ServiceName") or "",
            index=raw.get("ModifyIndex", 0),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A service on its node with the checks that concern it."""

    node: Node
    service: Service
    checks: tuple[Check, ...] = ()

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Instance:
        return cls(
            node=Node.of(raw["Node"]),
            service=Service.of(raw["Service"]),
            checks=tuple(Check.of(check) for check in raw.get("Checks") or ()),
        )


class Catalog:
    """Reads of one datacenter's registry; an empty *datacenter* is the client's own."""

    def __init__(self, consul: Consul, datacenter: str = "", *, consistency: Consistency = "default") -> None:
        self._consul = consul
        self._params: Params = (("dc", datacenter),) if datacenter else ()
        self._consistency = consistency

    async def services(self) -> Mapping[str, Sequence[str]]:
        """Names and tags of all services but our own processes'."""
        return services_of(await self._read(SERVICES))

    async def nodes(self) -> Sequence[Node]:
        return [Node.of(raw) for raw in await self._read(NODES) or ()]

    async def node(self, name: str) -> tuple[Node, Sequence[Service]] | None:
        """A node with its services; None when there is none of that name."""
        return node_of(await self._read(f"{NODE}{name}"))

    async def health_service(self, name: str, *, passing: bool = False) -> Sequence[Instance]:
        """The instances of a service with their checks, by choice only those with all checks passing."""
        params = (("passing", "1"),) if passing else ()
        return [Instance.of(raw) for raw in await self._read(f"{HEALTH_SERVICE}{name}", params) or ()]

    async def health_state_any(self) -> Sequence[Check]:
        """Every check of the datacenter."""
        return [Check.of(raw) for raw in await self._read(HEALTH_STATE_ANY) or ()]

    async def _read(self, path: str, params: Params = ()) -> Any:
        return await self._consul.get_json(path, (*self._params, *params), consistency=self._consistency)


def services_of(body: Mapping[str, Sequence[str]] | None) -> Mapping[str, Sequence[str]]:
    """The body of ``SERVICES`` without our own processes."""
    return {name: tags for name, tags in (body or {}).items() if name != OWN_SERVICE}


def node_of(body: Mapping[str, Any] | None) -> tuple[Node, Sequence[Service]] | None:
    """The body of ``NODE``."""
    if not body:
        return None
    return Node.of(body["Node"]), [Service.of(raw) for raw in (body.get("Services") or {}).values()]
