"""Tunnels: upstreams that are reached through an HTTP proxy, which is asked by CONNECT.

The upstream's cluster leads to a socket inside Envoy. The listener there asks the proxy for a tunnel, and the
proxy's hosts are a cluster of their own beside it.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from typing import Any

from protos import gloo
from protos.envoy import cluster, core, endpoint, listener, tcp_proxy
from services.gloo import checks
from services.gloo.features.headers import APPEND
from services.gloo.features.tunnel import host_of
from services.gloo.plugin import Scope
from services.gloo.resources import Resource, resource
from services.gloo.translator.names import proxy_cluster_name, tunnel_name
from services.gloo.translator.ssl import tls_socket, upstream_tls
from shared.codec.encode import encode, pack
from shared.ref import Source

TCP_PROXY = "envoy.filters.network.tcp_proxy"


def proxy_hosts(upstream: gloo.Upstream) -> gloo.Upstream:
    """The upstream as it concerns the proxy; what TLS is spoken with the service goes through the tunnel."""
    static = upstream.static
    return replace(
        upstream, static=replace(static, use_tls=False) if static is not None else None, ssl_config=None
    )


def proxy_socket(upstream: gloo.Upstream, scope: Scope) -> dict[str, Any]:
    """How the proxy's hosts are spoken to."""
    config = upstream.http_connect_ssl_config
    if config is None:
        return {}
    return {"transport_socket": tls_socket(upstream_tls(config, replace(scope, path="httpConnectSslConfig")))}


def entrance_fields(upstream: gloo.Upstream, name: str, scope: Scope) -> dict[str, Any]:
    """The cluster that leads into the tunnel."""
    fields = socket_fields(socket_path(upstream, name), name)
    config, static = upstream.ssl_config, upstream.static
    if config is not None or (static is not None and static.use_tls):
        context = upstream_tls(config or gloo.UpstreamSslConfig(), replace(scope, path="sslConfig"))
        host = host_of(upstream.http_proxy_hostname or "")
        fields["transport_socket"] = tls_socket(
            replace(context, sni=context.sni or ("" if checks.is_ip(host) else host))
        )
    return fields


def socket_fields(path: str, name: str) -> dict[str, Any]:
    """A cluster of one Unix domain socket."""
    member = endpoint.LbEndpoint(endpoint=endpoint.Endpoint(address=core.Address(pipe=core.Pipe(path=path))))
    return {
        "type": cluster.ClusterDiscoveryType.STATIC,
        "load_assignment": endpoint.ClusterLoadAssignment(
            cluster_name=name, endpoints=[endpoint.LocalityLbEndpoints(lb_endpoints=[member])]
        ),
    }


def tunnel_listener(upstream: gloo.Upstream, name: str, *sources: Source) -> Resource:
    """The listener that asks the proxy."""
    through = tcp_proxy.TcpProxy(
        stat_prefix=tunnel_name(name), cluster=proxy_cluster_name(name), tunneling_config=question(upstream)
    )
    out = listener.Listener(
        name=tunnel_name(name),
        address=core.Address(pipe=core.Pipe(path=socket_path(upstream, name))),
        filter_chains=[
            listener.FilterChain(filters=[listener.Filter(name=TCP_PROXY, typed_config=pack(through))])
        ],
    )
    return resource(out.name, encode(out), sources)


def question(upstream: gloo.Upstream) -> tcp_proxy.TcpProxyTunnelingConfig:
    """What the proxy is asked for."""
    headers = [
        core.HeaderValueOption(
            header=core.HeaderValue(key=header.key, value=header.value),
            append_action=APPEND,
            keep_empty_value=not header.value,
        )
        for header in upstream.http_connect_headers
    ]
    return tcp_proxy.TcpProxyTunnelingConfig(
        hostname=upstream.http_proxy_hostname or "", headers_to_add=headers
    )


def socket_path(upstream: gloo.Upstream, name: str) -> str:
    """Another question has another socket: else connections to the old place would go on being used."""
    return f"@/{name}-{blake2b(encode(question(upstream)), digest_size=4).hexdigest()}"
