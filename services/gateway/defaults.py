"""The default Gateways, made at start where there is none, as Gloo 1.2.4 does."""

from __future__ import annotations

import logging
from typing import Any

from shared.ref import Ref
from shared.store.keys import GATEWAY
from shared.store.store import ObjectExists, Store

log = logging.getLogger(__name__)


def default_gateways() -> dict[str, dict[str, Any]]:
    """HTTP on 8080 and HTTPS on 8443, both for the Proxy ``gateway-proxy``."""
    return {
        "gateway-proxy": _gateway(8080, ssl=False),
        "gateway-proxy-ssl": _gateway(8443, ssl=True),
    }


def _gateway(port: int, *, ssl: bool) -> dict[str, Any]:
    return {
        "metadata": {"annotations": {"origin": "default"}},
        "bindAddress": "::",
        "bindPort": port,
        "httpGateway": {},
        "proxyNames": ["gateway-proxy"],
        "ssl": ssl,
        "useProxyProto": False,
    }


async def create_default_gateways(store: Store, namespace: str) -> None:
    """Create them; whoever came first with one of these names keeps it."""
    for name, document in default_gateways().items():
        try:
            await store.create(GATEWAY, Ref(namespace, name), document)
        except ObjectExists:
            continue
        log.info("created a default gateway", extra={"ref": Ref(namespace, name)})
