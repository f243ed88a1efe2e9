"""``glooctl check``: is everything that was written also accepted, and is everybody there?"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from glooctl import admin, editing, flags, holds, tables
from glooctl.errors import CommandError
from glooctl.holds import Note, when
from glooctl.objects import Found, Objects
from glooctl.replicas import SERVICES, Replica, replicas_of
from shared.store import keys

LED = ("gateway", "gloo")
KINDS = (
    (keys.UPSTREAM, "upstreams"),
    (keys.UPSTREAM_GROUP, "upstream groups"),
    (keys.VIRTUAL_SERVICE, "virtual services"),
    (keys.ROUTE_TABLE, "route tables"),
    (keys.VIRTUAL_HOST_OPTION, "virtual host options"),
    (keys.ROUTE_OPTION, "route options"),
    (keys.LISTENER_OPTION, "listener options"),
    (keys.HTTP_LISTENER_OPTION, "http listener options"),
    (keys.MATCHABLE_HTTP_GATEWAY, "http gateways"),
    (keys.MATCHABLE_TCP_GATEWAY, "tcp gateways"),
    (keys.GATEWAY, "gateways"),
    (keys.PROXY, "proxies"),
)


def add_parser(commands: Any) -> None:
    help_text = (
        "Look for rejected objects, dangling references and missing services; exit 1 when there are any."
    )
    parser = commands.add_parser("check", help=help_text, description=help_text)
    parser.add_argument("-n", "--namespace", default="", help="default: all")
    parser.add_argument(
        "-x", "--exclude", action="append", default=[], metavar="THING", help="e.g. services, upstreams"
    )
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    flags.add_consul_flags(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Check one thing after the other; each line says OK or what was found."""
    found: dict[str, list[str]] = {}
    with flags.objects_of(options) as objects:
        running = replicas_of(objects)
        for thing, problems in checks(objects, running, options.namespace):
            if thing in options.exclude:
                continue
            listed = found[thing] = list(problems)
            if options.output == "table":
                print(f"Checking {thing}... {'OK' if not listed else f'{len(listed)} Errors!'}", flush=True)
                for line in [*(leaders(running) if thing == "services" else ()), *listed]:
                    print(f"  {line}")
    bad = any(found.values())
    if options.output == "json":
        leading = {replica.service: replica.name for replica in running if replica.leads}
        print(json.dumps({"problems": found, "leaders": leading}, indent=2))
    else:
        print("Problems detected!" if bad else "No problems detected.")
    return 1 if bad else 0


def checks(
    objects: Objects, running: Sequence[Replica], namespace: str
) -> Iterator[tuple[str, Iterator[str]]]:
    yield "services", missing_services(objects, running)
    yield "snapshots", stale_snapshots(running)
    yield "losses", losses(holds.notes_of(objects, running))
    listed = {kind: objects.list(kind, namespace) for kind, _ in KINDS}
    upstreams = {(found.ref.namespace, found.ref.name) for found in objects.list(keys.UPSTREAM)}
    for kind, thing in KINDS:
        yield thing, object_problems(listed[kind], upstreams)


def missing_services(objects: Objects, running: Sequence[Replica]) -> Iterator[str]:
    """Services none of whose replicas holds a member key in Consul."""
    for service in SERVICES:
        if not any(replica.service == service for replica in running):
            yield f"{service} is not running: nothing in Consul under {objects.root}/_members/{service}/"


def leaders(running: Sequence[Replica]) -> Iterator[str]:
    """Who writes, of the services where one does."""
    for service in LED:
        names = [replica for replica in running if replica.service == service]
        if names:
            leader = next((replica.name for replica in names if replica.leads), "nobody")
            yield f"{service}: {leader} leads, {len(names)} running"


def stale_snapshots(running: Sequence[Replica]) -> Iterator[str]:
    """What a gloo serves from its disk since it started, Consul not being read yet; a gloo that cannot be
    asked from here is passed over."""
    for replica in running:
        if replica.service != "gloo" or not replica.admin:
            continue
        try:
            roles = admin.fetch(replica.admin, "/debug/roles", str(replica))["roles"]
        except CommandError:
            continue
        for role, told in roles.items():
            if since := told.get("lastGoodSince"):
                yield f"{replica} serves role {role} a snapshot of {when(since)}, from before it started"


def losses(notes: Sequence[Note]) -> Iterator[str]:
    """What processes go on with although Consul has lost it."""
    for note in notes:
        for what, count, since in note.lines():
            who = f"{note.process} goes" if note.running else f"{note.process}, which is gone, went"
            yield (
                f"{who} on with {count} of {what} that Consul has lost (since {since}): write them again, or "
                "give them up with `glooctl release`"
            )


def object_problems(listed: Sequence[Found], upstreams: set[tuple[str, str]]) -> Iterator[str]:
    for found in listed:
        word = found.kind.name
        where = f"{found.ref.namespace} {found.ref.name}"
        if found.problem:
            yield f"Found undecodable {word}: {where} Reason: {found.problem}"
            continue
        state = tables.state(found.document)
        if state in ("Rejected", "Warning"):
            said = "rejected" if state == "Rejected" else "with warnings"
            reason = "; ".join(line for text in tables.reasons(found.document) for line in text.splitlines())
            yield f"Found {said} {word}: {where} Reason: {reason}"
        elif state == "Pending":
            yield f"Found pending {word}: {where} (no service has reported on it yet)"
        for problem in tables.status_cell(found.document)[1:]:
            yield f"{word} {where}: {problem}"
        for route in editing.routes_of(found.document) if found.kind != keys.PROXY else []:
            for ref in route_upstreams(route):
                if ref not in upstreams:
                    yield f"{word} {where} references unknown upstream: ({ref[0]} {ref[1]})"


def route_upstreams(route: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    action = route.get("routeAction") or {}
    destinations = [action.get("single") or {}]
    for member in (action.get("multi") or {}).get("destinations") or []:
        destinations.append(member.get("destination") or {})
    for destination in destinations:
        if ref := destination.get("upstream"):
            yield str(ref.get("namespace") or ""), str(ref.get("name") or "")
