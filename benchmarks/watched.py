"""A service with a watch over its event loop: ``python -m benchmarks.watched REPORT SERVICE FLAG…``.

A thread asks the loop for a sign of life every other millisecond. When that takes long it looks at what the
main thread is doing, and writes a line of JSON to REPORT: how long the loop was held up in wall time and in
the main thread's own processor time (on a busy machine the two differ), and where. Of use beside the
benchmarks, too, to find out what holds up a loop.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import uvloop

EVERY = 0.002
WORTH_TELLING = 0.010
FRAMES = 4
LISTED = 5


def watch(loop: asyncio.AbstractEventLoop, main: int, report: Path) -> None:
    """For ever: ask, wait, tell."""
    processor = time.pthread_getcpuclockid(main)

    def now() -> tuple[float, float]:
        return time.perf_counter(), time.clock_gettime(processor)

    while not loop.is_closed():
        asked, answered, alive = now(), [(0.0, 0.0)], threading.Event()

        def answer(answered: list[tuple[float, float]] = answered, alive: threading.Event = alive) -> None:
            answered[0] = now()
            alive.set()

        try:
            loop.call_soon_threadsafe(answer)
        except RuntimeError:  # closed since
            return
        seen: Counter[str] = Counter()
        while not alive.wait(EVERY):
            seen[_place(main)] += 1
        wall, spent = (then - before for then, before in zip(answered[0], asked, strict=True))
        if wall > WORTH_TELLING:
            line = {"wall": wall, "processor": spent, "where": seen.most_common(3)}
            with report.open("a") as lines:
                lines.write(json.dumps(line) + "\n")
        time.sleep(EVERY)


def _place(thread: int) -> str:
    frame = sys._current_frames().get(thread)
    summary = traceback.extract_stack(frame)[-FRAMES:] if frame else []
    return " > ".join(f"{Path(each.filename).stem}.{each.name}:{each.lineno}" for each in summary)


def watching(report: Path) -> Callable[[], asyncio.AbstractEventLoop]:
    """How to make an event loop that is watched from its first callback on."""
    make = uvloop.new_event_loop

    def made() -> asyncio.AbstractEventLoop:
        loop = make()
        watcher = threading.Thread(
            target=watch, args=(loop, threading.get_ident(), report), name="watch", daemon=True
        )
        loop.call_soon(watcher.start)
        return loop

    return made


def told(report: Path) -> str:
    """The longest of what a watch has told so far: by the loop's own work, as opposed to the machine's."""
    lines = report.read_text().splitlines() if report.exists() else []
    blocks = sorted(map(json.loads, lines), key=lambda block: -float(block["processor"]))
    listed = [f"{len(blocks)} times for 10 ms and more"]
    for block in blocks[:LISTED]:
        at = block["where"][0][0] if block["where"] else ""
        listed.append(f"{block['processor'] * 1e3:6.1f} ms ({block['wall'] * 1e3:.1f} ms by the clock) {at}")
    return "\n  ".join(listed)


if __name__ == "__main__":
    where, service, *flags = sys.argv[1:]
    sys.argv = [service, *flags]
    uvloop.new_event_loop = watching(Path(where))
    sys.exit(importlib.import_module(f"services.{service}.app").main())
