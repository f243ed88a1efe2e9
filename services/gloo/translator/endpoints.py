"""Endpoints: the instances of a service as a ClusterLoadAssignment."""

from __future__ import annotations

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
    """The endpoints of *cluster*, in the order given; none at all is a valid answer, too."""
    members = [translate_endpoint(each, subsets) for each in endpoints]
    out = endpoint.ClusterLoadAssignment(cluster_name=cluster)
    if members:
        out.endpoints = [  # gRPC passes over a locality that is not named or not weighted
            endpoint.LocalityLbEndpoints(
                locality=core.Locality(), lb_endpoints=members, load_balancing_weight=1
            )
        ]
    return resource(cluster, encode(out), sources)


def translate_endpoint(given: Endpoint, subsets: SubsetKeys) -> endpoint.LbEndpoint:
    address = core.Address(socket_address=core.SocketAddress(address=given.address, port_value=given.port))
    out = endpoint.LbEndpoint(endpoint=endpoint.Endpoint(address=address, hostname=given.hostname))
    if given.weight > 1:
        out.load_balancing_weight = given.weight
    if subsets:
        within = struct_of({SUBSET_KEY: subsets.values_of(given)})
        out.metadata = core.Metadata(filter_metadata={LOAD_BALANCER: within})
    return out
