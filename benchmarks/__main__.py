"""``python -m benchmarks``: all benchmarks, or those named. Figures and ratios only; nothing fails."""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess

from benchmarks import burst, cold_start, fanout, hostile, idle, propagation, transformed, translation

BENCHMARKS = {
    "propagation": propagation.main,
    "burst": burst.main,
    "cold_start": cold_start.main,
    "idle": idle.main,
    "fanout": fanout.main,
    "translation": translation.main,
    "transformed": transformed.main,
    "hostile": hostile.main,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--samples", type=int, default=100, help="samples a row; default: %(default)s")
    options = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    load = ", ".join(f"{each:.2f}" for each in os.getloadavg())
    print(f"commit {commit.stdout.strip() or 'unknown'}, {os.cpu_count()} cores, load {load}")
    for name in options.names or BENCHMARKS:
        print(f"\n# {name}")
        asyncio.run(BENCHMARKS[name](options.samples))


if __name__ == "__main__":
    main()
