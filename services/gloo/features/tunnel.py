"""Tunnels to an upstream: the host to ask an HTTP proxy for, and the headers to ask with."""

from __future__ import annotations

import re

from protos import gloo
from services.gloo import checks
from services.gloo.plugin import Feature, Patch, Scope

HOST_AND_PORT = re.compile(r"(\[[^][]+]|[^][:]+):([0-9]{1,5})")
MAX_NAME = 96  # bytes of a cluster's name, which becomes part of a socket's path


def host_of(authority: str) -> str:
    """*authority* without its port."""
    return authority.rpartition(":")[0].strip("[]")


def check_tunnel(upstream: gloo.Upstream, scope: Scope) -> Patch:
    wanted = upstream.http_proxy_hostname
    if wanted is None:
        if upstream.http_connect_headers:
            scope.warn("httpConnectHeaders", "has no effect without httpProxyHostname")
        if upstream.http_connect_ssl_config is not None:
            scope.warn("httpConnectSslConfig", "has no effect without httpProxyHostname")
        return Patch()
    found = HOST_AND_PORT.fullmatch(wanted)
    if not found or checks.host_name(found[1].strip("[]")) or checks.port(int(found[2])):
        scope.error("httpProxyHostname", f"{checks.shown(wanted)} is no host with a port: example.com:443")
    metadata = upstream.metadata or gloo.Metadata()
    if len(f"{metadata.name}_{metadata.namespace}".encode()) > MAX_NAME:
        scope.error(
            "httpProxyHostname", f"the Upstream's name and namespace are longer than {MAX_NAME} bytes"
        )
    for i, header in enumerate(upstream.http_connect_headers):
        if problem := checks.mutable_header(header.key):
            scope.error(f"httpConnectHeaders[{i}].key", problem)
        if problem := checks.format_string(header.value):
            scope.error(f"httpConnectHeaders[{i}].value", problem)
    return Patch()


FEATURES = (
    Feature(
        name="httpProxyHostname",
        beside=("httpConnectHeaders", "httpConnectSslConfig"),
        on_upstream=check_tunnel,
    ),
)
