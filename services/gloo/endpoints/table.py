"""The table of endpoints: rows of Consul's catalog and health in, sorted endpoints out; no I/O.

It is fed in two ways. A *listing* is the truth about some services or a whole datacenter and replaces what
was known of them. What the long polls bring is *observed*: the status of a check or a node's address is
taken over at once, and everything else they hint at (an instance not heard of, a check that vanished) is
given back as names of services in doubt, of which a listing is wanted. So an instance is never served for
want of a check that is yet to be read.
"""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Set
from dataclasses import dataclass

from services.gloo.endpoints.datacenter import Datacenter
from services.gloo.endpoints.notes import Note
from services.gloo.endpoints.rows import (
    Check,
    Health,
    InstanceKey,
    Listing,
    Node,
    Row,
    check_of,
    node_of,
    owner_of,
    services_on_node,
)
from shared.incremental.units import Steps, at_once


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Endpoint:
    """One address of one instance of a service. ``hostname`` is the name it was resolved from, if any."""

    datacenter: str
    address: str
    port: int
    node: str
    instance_id: str
    weight: int = 1
    tags: tuple[str, ...] = ()
    health: Health = Health.PASSING
    hostname: str = ""

    @property
    def healthy(self) -> bool:
        return self.health == Health.PASSING


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What an answer of a long poll meant: services that changed, services and nodes in doubt."""

    changed: Set[str]
    doubtful: Set[str]
    new_nodes: Set[str] = frozenset()


class EndpointTable:
    """What is known of all datacenters. ``changed`` names given back are of services that now differ."""

    def __init__(self, *, serve_warning: bool = False, serve_failing: bool = False) -> None:
        """*serve_warning*: warning counts as well as passing. *serve_failing*: when no instance of a
        service does, all that are not in maintenance do, as better than none."""
        self.unread: frozenset[str] = frozenset()
        """The datacenters that exist and could not be read yet."""
        self._acceptable = Health.WARNING if serve_warning else Health.PASSING
        self._serve_failing = serve_failing
        self._datacenters: dict[str, Datacenter] = {}
        self._endpoints: dict[str, dict[str, tuple[Endpoint, ...]]] = {}
        self._addresses: dict[str, tuple[str, ...]] = {}
        self._hosts: dict[tuple[str, str], frozenset[str]] = {}

    # -- reading

    def endpoints(
        self,
        service: str,
        *,
        datacenters: Collection[str] = (),
        instance_tags: Collection[str] = (),
        blacklist_tags: Collection[str] = (),
    ) -> tuple[Endpoint, ...]:
        """The endpoints that serve, sorted: with all of *instance_tags* and none of *blacklist_tags*."""
        wanted = [
            endpoint
            for endpoint in self.known(service)
            if (not datacenters or endpoint.datacenter in datacenters)
            and all(tag in endpoint.tags for tag in instance_tags)
            and not any(tag in endpoint.tags for tag in blacklist_tags)
        ]
        serving = [endpoint for endpoint in wanted if endpoint.health <= self._acceptable and endpoint.weight]
        if not serving and self._serve_failing:
            serving = [endpoint for endpoint in wanted if endpoint.health < Health.MAINTENANCE]
        return tuple(serving)

    def known(self, service: str) -> Iterator[Endpoint]:
        """All endpoints of *service*, serving or not, sorted."""
        by_datacenter = self._endpoints.get(service, {})
        for datacenter in sorted(by_datacenter):
            yield from by_datacenter[datacenter]

    def services(self) -> set[str]:
        return set(self._endpoints)

    def nodes(self, datacenter: str) -> list[str]:
        return sorted(self._of(datacenter).nodes)

    def size(self, datacenter: str) -> int:
        """How many instances *datacenter* has."""
        return len(self._of(datacenter).instances)

    def instances_of(self, datacenter: str, service: str) -> Set[InstanceKey]:
        return self._of(datacenter).by_service.get(service, set())

    def hostnames(self) -> frozenset[str]:
        """The names that stand as addresses and have to be resolved."""
        return frozenset().union(*self._hosts.values())

    # -- feeding

    def gone(self, datacenter: str, listing: Listing) -> set[InstanceKey]:
        """The instances we have and *listing* lacks."""
        there = self._of(datacenter)
        known = (
            there.instances.keys()
            if listing.services is None
            else {key for name in listing.services for key in there.by_service.get(name, ())}
        )
        return set(known - listing.instances.keys())

    def note(self, datacenter: str, key: InstanceKey) -> Note:
        """What to remember of an instance for those who come after us."""
        there = self._of(datacenter)
        return Note(key, there.instances[key], there.nodes[key.node].address, there.health(key))

    def restore(self, datacenter: str, notes: Iterable[Note]) -> None:
        """Begin with instances that were known before us."""
        there = self._of(datacenter)
        changed: set[str] = set()
        for note in notes:
            there.put_node(note.key.node, Node(note.address, 0))
            changed |= there.put_instance(note.key, note.instance)
            there.put_checks(note.key, {"": Check(note.health, 0)})
        self._rebuild(datacenter, changed)

    def begin(self, datacenter: str) -> None:
        """A listing is about to be read: what is observed from now on is newer than it."""
        self._of(datacenter).observed.clear()

    def apply(self, datacenter: str, listing: Listing, keep: Set[InstanceKey] = frozenset()) -> set[str]:
        """Take *listing* over, but leave the instances in *keep* as they are though it lacks them."""
        return at_once(self.apply_in_steps(datacenter, listing, keep))

    def apply_in_steps(self, datacenter: str, listing: Listing, keep: Set[InstanceKey]) -> Steps[set[str]]:
        """``apply``, an instance or a service a step; what is observed between them counts as newer."""
        there = self._of(datacenter)
        changed: set[str] = set()
        for name, node in listing.nodes.items():
            changed |= there.put_node(name, node)
        for key in self.gone(datacenter, listing) - keep:
            changed |= there.drop_instance(key)
        others = [
            name
            for name in listing.nodes
            if there.put_checks(own := InstanceKey(name, ""), listing.checks.get(own, {}))
        ]
        for key, instance in listing.instances.items():
            changed |= there.put_instance(key, instance)
            there.put_checks(key, listing.checks.get(key, {}))
            yield
        for name in others:
            changed |= there.services_on(name)
        if listing.services is None:
            for name in there.nodes.keys() - listing.nodes.keys():
                there.drop_node_if_empty(name)
        differing: set[str] = set()
        for service in changed:
            if self._rebuild_one(datacenter, service):
                differing.add(service)
            yield
        return differing

    def observe_checks(
        self, datacenter: str, rows: Iterable[Row], held: Set[InstanceKey] = frozenset()
    ) -> Observed:
        """``health/state/any``: take over what checks say now. That *held* instances are missing is known."""
        there = self._of(datacenter)
        affected: set[str] = set()
        doubtful: set[str] = set()
        seen: defaultdict[InstanceKey, set[str]] = defaultdict(set)
        for row in rows:
            key, name, check = owner_of(row), row["CheckID"], check_of(row)
            seen[key].add(name)
            known = there.checks.get(key, {}).get(name)
            if known == check:
                continue
            if known and check.version < known.version:  # late news, or a server that lost its data
                doubtful |= there.services_of(key)
                continue
            there.checks.setdefault(key, {})[name] = check
            there.observed.add((key, name))
            if key.id and key not in there.instances:
                doubtful.add(row["ServiceName"])
            elif not known or known.health != check.health:
                affected |= there.services_of(key)
        for key in [key for key in there.checks if key not in held]:
            if gone := there.checks[key].keys() - seen.get(key, set()):
                concerned = there.services_of(key)
                doubtful |= concerned
                if not concerned:
                    there.drop_checks(key, gone)
        return Observed(changed=self._rebuild(datacenter, affected), doubtful=doubtful)

    def observe_nodes(
        self, datacenter: str, rows: Iterable[Row], held: Set[InstanceKey] = frozenset()
    ) -> Observed:
        """``catalog/nodes``: take over new addresses; nodes not heard of have to be looked at."""
        there = self._of(datacenter)
        affected: set[str] = set()
        doubtful: set[str] = set()
        new: set[str] = set()
        listed = {row["Node"]: node_of(row) for row in rows}
        for name, node in listed.items():
            known = there.nodes.get(name)
            if known is None:
                new.add(name)
            if known and node.version < known.version:
                doubtful |= there.services_on(name)
            else:
                affected |= there.put_node(name, node)
        for name in there.nodes.keys() - listed.keys():
            if not there.drop_node_if_empty(name):
                doubtful |= there.services_on(name, held)
        return Observed(changed=self._rebuild(datacenter, affected), doubtful=doubtful, new_nodes=new)

    def differing(
        self, datacenter: str, node: str, answer: Row | None, held: Set[InstanceKey] = frozenset()
    ) -> set[str]:
        """``catalog/node/<node>``: the services of which an instance there is not as we know it."""
        there = self._of(datacenter)
        listed = {service["ID"]: service for service in services_on_node(answer)}
        names = {
            there.instances[InstanceKey(node, id)].service
            for id in there.by_node.get(node, set()) - listed.keys()
            if InstanceKey(node, id) not in held
        }
        for id, service in listed.items():
            known = there.instances.get(InstanceKey(node, id))
            if known is None or known.version != service["ModifyIndex"]:
                names.add(service["Service"])
                if known is not None:
                    names.add(known.service)
        return names

    def drop_datacenter(self, datacenter: str) -> set[str]:
        """Forget *datacenter*."""
        names = set(self._datacenters.pop(datacenter, Datacenter()).by_service)
        return self._rebuild(datacenter, names)

    def resolved(self, host: str, addresses: Iterable[str]) -> set[str]:
        """*host* now has these *addresses*."""
        self._addresses[host] = tuple(sorted(set(addresses)))
        users = [where for where, hosts in self._hosts.items() if host in hosts]
        changed: set[str] = set()
        for datacenter, service in users:
            changed |= self._rebuild(datacenter, {service})
        return changed

    # -- inside

    def _of(self, datacenter: str) -> Datacenter:
        return self._datacenters.setdefault(datacenter, Datacenter())

    def _rebuild(self, datacenter: str, services: Iterable[str]) -> set[str]:
        return {service for service in services if self._rebuild_one(datacenter, service)}

    def _rebuild_one(self, datacenter: str, service: str) -> bool:
        there = self._of(datacenter)
        hosts: set[str] = set()
        endpoints: list[Endpoint] = []
        for key in there.by_service.get(service, ()):
            instance, health = there.instances[key], there.health(key)
            address = instance.address or there.nodes[key.node].address
            if not instance.port or not address:
                continue
            hostname = "" if is_ip(address) else address
            if hostname:
                hosts.add(hostname)
            endpoints += [
                Endpoint(
                    datacenter=datacenter,
                    address=ip,
                    port=instance.port,
                    node=key.node,
                    instance_id=key.id,
                    weight=instance.weights[health == Health.WARNING],
                    tags=instance.tags,
                    health=health,
                    hostname=hostname,
                )
                for ip in (self._addresses.get(hostname, ()) if hostname else (address,))
            ]
        self._note_hosts(datacenter, service, hosts)
        return self._put(datacenter, service, tuple(sorted(endpoints)))

    def _note_hosts(self, datacenter: str, service: str, hosts: Set[str]) -> None:
        before = self._hosts.pop((datacenter, service), frozenset())
        if hosts:
            self._hosts[datacenter, service] = frozenset(hosts)
        if unused := before - hosts:
            for host in unused - self.hostnames():
                self._addresses.pop(host, None)

    def _put(self, datacenter: str, service: str, endpoints: tuple[Endpoint, ...]) -> bool:
        by_datacenter = self._endpoints.setdefault(service, {})
        before = by_datacenter.pop(datacenter, ())
        if endpoints:
            by_datacenter[datacenter] = endpoints
        if not by_datacenter:
            del self._endpoints[service]
        return before != endpoints


def is_ip(address: str) -> bool:
    """Whether *address* is an IP address, not a name to resolve."""
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except (OSError, ValueError):
        return False
    return True
