"""What a process says of itself where its replicas are listed."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

import orjson

from shared.telemetry.admin import Admin

PACKAGE = "gloo-consul"


def member_value(admin: Admin) -> bytes:
    """What the process' member key says: where its admin endpoints are, its version, since when it runs."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return orjson.dumps({"admin": admin.address, "version": version(), "started": started})


def version() -> str:
    try:
        return installed(PACKAGE)
    except PackageNotFoundError:
        return ""
