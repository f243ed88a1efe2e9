"""Endpoints: the instances of a service as a ClusterLoadAssignment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Protocol

from protos.envoy import core, endpoint
from services.gloo.resources import Resource, resource
from services.gloo.translator.consul import LOAD_BALANCER, SUBSET_KEY, SubsetKeys
from shared.codec.encode import encode
from shared.codec.wellknown import struct_of
from shared.ref import Source

NO_SUBSETS = SubsetKeys()


class Endpoint(Protocol):
    """An instance that serves. ``address`` is an IP address: Envoy takes no host names here."""

    @property
    def address(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def weight(self) -> int: ...
    @property
    def tags(self) -> Collection[str]: ...
    @property
    def datacenter(self) -> str: ...
    @property
    def hostname(self) -> str: ...


def translate_endpoints(
    cluster: str,
    endpoints: Sequence[Endpoint],
    subsets: SubsetKeys = NO_SUBSETS,
    sources: Collection[Source] = (),
) -> Resource:
    """The endpoints of *cluster*, in the order given; none at all is a valid answer, too.

    Each datacenter is a locality that weighs as much as its instances together, so who looks at localities
    (gRPC does, an Envoy on demand) spreads requests like who does not.
    """
    places: defaultdict[str, list[Endpoint]] = defaultdict(list)
    for each in endpoints:
        places[each.datacenter].append(each)
    out = endpoint.ClusterLoadAssignment(
        cluster_name=cluster,
        endpoints=[
            endpoint.LocalityLbEndpoints(
                locality=core.Locality(region=datacenter),
                lb_endpoints=[translate_endpoint(each, subsets) for each in places[datacenter]],
                load_balancing_weight=sum(max(each.weight, 1) for each in places[datacenter]),
            )
            for datacenter in sorted(places)
        ],
    )
    return resource(cluster, encode(out), sources)


def with_those_before(made: Resource, before: Resource, datacenters: Collection[str]) -> Resource:
    """*made*, with what *before* has of *datacenters*, of which nothing is known now."""
    out = endpoint.ClusterLoadAssignment().parse(made.body)
    known = endpoint.ClusterLoadAssignment().parse(before.body).endpoints
    out.endpoints += [each for each in known if _datacenter(each) in datacenters]
    out.endpoints.sort(key=_datacenter)
    return resource(made.name, encode(out), made.sources)


def _datacenter(place: endpoint.LocalityLbEndpoints) -> str:
    return place.locality.region if place.locality else ""


def translate_endpoint(given: Endpoint, subsets: SubsetKeys) -> endpoint.LbEndpoint:
    address = core.Address(socket_address=core.SocketAddress(address=given.address, port_value=given.port))
    out = endpoint.LbEndpoint(endpoint=endpoint.Endpoint(address=address, hostname=given.hostname))
    if given.weight > 1:
        out.load_balancing_weight = given.weight
    if subsets:
        within = struct_of({SUBSET_KEY: subsets.values_of(given)})
        out.metadata = core.Metadata(filter_metadata={LOAD_BALANCER: within})
    return out
