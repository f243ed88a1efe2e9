"""Real processes for tests: each with a log file, always stopped by its own id."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

STOP_WITHIN = 15.0
LOG_TAIL = 4000


class Process:
    """A child process; ``spawn`` starts it, one of ``stop`` and ``kill`` must end it."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self._popen = popen
        self.log = log

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self._popen.poll()

    def output(self) -> str:
        """All that the process wrote so far."""
        return self.log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    async def wait(self, within: float = STOP_WITHIN) -> int:
        """The exit code; fails when the process outlives *within*."""
        return await asyncio.to_thread(self._popen.wait, within)

    async def stop(self, within: float = STOP_WITHIN) -> int:
        """Ask it to end with SIGTERM; killed, and a failure, when it does not in time."""
        self.signal(signal.SIGTERM)
        try:
            return await self.wait(within)
        except subprocess.TimeoutExpired:
            await self.kill()
            raise AssertionError(
                f"{self._popen.args!r} ignored SIGTERM for {within:.0f} s:\n{self.output()[-LOG_TAIL:]}"
            ) from None
        finally:
            self.assert_gone()

    async def kill(self) -> None:
        """End it with SIGKILL, at once."""
        self._popen.kill()
        await self.wait()
        self.assert_gone()

    def assert_gone(self) -> None:
        assert self._popen.poll() is not None, f"process {self.pid} is still running"


def spawn(
    command: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Process:
    """Start *command* with its output appended to *log*; *env* is added to our own environment."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        popen = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )
    return Process(popen, log)
