"""``glooctl version``."""

from __future__ import annotations

import argparse
import json
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import Any

from glooctl import flags, tables
from glooctl.errors import CommandError


def add_parser(commands: Any) -> None:
    help_text = "Show the versions of glooctl and of the running services."
    parser = commands.add_parser("version", help=help_text, description=help_text, aliases=["v"])
    parser.add_argument("-o", "--output", choices=("json", "yaml", "table"), default="json")
    flags.add_consul_flags(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    client = client_version()
    try:
        with flags.objects_of(options) as objects:
            prefix = f"{objects.root}/_members/"
            members = sorted(pair.key.removeprefix(prefix) for pair in objects.consul.list(prefix))
    except CommandError:
        members = []
    if options.output == "table":
        rows = [["Client", client], *(["Server", member] for member in members)]
        print(tables.draw(["PART", "VERSION OR NAME"], rows))
        return 0
    print(f"Client: {json.dumps({'version': client}, separators=(',', ':'))}")
    if members:
        print(f"Server: {json.dumps({'members': members}, separators=(',', ':'))}")
    else:
        print("Server: version undefined, could not find any of the services running")
    return 0


def client_version() -> str:
    try:
        return installed("gloo-consul")
    except PackageNotFoundError:
        return "undefined"
