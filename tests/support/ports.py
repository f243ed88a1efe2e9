"""Free TCP ports on the loopback address, never the same one twice in a test run, nor in two at a time."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from contextlib import ExitStack
from functools import cache
from pathlib import Path

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


@cache
def _slice() -> range:
    """The ports of this process: others that run tests now, workers of one run among them, have their own.

    A port that is free when it is chosen may be bound much later.
    """
    folder = Path(tempfile.gettempdir(), f"gloo-test-ports-{os.getuid()}")
    folder.mkdir(exist_ok=True)
    size = (HIGHEST - LOWEST) // SLICES
    for first in range(LOWEST, HIGHEST, size):
        lock = os.open(folder / str(first), os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until the process ends
        except BlockingIOError:
            os.close(lock)
        else:
            return range(first, first + size)
    return range(LOWEST, HIGHEST)
