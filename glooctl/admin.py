"""Asking running processes: the admin endpoints of our services, and Envoy's."""

from __future__ import annotations

import http.client
import json
from typing import Any

from glooctl.errors import CommandError, UsageError

TIMEOUT = 5.0  # seconds


def fetch(address: str, path: str, who: str) -> Any:
    """The JSON page at *path*; *who* is there, in words for the error."""
    body = fetch_text(address, path, who)
    try:
        return json.loads(body)
    except ValueError as error:
        raise CommandError(
            f"{who} at {address} does not answer {path} with JSON: is it what you mean?"
        ) from error


def fetch_text(address: str, path: str, who: str) -> str:
    host, port = split(address)
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise CommandError(f"cannot reach {who} at {address}: {error}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise CommandError(f"{who} at {address} answered {answer.status} for {path}: {body.strip()[:200]}")
    return body


def split(address: str) -> tuple[str, int]:
    host, colon, port = address.removeprefix("http://").rstrip("/").rpartition(":")
    if not colon or not port.isdecimal():
        raise UsageError(f"{address!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)
