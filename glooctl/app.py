"""``glooctl``: the parser, and what becomes of errors.

Commands live in ``glooctl.commands``, one verb a file; each adds its parser and is imported with it, so
none may import more than it needs to start.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from glooctl.commands import (
    add,
    check,
    completion,
    create,
    delete,
    edit,
    get,
    proxy,
    release,
    remove,
    route,
    version,
    wait,
)
from glooctl.errors import CommandError

COMMANDS = (get, add, remove, route, create, edit, delete, wait, proxy, check, release, version, completion)


class Parser(argparse.ArgumentParser):
    """A parser that complains in one line and points to the help."""

    def _check_value(self, action: argparse.Action, value: object) -> None:
        """Name the words themselves, not every short form of them, where a word is unknown."""
        if action.choices is None or value in action.choices:
            return
        known = action.choices
        if isinstance(action, argparse._SubParsersAction):
            known = [choice.dest for choice in action._choices_actions]
        words = [str(word) for word in known]
        close = difflib.get_close_matches(str(value), words, 1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(words)}"
        raise argparse.ArgumentError(None, f"unknown {action.metavar or action.dest} {str(value)!r}: {hint}")

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"glooctl: {message} (see `{self.prog} --help`)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it did what was asked, 1 when it could not, 2 when the flags are wrong."""
    try:
        parser = build_parser()
        options = parser.parse_args(argv)
        if not hasattr(options, "run"):
            (options.parser if hasattr(options, "parser") else parser).print_help()
            return 2
        return int(options.run(options) or 0)
    except CommandError as error:
        print(f"glooctl: {error}", file=sys.stderr)
        return error.code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130


def build_parser() -> Parser:
    parser = Parser(
        prog="glooctl",
        description="Read and edit gateways, virtual services, routes and upstreams in Consul.",
        epilog="Consul is found by --consul-address or CONSUL_HTTP_ADDR (default 127.0.0.1:8500).",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
