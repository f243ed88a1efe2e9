"""``glooctl wait``: wait until an object is judged, taken by the Envoys, or gone; for pipelines."""

from __future__ import annotations

import argparse
from typing import Any

from glooctl import flags, waiting
from shared.store import keys
from shared.store.keys import Kind

KINDS = (
    keys.UPSTREAM,
    keys.VIRTUAL_SERVICE,
    keys.ROUTE_TABLE,
    keys.GATEWAY,
    keys.PROXY,
    keys.UPSTREAM_GROUP,
)
HELP = "Wait until an object is accepted, acknowledged by every Envoy, rejected or deleted."
EPILOG = (
    "accepted: judged as it stands now, with no error. acked: accepted, and every Envoy connected to any "
    "gloo that should have it has acknowledged it, one at least. A rejected object ends both at once, "
    "with 1. "
    "deleted: gone from Consul."
)


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("wait", help=HELP, description=HELP, epilog=EPILOG, allow_abbrev=False)
    parser.set_defaults(parser=parser, run=run)
    words = {word: kind for kind, known in flags.KIND_WORDS.items() for word in known if kind in KINDS}
    parser.add_argument(
        "kind", metavar="KIND", choices=words, help="e.g. virtualservice (vs), upstream (us), routetable (rt)"
    )
    parser.add_argument("positional_name", metavar="NAME", nargs="?")
    parser.add_argument("--name", metavar="NAME", help="the same as NAME")
    parser.add_argument("-n", "--namespace", default="gloo-system", help="default: gloo-system")
    parser.add_argument(
        "--for", dest="goal", choices=waiting.GOALS, default="accepted", help="default: accepted"
    )
    parser.add_argument("--timeout", type=str, default="30s", metavar="TIME", help="default: 30s")
    flags.add_admin_flag(parser)
    flags.add_consul_flags(parser)


def run(options: argparse.Namespace) -> int:
    ref, timeout = flags.ref_of(options), waiting.seconds(options.timeout)
    with flags.objects_of(options) as objects:
        print(waiting.wait(objects, kind_of(options.kind), ref, options.goal, timeout, options.admin_address))
    return 0


def kind_of(word: str) -> Kind:
    return next(kind for kind, words in flags.KIND_WORDS.items() if word in words)
