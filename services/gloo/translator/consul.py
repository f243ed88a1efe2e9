"""Consul services as destinations: which instances a cluster takes, and the subsets among them.

A `consul` destination needs no Upstream object. It has a cluster of its own for each distinct choice of
tags and datacenters, filled with exactly the instances chosen: those with just these tags, in any of these
datacenters. So no load balancer subsets are needed for it, and another route's choice changes nothing here.

A `subset` of an upstream is one value of one metadata key, which spells out all keys of the subset. The
cluster then stays the same whatever tags come and go; only endpoints change.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

from protos import gloo
from services.gloo.translator.names import consul_cluster_name

SUBSET_KEY = "subset"
LOAD_BALANCER = "envoy.lb"


class Instance(Protocol):
    """What is looked at to choose instances."""

    @property
    def tags(self) -> Collection[str]: ...
    @property
    def datacenter(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ConsulSelection:
    """Some instances of a service: all that are given hold; without ``exact_tags`` any tags do."""

    service: str
    data_centers: tuple[str, ...] = ()
    instance_tags: tuple[str, ...] = ()
    blacklist_tags: tuple[str, ...] = ()
    exact_tags: tuple[str, ...] = ()

    def admits(self, instance: Instance) -> bool:
        return (
            (not self.data_centers or instance.datacenter in self.data_centers)
            and all(tag in instance.tags for tag in self.instance_tags)
            and not any(tag in instance.tags for tag in self.blacklist_tags)
            and (not self.exact_tags or set(instance.tags) == set(self.exact_tags))
        )


def upstream_selection(spec: gloo.ConsulUpstreamSpec) -> ConsulSelection:
    """The instances an upstream stands for."""
    return ConsulSelection(
        service=spec.service_name,
        data_centers=tuple(sorted(spec.data_centers)),
        instance_tags=tuple(sorted(spec.instance_tags)),
        blacklist_tags=tuple(sorted(spec.instance_blacklist_tags)),
    )


def destination_selection(destination: gloo.ConsulServiceDestination) -> ConsulSelection:
    """The instances a `consul` destination stands for."""
    return ConsulSelection(
        service=destination.service_name,
        data_centers=tuple(sorted(set(destination.data_centers))),
        exact_tags=tuple(sorted(set(destination.tags))),
    )


def destination_cluster_name(selection: ConsulSelection) -> str:
    """Gloo's name; a choice of tags or datacenters is told apart by a suffix to the service."""
    parts = [
        f":{name}={','.join(quote(value, safe='') for value in values)}"
        for name, values in (("tags", selection.exact_tags), ("dcs", selection.data_centers))
        if values
    ]
    return consul_cluster_name(selection.service, "".join(parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsetKeys:
    """The keys an upstream's subsets are made of: Gloo's ``tag_<tag>`` and ``dc_<datacenter>``."""

    tags: tuple[str, ...] = ()
    data_centers: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.tags or self.data_centers)

    def choices(self) -> Iterator[frozenset[str]]:
        """The sets of keys a route may choose by: all of the datacenters', of the tags', of both."""
        tags = frozenset(f"tag_{tag}" for tag in self.tags)
        centers = frozenset(f"dc_{center}" for center in self.data_centers)
        yield from dict.fromkeys(keys for keys in (centers, tags, centers | tags) if keys)

    def values_of(self, instance: Instance) -> list[str]:
        """The subsets *instance* is in, one value for each set of keys."""
        found = {f"tag_{tag}": "1" if tag in instance.tags else "0" for tag in self.tags}
        for center in self.data_centers:
            found[f"dc_{center}"] = "1" if center == instance.datacenter else "0"
        return sorted(subset_value({key: found[key] for key in keys}) for keys in self.choices())


def subset_keys(upstream: gloo.Upstream | None) -> SubsetKeys:
    if upstream is None or upstream.consul is None:
        return SubsetKeys()
    spec = upstream.consul
    return SubsetKeys(
        tags=tuple(sorted(set(spec.subset_tags or spec.service_tags))),
        data_centers=tuple(sorted(set(spec.data_centers))),
    )


def subset_value(values: Mapping[str, str]) -> str:
    """One subset as one value."""
    return ",".join(f"{key}={value}" for key, value in sorted(values.items()))
