"""The names of Envoy's things, byte for byte as Gloo gives them: dashboards and people know them."""

from __future__ import annotations

from protos import gloo
from shared.ref import Ref

CONSUL_NAMESPACE = "gloo-system"  # of the upstreams that stand for `consul` destinations, wherever we write
FALLBACK_CLUSTER = "fallback_cluster_for_invalid_routes"
FALLBACK_LISTENER = "fallback_listener_for_invalid_routes"
FALLBACK_SOCKET = "@fallback_listener_for_invalid_routes"
HTTP_STAT_PREFIX = "http"
TCP_STAT_PREFIX = "tcp"
UDP_STAT_PREFIX = "udp"
TUNNEL = "solo_io_generated_self_listener_"
FORWARD_PROXY = "solo_io_generated_dfp:"
NOT_SETTLED = "?" * 16  # in place of a version


def cluster_name(ref: Ref) -> str:
    return f"{ref.name}_{ref.namespace}" if ref.namespace else ref.name


def proxy_cluster_name(name: str) -> str:
    """The hosts of the proxy through which a cluster is reached."""
    return f"{name}_original"


def tunnel_name(name: str) -> str:
    """The listener that a cluster reached through a proxy leads to."""
    return f"{TUNNEL}{name}"


def consul_cluster_name(service: str, selection: str = "") -> str:
    """The cluster of a service; *selection* tells those apart that take some of its instances only."""
    return cluster_name(Ref(CONSUL_NAMESPACE, f"consul-svc:{service}{selection}"))


def route_configuration_name(listener: str) -> str:
    return f"{listener}-routes"


def forward_proxy_name(routes: str, version: str = NOT_SETTLED) -> str:
    """The cluster that forwards to whatever host a request of that route configuration asks for."""
    return f"{FORWARD_PROXY}{routes}:{version}"


def http3_name(listener: str) -> str:
    """The listener of UDP beside one that speaks HTTP/3, too."""
    return f"{listener}-http3"


def virtual_host_name(name: str) -> str:
    """Envoy's name for a virtual host of a Proxy; statistics do not take dots."""
    return name.replace(".", "_")


def route_name(virtual_host: str, index: int, name: str, matcher: int) -> str:
    return f"{virtual_host}-route-{index}{f'-{name}' if name else ''}-matcher-{matcher}"


def ref_of(reference: gloo.ResourceRef) -> Ref:
    return Ref(reference.namespace, reference.name)
