"""``glooctl version``."""

from __future__ import annotations

import argparse
import json
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import Any

from glooctl import flags, tables
from glooctl.errors import CommandError
from glooctl.replicas import Replica, replicas_of


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
            members = replicas_of(objects)
    except CommandError:
        members = []
    if options.output == "table":
        rows = [["glooctl", "", client, ""]]
        rows += [[one.service, one.name, one.version or "undefined", one.started] for one in members]
        print(tables.draw(["PART", "NAME", "VERSION", "STARTED"], rows))
        return 0
    print(f"Client: {json.dumps({'version': client}, separators=(',', ':'))}")
    if members:
        print(f"Server: {json.dumps({'members': [shown(one) for one in members]}, separators=(',', ':'))}")
    else:
        print("Server: version undefined, could not find any of the services running")
    return 0


def shown(replica: Replica) -> dict[str, str]:
    return {
        "service": replica.service,
        "name": replica.name,
        "version": replica.version or "undefined",
        "started": replica.started,
    }


def client_version() -> str:
    try:
        return installed("gloo-consul")
    except PackageNotFoundError:
        return "undefined"
