"""The xDS server as a process of its own, for tests and benchmarks that measure it.

Commands are lines of JSON on standard input, answers lines on standard output: ``{"put": [[type, name, size,
seed], …]}`` sets resources and answers at once; with ``"acks": N`` it answers when so many clients have
acknowledged, with the time and the processor time that took; with ``"writes": N`` when it has been written to
so many. ``"work"`` is the processor time of the server from when the command was given until there were
enough, so all that it does for others first counts, and how busy the machine is does not.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop

from services.gloo.resources import Resources, Snapshot, TypeUrl, resource
from services.gloo.xds import Cache, Options, XdsServer

ROLE = "ns~proxy"
REPOSITORY = Path(__file__).parents[2]


class XdsProcess:
    """A server process as its starter sees it."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    async def tell(self, **command: Any) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        return await _answer(self.process)

    async def put(
        self, *resources: tuple[str, str, int, int], acks: int = 0, writes: int = 0
    ) -> dict[str, Any]:
        """Serve *resources* (type, name, size, seed); wait for so many acknowledgements, or writes."""
        clock = (~self.process.pid << 3) | 2  # as Linux calls a process' processor time
        return await self.tell(put=resources, acks=acks, writes=writes, at=time.clock_gettime(clock))

    async def clients(self) -> int:
        return int((await self.tell())["clients"])

    def memory(self, field: str = "VmRSS") -> float:
        """Resident memory in MiB; ``VmHWM`` is the highest it was."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition(f"{field}:")[2].split()[0]) / 1024

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")


@asynccontextmanager
async def xds_process(*, module: str = __name__, **options: Any) -> AsyncIterator[XdsProcess]:
    """A running server; *options* are the xDS server's."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, json.dumps(options)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
    )
    try:
        yield XdsProcess(process, (await _answer(process))["port"])
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def _answer(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout
    line = await process.stdout.readline()
    assert line, "the server process has ended"
    answer: dict[str, Any] = json.loads(line)
    return answer


# --- inside the process -----------------------------------------------------------------------------------


class Acks:
    """Counts acknowledgements (or what was sent) until there are enough, and bytes sent meanwhile."""

    def __init__(self) -> None:
        self.event = "acked"
        self.left = 0
        self.at = 0.0  # in processor time, when there were enough
        self.sent = 0.0
        self.types: set[str] = set()
        self.enough = asyncio.Event()

    def expect(self, count: int, *types: str, event: str = "acked") -> None:
        """Wait for so many of *types*, or of any."""
        self.event = event
        self.left, self.sent, self.types = count, 0.0, set(types)
        self.enough.clear()

    def take(self, event: str, type_url: str, amount: float) -> None:
        if event == "sent":
            self.sent += amount
        if event == self.event and type_url in (self.types or (type_url,)):
            self.left -= 1
            if not self.left:
                self.at = time.process_time()
                self.enough.set()


def text_of(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


async def commands() -> AsyncIterator[dict[str, Any]]:
    reader = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    async for line in reader:
        yield json.loads(line)


def say(**answer: Any) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


async def main() -> None:
    acks, cache = Acks(), Cache()
    server = XdsServer(cache, Options(**json.loads(sys.argv[1])), measure=acks.take)
    await server.start("127.0.0.1", 0)
    say(port=server.port)
    snapshot = Snapshot()
    async for command in commands():
        for kind, name, size, seed in command.get("put", ()):
            type_url = TypeUrl(kind)
            members = snapshot.of(type_url).patched(put=[resource(name, text_of(size, seed))])
            snapshot = snapshot.replaced({type_url: members})
        for kind, prefix, count, size in command.get("fill", ()):
            made = (resource(f"{prefix}{n}", text_of(size, n)) for n in range(count))
            snapshot = snapshot.replaced({TypeUrl(kind): Resources.of(made)})
        kinds = (put[0] for put in command.get("put", ()))
        count = command.get("writes") or command.get("acks", 0)
        acks.expect(count, *kinds, event="sent" if command.get("writes") else "acked")
        started, processor = time.perf_counter(), time.process_time()
        cache.set(ROLE, snapshot)
        if count:
            await acks.enough.wait()
        say(
            seconds=time.perf_counter() - started,
            work=acks.at - command.get("at", 0.0),
            processor=time.process_time() - processor,
            sent=acks.sent,
            clients=server.streams,
        )


if __name__ == "__main__":
    uvloop.run(main())
