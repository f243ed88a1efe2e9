"""The limits and times of the xDS server, with defaults that are safe for strangers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Times are seconds, sizes bytes.

    ``ack_deadline`` must exceed Envoy's ``initial_fetch_timeout`` (15 s): Envoy keeps back the answer to a
    cluster until its endpoints have come or that time is over.
    """

    max_streams: int = 5_000
    max_names: int = 50_000  # in one type's subscription
    max_types: int = 32  # on one stream
    max_message_bytes: int = 8 * 2**20
    max_requests_per_second: float = 500.0  # of one stream, over a burst of ten seconds
    max_unanswered: int = 8  # pushes of one type a client may leave unanswered before we wait

    ack_deadline: float = 20.0
    change_deadline: float = 1.0  # as ack_deadline, for clusters the client has in an older version
    removal_grace: float = 5.0  # from the last route that used a cluster being gone to the cluster going
    refusal_retry: float = 300.0  # a refusal may be the machine's fault, as a port that was taken
    send_timeout: float = 30.0  # a client that reads nothing for so long is cut off

    big_push_bytes: int = 2**20
    max_big_pushes: int = 8  # written at the same time
    shared_bytes: int = 64 * 2**20  # of framed responses kept for the next stream


DEFAULTS = Options()
