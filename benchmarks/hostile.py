"""What clients that do harm cost one that does none: alone, beside another server's, and beside ours."""

from __future__ import annotations

from statistics import median, quantiles

from tests.support.hostile_clients import ALONE, ELSEWHERE, HERE, KINDS, Delays, delays

PUSHES = 25  # in a row


async def main(samples: int) -> None:
    print("a change until a client has it (wall) and the server's processor time until it is written (work):")
    print("ms while harm is done to nobody, to another server, to this one; ratio of this one's to nobody's")
    print(f"  {'kind':24} what |  p50 nobody  other   ours  ratio |  p90 nobody  other   ours  ratio |   MiB")
    for kind in KINDS:
        found = await delays(kind, rounds=max(2, samples // PUSHES), pushes=PUSHES)
        for line in rows(kind, found):
            print(line, flush=True)


def rows(kind: str, found: Delays) -> tuple[str, str]:
    wall = f"  {kind:24} wall | {_figures(found.waits)} | {found.grown:+5.0f}"
    return wall, f"  {'':24} work | {_figures(found.work)} |"


def _figures(seconds: dict[str, list[float]]) -> str:
    halves = [median(seconds[arm]) * 1e3 for arm in (ALONE, ELSEWHERE, HERE)]
    most = [quantiles(seconds[arm], n=10)[8] * 1e3 for arm in (ALONE, ELSEWHERE, HERE)]
    return " | ".join(
        f"{alone:11.2f} {other:6.2f} {ours:6.2f} {ours / alone:5.2f}x"
        for alone, other, ours in (halves, most)
    )
