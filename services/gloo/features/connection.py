"""Connections to an upstream: how long one may take to establish, and how it is kept."""

from __future__ import annotations

from datetime import timedelta
from math import ceil
from typing import Any

from protos import gloo
from protos.envoy import cluster, core
from services.gloo import checks
from services.gloo.plugin import ALL, Feature, Patch, Scope


def connect(config: gloo.ConnectionConfig, scope: Scope) -> Patch:
    """What concerns connections as such; what concerns HTTP on them is in ``upstream_http``."""
    fields: dict[str, Any] = {}
    if config.connect_timeout is not None:
        if problem := checks.duration(config.connect_timeout, positive=True):
            scope.error("connectTimeout", problem)
        fields["connect_timeout"] = config.connect_timeout
    if config.tcp_keepalive is not None:
        keepalive = tcp_keepalive(config.tcp_keepalive, scope)
        options = cluster.UpstreamConnectionOptions(tcp_keepalive=keepalive)
        fields["upstream_connection_options"] = options
    if config.per_connection_buffer_limit_bytes is not None:
        fields["per_connection_buffer_limit_bytes"] = config.per_connection_buffer_limit_bytes
    return Patch(fields=fields)


def tcp_keepalive(given: gloo.ConnectionConfigTcpKeepAlive, scope: Scope) -> core.TcpKeepalive:
    return core.TcpKeepalive(
        keepalive_probes=given.keepalive_probes or None,
        keepalive_time=seconds(given.keepalive_time, "tcpKeepalive.keepaliveTime", scope),
        keepalive_interval=seconds(given.keepalive_interval, "tcpKeepalive.keepaliveInterval", scope),
    )


def seconds(time: timedelta | None, where: str, scope: Scope) -> int | None:
    """Whole ones, rounded up, since the operating system counts no others."""
    if time is None:
        return None
    if problem := checks.duration(time, positive=True):
        scope.error(where, problem)
        return None
    return ceil(time.total_seconds())


FEATURES = (
    Feature(
        name="connectionConfig",
        reads={"ConnectionConfig": ALL, "ConnectionConfig.TcpKeepAlive": ALL},
        on_upstream=connect,
    ),
)
