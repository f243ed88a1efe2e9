"""Free TCP ports on the loopback address, never the same one twice in a test run."""

from __future__ import annotations

import os
import random
import socket
from contextlib import ExitStack

LOWEST, HIGHEST = 10_000, 32_000  # below the range the kernel takes clients' ports from
SLICES = 8

_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """*count* different ports that nobody listens on."""
    with ExitStack() as bound:
        return [bound.enter_context(_bound()).getsockname()[1] for _ in range(count)]


def free_port() -> int:
    return free_ports(1)[0]


def _bound() -> socket.socket:
    while True:
        candidate = socket.socket()
        port = random.choice(_slice())
        try:
            if port in _given:
                raise OSError
            candidate.bind(("127.0.0.1", port))
        except OSError:
            candidate.close()
        else:
            _given.add(port)
            return candidate


def _slice() -> range:
    """The ports of this process: parallel workers of one run have ports of their own."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if not worker.isdigit():
        return range(LOWEST, HIGHEST)
    size = (HIGHEST - LOWEST) // SLICES
    first = LOWEST + int(worker) % SLICES * size
    return range(first, first + size)
