"""A client that speaks HTTP/3: an Envoy that forwards what it is asked on a port of this machine."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.support.certificates import Authority, Certificate
from tests.support.envoy import Envoy, running_envoy
from tests.support.ports import free_ports

EXTENSIONS = "type.googleapis.com/envoy.extensions"
OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@contextlib.asynccontextmanager
async def http3_client(
    folder: Path, to: int, sni: str, authority: Authority, own: Certificate | None = None
) -> AsyncIterator[tuple[Envoy, int]]:
    """It asks port *to* for the name *sni*, trusts *authority* and shows a certificate of its *own*."""
    port, admin = free_ports(2)
    pair = {} if own is None else {"tls_certificates": [in_files(own)]}
    tls = {
        "sni": sni,
        "common_tls_context": {
            "validation_context": {"trusted_ca": {"filename": str(authority.cert)}},
            **pair,
        },
    }
    cluster = {
        "name": "http3",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "http3",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": on(to)}}]}],
        },
        "typed_extension_protocol_options": {
            OPTIONS: {
                "@type": f"type.googleapis.com/{OPTIONS}",
                "explicit_http_config": {"http3_protocol_options": {}},
            }
        },
        "transport_socket": {
            "name": "envoy.transport_sockets.quic",
            "typed_config": {
                "@type": f"{EXTENSIONS}.transport_sockets.quic.v3.QuicUpstreamTransport",
                "upstream_tls_context": tls,
            },
        },
    }
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "http3"}}]
    manager = {
        "@type": f"{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "client",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{EXTENSIONS}.filters.http.router.v3.Router"}}
        ],
    }
    listener = {
        "name": "client",
        "address": on(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    bootstrap: dict[str, Any] = {
        "node": {"id": "client", "cluster": "clients"},
        "admin": {"address": on(admin)},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }
    async with running_envoy(folder, bootstrap) as envoy:
        yield envoy, port


def on(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def in_files(pair: Certificate) -> dict[str, Any]:
    return {
        "certificate_chain": {"filename": str(pair.cert)},
        "private_key": {"filename": str(pair.key)},
    }
