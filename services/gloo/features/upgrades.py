"""Upgrades: from HTTP to WebSocket or, by CONNECT, to anything, allowed or forbidden on a route."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from protos import gloo
from protos.envoy import route
from services.gloo.plugin import ALL, Feature, Patch, Scope

WEBSOCKET, CONNECT = "websocket", "CONNECT"


def allow(configs: Sequence[gloo.ProtocolUpgradeConfig], scope: Scope) -> Patch:
    found = []
    for kind, spec, i in named_upgrades(configs, scope):
        terminate = configs[i].connect_terminate is not None
        found.append(
            route.RouteActionUpgradeConfig(
                upgrade_type=kind,
                enabled=spec.enabled,
                connect_config=route.RouteActionUpgradeConfigConnectConfig() if terminate else None,
            )
        )
    return Patch(action={"upgrade_configs": found})


def named_upgrades(
    configs: Sequence[gloo.ProtocolUpgradeConfig], scope: Scope
) -> Iterator[tuple[str, gloo.ProtocolUpgradeConfigProtocolUpgradeSpec, int]]:
    """Each upgrade's name to Envoy, what is said of it, and where."""
    seen = set()
    for i, config in enumerate(configs):
        given = (config.websocket, config.connect, config.connect_terminate)
        spec = next((each for each in given if each is not None), None)
        if spec is None:
            scope.error(f"[{i}]", "no upgrade; one of websocket, connect, connectTerminate")
            continue
        kind = WEBSOCKET if config.websocket is not None else CONNECT
        if kind in seen:
            scope.error(f"[{i}]", f"{kind} is here twice")
        seen.add(kind)
        yield kind, spec, i


FEATURES = (
    Feature(
        name="upgrades",
        reads={"ProtocolUpgradeConfig": ALL, "ProtocolUpgradeConfig.ProtocolUpgradeSpec": ALL},
        on_route=allow,
    ),
)
