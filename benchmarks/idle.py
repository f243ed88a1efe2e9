"""At rest nothing runs: processor time and Consul requests of the three services while nothing changes."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path

from tests.support.stack import ROLES, Stack, direct, virtual_service

TICK = os.sysconf("SC_CLK_TCK")
SECONDS = 60
OBJECTS = 100


async def main(samples: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with Stack(Path(folder)) as stack:
            for number in range(OBJECTS):
                domain = f"host-{number}.example.com"
                await stack.put(
                    "VirtualService", f"vs-{number}", virtual_service(direct("/", "x"), domains=[domain])
                )
            await stack.answers("/", host=f"host-{OBJECTS - 1}.example.com", within=30)
            await asyncio.sleep(5)
            pids = {role: stack.processes[role].pid for role in ROLES}
            before = {role: processor_seconds(pid) for role, pid in pids.items()}
            started = time.monotonic()
            await asyncio.sleep(SECONDS)
            elapsed = time.monotonic() - started
            used = {role: processor_seconds(pid) - before[role] for role, pid in pids.items()}
            print(f"{OBJECTS} virtual services, one Envoy, {elapsed:.0f} s without a change")
            for role, seconds in used.items():
                print(f"  {role:10} {seconds / elapsed:6.2%} of a core, {memory(pids[role]):5.0f} MiB")
            print(f"  together   {sum(used.values()) / elapsed:6.2%} of a core")


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory(pid: int) -> float:
    """Resident memory in MiB."""
    line = next(
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")
    )
    return int(line.split()[1]) / 1024
