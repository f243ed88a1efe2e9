"""The limits and times of the xDS server, with defaults that are safe for strangers."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

from protos import gloo
from shared.errors import InvalidSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Times are seconds, sizes bytes.

    ``ack_deadline`` must exceed Envoy's ``initial_fetch_timeout`` (15 s): Envoy keeps back the answer to a
    cluster until its endpoints have come or that time is over.
    """

    max_streams: int = 5_000
    max_streams_per_connection: int = 1_000
    max_names: int = 50_000  # in one type's subscription
    max_names_in_all: int = 2_000_000  # in all subscriptions together
    max_types: int = 32  # on one stream
    max_message_bytes: int = 8 * 2**20
    max_requests_per_second: float = 500.0  # of one stream, over a burst of ten seconds
    max_unanswered: int = 8  # pushes of one type a client may leave unanswered before we wait
    max_admissions: int = 16  # new clients read and answered at the same time
    max_big_requests: int = 8  # taken in at the same time

    ack_deadline: float = 20.0
    change_deadline: float = 1.0  # as ack_deadline, for clusters the client has in an older version
    removal_grace: float = 5.0  # from the last route that used a cluster being gone to the cluster going
    refusal_retry: float = 300.0  # a refusal may be the machine's fault, as a port that was taken
    send_timeout: float = 30.0  # a client that reads nothing for so long is cut off
    keepalive: float = 30.0  # a connection without a sign of life for twice as long is cut off

    big_push_bytes: int = 2**20
    max_big_pushes: int = 8  # written at the same time
    shared_bytes: int = 64 * 2**20  # of framed responses kept for the next stream
    max_status_bytes: int = 64 * 2**20  # of one answer about clients

    @classmethod
    def of(cls, settings: gloo.Settings | None) -> Options:
        """The options that *settings* name in ``gloo.xds``."""
        given = settings.gloo.xds if settings and settings.gloo else None
        if given is None:
            return cls()
        found = {name: getattr(given, name, None) for name in (each.name for each in fields(cls))}
        return cls(**{name: _number(name, value) for name, value in found.items() if value is not None})


def _number(name: str, value: Any) -> Any:
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if number < 0 or (number == 0 and name != "removal_grace"):
        first, *rest = name.split("_")
        path = f"settings.gloo.xds.{first}{''.join(word.capitalize() for word in rest)}"
        raise InvalidSettings(f"{path}: {number:g} is too small")
    return number


DEFAULTS = Options()
