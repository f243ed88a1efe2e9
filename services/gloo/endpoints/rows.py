"""Rows of Consul's catalog and health as values, and the listings they make."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

Row = Mapping[str, Any]

NODE_MAINTENANCE = "_node_maintenance"
SERVICE_MAINTENANCE = "_service_maintenance:"


class Health(IntEnum):
    """What the checks of an instance and of its node say, the worst of them; no check at all is passing."""

    PASSING = 0
    WARNING = 1
    CRITICAL = 2
    MAINTENANCE = 3


STATUSES = {"passing": Health.PASSING, "warning": Health.WARNING}


class InstanceKey(NamedTuple):
    """A service's id is unique on its node only."""

    node: str
    id: str


class Node(NamedTuple):
    address: str
    version: int


class Instance(NamedTuple):
    service: str
    address: str
    port: int
    tags: tuple[str, ...]
    weights: tuple[int, int]
    version: int


class Check(NamedTuple):
    health: Health
    version: int


Checks = dict[str, Check]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The truth about *services*, or about a whole datacenter when that is None."""

    services: frozenset[str] | None
    nodes: Mapping[str, Node]
    instances: Mapping[InstanceKey, Instance]
    checks: Mapping[InstanceKey, Checks]
    """By instance; those of a node itself stand under the empty id."""


def list_services(answers: Mapping[str, Iterable[Row]]) -> Listing:
    """The listing of services by name from ``health/service/<name>`` of each.

    Consul looks names up without regard to case; a name's own rows are those spelt like it.
    """
    nodes: dict[str, Node] = {}
    instances: dict[InstanceKey, Instance] = {}
    checks: defaultdict[InstanceKey, Checks] = defaultdict(dict)
    for name, rows in answers.items():
        for row in rows:
            node, service = row["Node"], row["Service"]
            if service["Service"] != name:
                continue
            key = InstanceKey(node["Node"], service["ID"])
            nodes[key.node] = node_of(node)
            instances[key] = instance_of(service)
            for check in row["Checks"] or ():
                checks[owner_of(check)][check["CheckID"]] = check_of(check)
    return Listing(services=frozenset(answers), nodes=nodes, instances=instances, checks=checks)


def list_datacenter(
    nodes: Iterable[Row], services: Mapping[str, Row | None], checks: Iterable[Row]
) -> Listing:
    """The listing of all: ``catalog/nodes``, ``catalog/node/<n>`` of each and ``health/state/any``."""
    by_instance: defaultdict[InstanceKey, Checks] = defaultdict(dict)
    for check in checks:
        by_instance[owner_of(check)][check["CheckID"]] = check_of(check)
    return Listing(
        services=None,
        nodes={node["Node"]: node_of(node) for node in nodes},
        instances={
            InstanceKey(name, service["ID"]): instance_of(service)
            for name, answer in services.items()
            for service in services_on_node(answer)
        },
        checks=by_instance,
    )


def services_on_node(answer: Row | None) -> Collection[Row]:
    services: Mapping[str, Row] = (answer or {}).get("Services") or {}
    return services.values()


def owner_of(check: Row) -> InstanceKey:
    """Whose check it is; a node's own stands under the empty id."""
    return InstanceKey(check["Node"], check["ServiceID"])


def node_of(row: Row) -> Node:
    return Node(row["Address"], row["ModifyIndex"])


def check_of(row: Row) -> Check:
    name = row["CheckID"]
    if name == NODE_MAINTENANCE or name.startswith(SERVICE_MAINTENANCE):
        return Check(Health.MAINTENANCE, row["ModifyIndex"])
    return Check(STATUSES.get(row["Status"], Health.CRITICAL), row["ModifyIndex"])


def instance_of(row: Row) -> Instance:
    weights = row.get("Weights") or {}
    return Instance(
        service=row["Service"],
        address=row["Address"],
        port=row["Port"],
        tags=tuple(sorted(row["Tags"] or ())),
        weights=(weights.get("Passing", 1), weights.get("Warning", 1)),
        version=row["ModifyIndex"],
    )
