"""``glooctl get``: show objects."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from glooctl import editing, flags, tables
from glooctl.chunks import whole
from glooctl.commands import secret
from glooctl.errors import UsageError
from glooctl.output import show
from shared.ref import Ref
from shared.store import keys
from shared.store.keys import Kind

KINDS = (
    keys.UPSTREAM,
    keys.VIRTUAL_SERVICE,
    keys.ROUTE_TABLE,
    *flags.USED_BY_OTHERS,
    keys.GATEWAY,
    keys.PROXY,
    keys.UPSTREAM_GROUP,
    keys.ARTIFACT,
)
ROUTE_WORDS = ("route", "routes", "r")


def add_parser(commands: Any) -> None:
    nested, kinds = flags.add_kind_parsers(commands, "get", "g", "Show one object, or all of a kind.", KINDS)
    for kind, parser in kinds:
        if kind in (keys.VIRTUAL_SERVICE, keys.ROUTE_TABLE):
            parser.add_argument("positional_name", nargs="?", metavar="NAME|route")
            parser.add_argument(
                "routes_of", nargs="?", metavar="NAME", help="with `route`: whose routes to show"
            )
            parser.add_argument("--name", metavar="NAME", help="the same as NAME")
            flags.add_object_flags(parser, name=False)
        else:
            flags.add_object_flags(parser)
        parser.set_defaults(run=lambda options, kind=kind: run(kind, options))
    secret.add_get(nested)


def run(kind: Kind, options: argparse.Namespace) -> int:
    """Print the table (or YAML, JSON); what cannot be decoded is named on stderr and makes the code 1."""
    if getattr(options, "positional_name", None) in ROUTE_WORDS and hasattr(options, "routes_of"):
        return show_routes(kind, options)
    name = flags.name_of(options)
    with flags.objects_of(options) as objects:
        listed = (
            [objects.get(kind, Ref(options.namespace, name))]
            if name
            else objects.list(kind, options.namespace)
        )
        documents = [
            whole(objects.consul, objects.root, found.ref, found.document)
            if kind == keys.PROXY
            else found.document
            for found in listed
        ]
    for found in listed:
        if found.problem:
            print(f"glooctl: {kind.name} {found.ref}: {found.problem}", file=sys.stderr)
    show(kind, documents, options.output)
    return 1 if any(found.problem for found in listed) else 0


def show_routes(kind: Kind, options: argparse.Namespace) -> int:
    name = options.routes_of or options.name
    if not name:
        raise UsageError("give the name of the object whose routes to show")
    with flags.objects_of(options) as objects:
        found = objects.get(kind, Ref(options.namespace, name))
    print(tables.routes(editing.routes_of(found.document)))
    return 0
