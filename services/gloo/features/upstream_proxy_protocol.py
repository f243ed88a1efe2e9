"""PROXY protocol towards an upstream: a header before each connection tells whose it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from protos import gloo
from protos.envoy import core, proxy_protocol_socket, raw_buffer
from services.gloo import checks
from services.gloo.plugin import Feature, Patch, Scope
from shared.codec.encode import pack

PROXY_SOCKET = "envoy.transport_sockets.upstream_proxy_protocol"
RAW_SOCKET = "envoy.transport_sockets.raw_buffer"
VERSIONS = {version.name: version for version in core.ProxyProtocolConfigVersion}


def check_version(version: str, scope: Scope) -> Patch:
    if version not in VERSIONS:
        scope.error("", f"{checks.shown(version)} is none of {', '.join(VERSIONS)}")
    return Patch()


def announce_clients(upstream: gloo.Upstream, fields: Mapping[str, Any]) -> dict[str, Any]:
    """A cluster's *fields*, with the header before whatever its connections speak."""
    if upstream.proxy_protocol_version not in VERSIONS:
        return dict(fields)
    config = core.ProxyProtocolConfig(version=VERSIONS[upstream.proxy_protocol_version])

    def wrapped(inner: core.TransportSocket) -> core.TransportSocket:
        outer = proxy_protocol_socket.ProxyProtocolUpstreamTransport(config=config, transport_socket=inner)
        return core.TransportSocket(name=PROXY_SOCKET, typed_config=pack(outer))

    plain = core.TransportSocket(name=RAW_SOCKET, typed_config=pack(raw_buffer.RawBuffer()))
    found = {**fields, "transport_socket": wrapped(fields.get("transport_socket", plain))}
    if matches := fields.get("transport_socket_matches"):
        found["transport_socket_matches"] = [
            replace(match, transport_socket=wrapped(match.transport_socket)) for match in matches
        ]
    return found


FEATURES = (Feature(name="proxyProtocolVersion", on_upstream=check_version),)
