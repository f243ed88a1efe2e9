"""The raw rows of one datacenter and the indexes over them."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import TypeVar

from services.gloo.endpoints.rows import Checks, Health, Instance, InstanceKey, Node

M = TypeVar("M")


class Datacenter:
    """Instances and checks by key, instances by service and by node; all to be read, changed by methods."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.instances: dict[InstanceKey, Instance] = {}
        self.checks: dict[InstanceKey, Checks] = {}
        self.by_service: dict[str, set[InstanceKey]] = {}
        self.by_node: dict[str, set[str]] = {}
        self.observed: set[tuple[InstanceKey, str]] = set()

    def health(self, key: InstanceKey) -> Health:
        checks = (self.checks.get(key, {}), self.checks.get(InstanceKey(key.node, ""), {}))
        return max((check.health for some in checks for check in some.values()), default=Health.PASSING)

    def services_on(self, node: str, apart_from: Container[InstanceKey] = ()) -> set[str]:
        keys = (InstanceKey(node, id) for id in self.by_node.get(node, ()))
        return {self.instances[key].service for key in keys if key not in apart_from}

    def services_of(self, key: InstanceKey) -> set[str]:
        """Whom a check of *key* concerns: its service, or every service on the node."""
        if not key.id:
            return self.services_on(key.node)
        return {self.instances[key].service} if key in self.instances else set()

    def put_node(self, name: str, node: Node) -> set[str]:
        before, self.nodes[name] = self.nodes.get(name), node
        return self.services_on(name) if before and before.address != node.address else set()

    def drop_node_if_empty(self, name: str) -> bool:
        if name in self.by_node:
            return False
        self.nodes.pop(name, None)
        self.checks.pop(InstanceKey(name, ""), None)
        return True

    def put_instance(self, key: InstanceKey, instance: Instance) -> set[str]:
        before = self.instances.get(key)
        if before and before.service != instance.service:
            self._unlink(key, before)
        self.instances[key] = instance
        self.by_service.setdefault(instance.service, set()).add(key)
        self.by_node.setdefault(key.node, set()).add(key.id)
        return {instance.service} if before is None else {instance.service, before.service}

    def drop_instance(self, key: InstanceKey) -> set[str]:
        instance = self.instances.pop(key)
        self.checks.pop(key, None)
        self._unlink(key, instance)
        return {instance.service}

    def put_checks(self, key: InstanceKey, checks: Checks) -> bool:
        """Whether the checks of *key* are others now; one observed since the listing began is the newer."""
        before = self.checks.get(key, {})
        after = {name: check for name, check in checks.items() if (key, name) not in self.observed} | {
            name: check for name, check in before.items() if (key, name) in self.observed
        }
        if after:
            self.checks[key] = after
        else:
            self.checks.pop(key, None)
        return before != after

    def drop_checks(self, key: InstanceKey, names: Iterable[str]) -> None:
        for name in names:
            del self.checks[key][name]
        if not self.checks[key]:
            del self.checks[key]

    def _unlink(self, key: InstanceKey, instance: Instance) -> None:
        _discard(self.by_service, instance.service, key)
        _discard(self.by_node, key.node, key.id)


def _discard(index: dict[str, set[M]], name: str, member: M) -> None:
    """Take *member* out of the set at *name*, and the set out of *index* with its last member."""
    index[name].discard(member)
    if not index[name]:
        del index[name]
