"""``glooctl add route``: put a route into a VirtualService or a RouteTable."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from glooctl import editing, flags
from glooctl.errors import UsageError
from glooctl.objects import Found, Objects, validate
from glooctl.output import show
from shared.ref import Ref
from shared.store import keys


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("add", help="Add a route.", description="Add a route.", aliases=["a"])
    parser.set_defaults(parser=parser)
    nested = parser.add_subparsers(title="what", metavar="KIND", parser_class=type(parser))
    route = nested.add_parser("route", aliases=["r", "routes"], help="a route", allow_abbrev=False)
    flags.add_object_flags(route)
    flags.add_dry_run_flag(route)
    add_route_flags(route)
    flags.add_wait_flags(route)
    route.set_defaults(run=run)


def add_route_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--to-route-table", action="store_true", help="NAME is a RouteTable")
    add("-x", "--index", type=int, default=0, help="where to put it; default 0, before all others")
    paths = parser.add_argument_group("path (exactly one)")
    paths.add_argument("-e", "--path-exact", default="", metavar="PATH")
    paths.add_argument("-p", "--path-prefix", default="", metavar="PREFIX")
    paths.add_argument("-r", "--path-regex", default="", metavar="REGEX")
    match = parser.add_argument_group("also to match")
    match.add_argument("-m", "--method", action="extend", type=words, default=[], metavar="GET,PUT")
    match.add_argument("-d", "--header", action="extend", type=words, default=[], metavar="NAME=REGEX")
    match.add_argument(
        "-q", "--queryParameter", action="extend", type=words, default=[], metavar="NAME=REGEX"
    )
    destination = parser.add_argument_group("destination (exactly one)")
    destination.add_argument("-u", "--dest-name", default="", metavar="UPSTREAM")
    destination.add_argument("-s", "--dest-namespace", default="gloo-system", metavar="NAMESPACE")
    destination.add_argument("--dest-consul-service", default="", metavar="SERVICE")
    destination.add_argument("--upstream-group-name", default="", metavar="GROUP")
    destination.add_argument("--upstream-group-namespace", default="gloo-system", metavar="NAMESPACE")
    destination.add_argument("--delegate-name", default="", metavar="ROUTETABLE")
    destination.add_argument("--delegate-namespace", default="gloo-system", metavar="NAMESPACE")
    add("--prefix-rewrite", default=None, metavar="PATH", help="what the matched prefix becomes")


def words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def run(options: argparse.Namespace) -> int:
    """Write the object with the route in it and print it."""
    route = editing.route_from(
        editing.RouteFlags(
            exact=options.path_exact,
            regex=options.path_regex,
            prefix=options.path_prefix,
            methods=options.method,
            headers=options.header,
            query_parameters=options.queryParameter,
            upstream=options.dest_name,
            upstream_namespace=options.dest_namespace,
            delegate=options.delegate_name,
            delegate_namespace=options.delegate_namespace,
            group=options.upstream_group_name,
            group_namespace=options.upstream_group_namespace,
            consul_service=options.dest_consul_service,
            prefix_rewrite=options.prefix_rewrite,
        )
    )
    kind = keys.ROUTE_TABLE if options.to_route_table else keys.VIRTUAL_SERVICE
    with flags.objects_of(options) as objects:
        found, document = target(objects, options)
        changed = editing.add_route(document, route, options.index)
        if options.dry_run:
            validate(kind, changed)
            show(kind, [changed], "kube-yaml" if options.output == "table" else options.output)
            return 0
        written = objects.replace(found, changed) if found else objects.create(kind, changed)
        written = flags.waited(objects, written, options)
    show(kind, [written.document], options.output)
    return 0


def target(objects: Objects, options: argparse.Namespace) -> tuple[Found | None, editing.Document]:
    """The object that takes the route: the named one, else the one for ``*``, else a new ``default``."""
    name = flags.name_of(options)
    if options.to_route_table:
        if not name:
            raise UsageError("--to-route-table needs the RouteTable's name")
        table = objects.find(keys.ROUTE_TABLE, Ref(options.namespace, name))
        return table, table.document if table else {
            "metadata": {"name": name, "namespace": options.namespace}
        }
    if name:
        found = objects.find(keys.VIRTUAL_SERVICE, Ref(options.namespace, name))
        return found, found.document if found else editing.new_virtual_service(name, options.namespace)
    listed = [found for found in objects.list(keys.VIRTUAL_SERVICE) if not found.problem]
    picked = editing.pick_virtual_service([found.document for found in listed])
    for found in listed:
        if found.document is picked:
            return found, picked
    if not options.dry_run:
        print(f"creating virtual service {options.namespace}.default for domain *", file=sys.stderr)
    return None, editing.new_virtual_service("default", options.namespace)
