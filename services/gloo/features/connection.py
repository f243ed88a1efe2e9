"""Connections to an upstream: how long one may take to establish, and whether it speaks HTTP/2."""

from __future__ import annotations

from protos import gloo
from protos.envoy import core, http_protocol
from services.gloo import checks
from services.gloo.plugin import Feature, Patch, Scope


def connect(config: gloo.ConnectionConfig, scope: Scope) -> Patch:
    if config.connect_timeout is None:
        return Patch()
    if problem := checks.duration(config.connect_timeout, positive=True):
        scope.error("connectTimeout", problem)
    return Patch(fields={"connect_timeout": config.connect_timeout})


def speak_http2(wanted: bool, scope: Scope) -> Patch:
    if not wanted:
        return Patch()
    explicit = http_protocol.HttpProtocolOptionsExplicitHttpConfig(
        http2_protocol_options=core.Http2ProtocolOptions()
    )
    return Patch(protocol={"explicit_http_config": explicit})


FEATURES = (
    Feature(name="connectionConfig", reads={"ConnectionConfig": ("connectTimeout",)}, on_upstream=connect),
    Feature(name="useHttp2", on_upstream=speak_http2),
)
