"""Upgrades: from HTTP to WebSocket or, by CONNECT, to anything, allowed or forbidden on a route."""

from __future__ import annotations

from collections.abc import Sequence

from protos import gloo
from protos.envoy import route
from services.gloo.plugin import ALL, Feature, Patch, Scope

WEBSOCKET, CONNECT = "websocket", "CONNECT"


def allow(configs: Sequence[gloo.ProtocolUpgradeConfig], scope: Scope) -> Patch:
    found: dict[str, route.RouteActionUpgradeConfig] = {}
    for i, config in enumerate(configs):
        kind, terminated = CONNECT, None
        if config.websocket is not None:
            kind, spec = WEBSOCKET, config.websocket
        elif config.connect is not None:
            spec = config.connect
        elif config.connect_terminate is not None:
            spec, terminated = config.connect_terminate, route.RouteActionUpgradeConfigConnectConfig()
        else:
            scope.error(f"[{i}]", "no upgrade; one of websocket, connect, connectTerminate")
            continue
        if kind in found:
            scope.error(f"[{i}]", f"{kind} is here twice")
        found[kind] = route.RouteActionUpgradeConfig(
            upgrade_type=kind, enabled=spec.enabled, connect_config=terminated
        )
    return Patch(action={"upgrade_configs": list(found.values())})


FEATURES = (
    Feature(
        name="upgrades",
        reads={"ProtocolUpgradeConfig": ALL, "ProtocolUpgradeConfig.ProtocolUpgradeSpec": ALL},
        on_route=allow,
    ),
)
