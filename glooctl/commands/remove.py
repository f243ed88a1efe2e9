"""``glooctl remove route``: take a route out of a VirtualService or a RouteTable."""

from __future__ import annotations

import argparse
from typing import Any

from glooctl import editing, flags
from glooctl.output import show
from shared.store import keys


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "remove", help="Remove a route.", description="Remove a route.", aliases=["rm"]
    )
    parser.set_defaults(parser=parser)
    nested = parser.add_subparsers(title="what", metavar="KIND", parser_class=type(parser))
    route = nested.add_parser("route", aliases=["r", "routes"], help="a route", allow_abbrev=False)
    flags.add_object_flags(route)
    route.add_argument("-x", "--index", type=int, default=0, help="which route, from 0; default 0")
    route.add_argument("--from-route-table", action="store_true", help="NAME is a RouteTable")
    flags.add_wait_flags(route)
    route.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    kind = keys.ROUTE_TABLE if options.from_route_table else keys.VIRTUAL_SERVICE
    with flags.objects_of(options) as objects:
        found = objects.get(kind, flags.ref_of(options))
        written = objects.replace(found, editing.remove_route(found.document, options.index))
        written = flags.waited(objects, written, options)
    show(kind, [written.document], options.output)
    return 0
