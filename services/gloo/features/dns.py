"""DNS: how Envoy looks up the names of an upstream's hosts, and how often."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from protos import gloo
from protos.envoy import cluster, dns_cluster, dns_common
from services.gloo import checks
from services.gloo.plugin import Feature, Patch, Scope
from shared.codec.encode import pack

LIMIT = timedelta(milliseconds=1)
DNS_CLUSTER = "envoy.cluster.dns"


def looked_up(upstream: gloo.Upstream) -> bool:
    """Whether it has hosts by name."""
    hosts = upstream.static.hosts if upstream.static is not None else []
    return not all(checks.is_ip(host.addr) for host in hosts)


def dns_fields(upstream: gloo.Upstream) -> dict[str, Any]:
    """The type of a cluster with hosts by name. Envoy can hash by name only in the older form of it."""
    if upstream.dns_refresh_rate is None and upstream.respect_dns_ttl is None:
        return {
            "type": cluster.ClusterDiscoveryType.STRICT_DNS,
            "dns_lookup_family": cluster.ClusterDnsLookupFamily.V4_ONLY,
        }
    config = dns_cluster.DnsCluster(
        dns_refresh_rate=upstream.dns_refresh_rate,
        respect_dns_ttl=bool(upstream.respect_dns_ttl),
        dns_lookup_family=dns_common.DnsLookupFamily.V4_ONLY,
    )
    return {"cluster_type": cluster.ClusterCustomClusterType(name=DNS_CLUSTER, typed_config=pack(config))}


def check_dns(upstream: gloo.Upstream, scope: Scope) -> Patch:
    rate = upstream.dns_refresh_rate
    if rate is not None and rate <= LIMIT:
        scope.error("dnsRefreshRate", "must be more than 1ms")
    elif rate is not None and (problem := checks.duration(rate)):
        scope.error("dnsRefreshRate", problem)
    balancing = upstream.load_balancer_config
    for name, value in (("dnsRefreshRate", rate), ("respectDnsTtl", upstream.respect_dns_ttl)):
        if value is not None and not looked_up(upstream):
            scope.warn(name, "has no effect without static hosts that have names")
        elif value is not None and balancing is not None and balancing.use_hostname_for_hashing:
            scope.error(name, "cannot go with loadBalancerConfig.useHostnameForHashing")
    return Patch()


FEATURES = (Feature(name="dnsRefreshRate", beside=("respectDnsTtl",), on_upstream=check_dns),)
