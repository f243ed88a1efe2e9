"""``glooctl route sort``: order the routes of an object so that the most specific comes first."""

from __future__ import annotations

import argparse
from typing import Any

from glooctl import editing, flags
from glooctl.output import show
from shared.routes import document_key, sort_routes
from shared.store import keys


def add_parser(commands: Any) -> None:
    help_text = "Work on an object's routes."
    parser = commands.add_parser("route", help=help_text, description=help_text, aliases=["r"])
    parser.set_defaults(parser=parser)
    nested = parser.add_subparsers(title="what", metavar="ACTION", parser_class=type(parser))
    sort = nested.add_parser("sort", aliases=["s"], help="the most specific route first", allow_abbrev=False)
    flags.add_object_flags(sort)
    sort.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    with flags.objects_of(options) as objects:
        found = objects.get(keys.VIRTUAL_SERVICE, flags.ref_of(options))
        routes = sort_routes(editing.routes_of(found.document), document_key)
        print(f"sorting {len(routes)} routes by:")
        print("- exact path, then regex, then prefix")
        print("- path text in descending order, so that /foo/bar comes before /foo")
        print("...")
        written = objects.replace(found, editing.with_routes(found.document, routes))
    show(keys.VIRTUAL_SERVICE, [written.document], options.output)
    return 0
