"""Logs: one JSON object a line on stderr.

``log.info("route rejected", extra={"ref": ref})`` becomes
``{"ts": …, "level": "info", "logger": …, "message": "route rejected", "ref": "gloo-system.default"}``.
Fields whose name speaks of a secret, and private keys anywhere in a text, never reach the stream.
"""

from __future__ import annotations

import logging
import re
import sys
from datetime import UTC, datetime
from typing import TextIO

import orjson

from shared.errors import InvalidSettings
from shared.telemetry.plain import plain

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
HIDDEN = "(hidden)"

_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {"message", "asctime"}
_SECRET_NAME = re.compile(r"token|password|secret(?!_?name|_?ref)|private_?key|authorization", re.I)
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)", re.S)


class JsonFormatter(logging.Formatter):
    """Renders a record with its extra fields; never fails, whatever the fields hold."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": without_keys(record.getMessage()),
        }
        for name, value in vars(record).items():
            if name not in _STANDARD:
                line[name] = HIDDEN if _SECRET_NAME.search(name) else shown(value)
        if record.exc_info and record.exc_info[0] is not None:
            line["traceback"] = without_keys(self.formatException(record.exc_info))
        return orjson.dumps(line, default=str).decode()


def shown(value: object) -> object:
    """*value* as JSON, with secret members of mappings hidden."""
    return hidden(plain(value))


def hidden(value: object) -> object:
    if isinstance(value, dict):
        return {
            name: HIDDEN if member and _SECRET_NAME.search(name) else hidden(member)
            for name, member in value.items()
        }
    if isinstance(value, list):
        return [hidden(member) for member in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    return without_keys(value) if isinstance(value, str) else value


def without_keys(text: str) -> str:
    return _PRIVATE_KEY.sub(HIDDEN, text) if "-----BEGIN" in text else text


def configure(level: str, stream: TextIO | None = None) -> None:
    """Send all logging as JSON lines to *stream* (stderr), from *level* up."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(parse_level(level))
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.captureWarnings(True)


def set_level(level: str) -> None:
    logging.getLogger().setLevel(parse_level(level))


def get_level() -> str:
    return logging.getLevelName(logging.getLogger().level).lower()


def parse_level(level: str) -> int:
    """The number of a level's name; an unknown name is the user's mistake."""
    name = {"warn": "warning"}.get(level.lower(), level.lower())
    if name not in LEVELS:
        raise InvalidSettings(f"no log level {level!r}; choose one of {', '.join(LEVELS)}")
    return LEVELS[name]
