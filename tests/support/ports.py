"""Free TCP ports on the loopback address."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

LOWEST, HIGHEST = 10_000, 32_000  # below the range the kernel takes clients' ports from


def free_ports(count: int) -> list[int]:
    """*count* different ports that nobody listens on."""
    with ExitStack() as bound:
        return [bound.enter_context(_bound()).getsockname()[1] for _ in range(count)]


def free_port() -> int:
    return free_ports(1)[0]


def _bound() -> socket.socket:
    while True:
        candidate = socket.socket()
        try:
            candidate.bind(("127.0.0.1", random.randint(LOWEST, HIGHEST)))
        except OSError:
            candidate.close()
        else:
            return candidate
