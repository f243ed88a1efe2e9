"""Put the default Gateways on other ports: written before gateway starts, which then leaves them alone.

gateway makes them on 8080 and 8443 when there are none, as Gloo does. To have them elsewhere one writes
the Gateway objects oneself, and that is all this script does, from the environment of `make up`.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import urllib.request

PREFIX = "gloo/gateway.solo.io/v1/Gateway/gloo-system"
DEADLINE_SECONDS = 60.0


def main() -> None:
    http, https = int(os.environ["HTTP_PORT"]), int(os.environ["HTTPS_PORT"])
    address = any_address()
    if (http, https, address) == (8080, 8443, "::"):
        return
    consul = f"http://127.0.0.1:{os.environ['CONSUL_PORT']}"
    for name, port, ssl in (("gateway-proxy", http, False), ("gateway-proxy-ssl", https, True)):
        create(f"{consul}/v1/kv/{PREFIX}/{name}?cas=0", gateway(name, address, port, ssl))


def gateway(name: str, address: str, port: int, ssl: bool) -> dict[str, object]:
    return {
        "metadata": {"name": name, "namespace": "gloo-system"},
        "bindAddress": address,
        "bindPort": port,
        "ssl": ssl,
        "httpGateway": {},
        "proxyNames": ["gateway-proxy"],
    }


def any_address() -> str:
    """Both families where the machine has IPv6, as Gloo's default is."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::", 0))
    except OSError:
        return "0.0.0.0"
    return "::"


def create(url: str, document: dict[str, object]) -> None:
    """Write *document* unless the key exists; wait for Consul to come up."""
    request = urllib.request.Request(url, json.dumps(document, indent=2).encode(), method="PUT")
    until = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except OSError as error:  # refused, or 500 while there is no leader
            if time.monotonic() > until:
                sys.exit(f"Consul does not take the Gateways: {error}")
            time.sleep(0.1)


if __name__ == "__main__":
    main()
