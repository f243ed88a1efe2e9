"""``glooctl release``: give up what the services go on with although Consul has lost it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from glooctl import flags, holds, tables, waiting
from glooctl.errors import CommandError, UsageError
from glooctl.holds import Note
from glooctl.objects import Objects
from glooctl.replicas import replicas_of, told_in

HELP = "Give up what the services go on with although Consul has lost it."
EPILOG = (
    "When Consul is wiped, or restored from an older snapshot, the services go on with what it has lost, "
    "until that is back. This drops all that is listed, in every process, and with it what Envoys serve of "
    "it. What is lost afterwards is held again."
)
MOST_LINES = 200
EVERY = 0.2  # seconds


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("release", help=HELP, description=HELP, epilog=EPILOG, allow_abbrev=False)
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument("--dry-run", action="store_true", help="only list what is held")
    parser.add_argument(
        "--timeout", default="30s", metavar="TIME", help="for the services to follow; default: 30s"
    )
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="default: table")
    flags.add_consul_flags(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    timeout = waiting.seconds(options.timeout)
    with flags.objects_of(options) as objects:
        notes = holds.notes_of(objects, replicas_of(objects))
        if options.output == "json":
            print(json.dumps({note.process: dict(note.held) for note in notes}, indent=2))
        elif notes:
            print(listed(notes))
        else:
            print("Nothing is held: Consul has all that the services know of.")
        if options.dry_run or not notes:
            return 0
        if not options.yes:
            confirm()
        drop(objects, notes, timeout)
    if options.output == "table":
        print("Released.")
    return 0


def listed(notes: Sequence[Note]) -> str:
    """What is held and by whom, as a table."""
    holders: dict[tuple[str, str], list[str]] = {}
    for note in notes:
        for thing in note.names():
            holders.setdefault(thing, []).append(note.process if note.running else f"{note.process} (gone)")
    rows = [(what, name, "\n".join(holders[what, name])) for what, name in sorted(holders)]
    table = tables.draw(("What", "Name", "Held by"), rows[:MOST_LINES], width=60)
    more = len(rows) - MOST_LINES
    return f"{table}\nand {more} more: -o json lists all" if more > 0 else table


def confirm() -> None:
    if not sys.stdin.isatty():
        raise UsageError("this drops all that is listed: say so with --yes")
    if input("Drop all of this, and what Envoys serve of it? [y/N] ").strip().lower() not in ("y", "yes"):
        raise CommandError("nothing was dropped")


def drop(objects: Objects, notes: Sequence[Note], timeout: float) -> None:
    """Answer the notes, and wait until each process has done what that says."""
    deadline, left = time.monotonic() + timeout, list(notes)
    while True:
        left = [each for note in left if (each := answered(objects, note)) is not None]
        if not left:
            return
        if time.monotonic() > deadline:
            late = ", ".join(note.process for note in left)
            raise CommandError(f"not done within {timeout:g} s: {late}; try again")
        time.sleep(EVERY)


def answered(objects: Objects, note: Note) -> Note | None:
    """The note to look at again; None when its process has dropped what it told of, or is no more."""
    pair = objects.consul.get(note.key)
    document = told_in(pair.value) if pair is not None else {}
    if pair is None:
        return None
    if document.get("released") == note.id:
        if note.running:
            return note
        objects.consul.delete(note.key, pair.index)
        return None
    if document.get("id") != note.id:
        raise CommandError(f"{note.process} has lost more meanwhile: look at it, and release again")
    objects.consul.cas(note.key, json.dumps({"released": note.id}).encode(), pair.index)
    return note
