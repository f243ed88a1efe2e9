"""``glooctl delete``: delete an object."""

from __future__ import annotations

import argparse
from typing import Any

from glooctl import flags
from glooctl.commands import secret
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


def add_parser(commands: Any) -> None:
    nested, kinds = flags.add_kind_parsers(commands, "delete", "d", "Delete an object.", KINDS)
    for kind, parser in kinds:
        flags.add_object_flags(parser)
        parser.set_defaults(run=lambda options, kind=kind: run(kind, options))
    secret.add_delete(nested)


def run(kind: Kind, options: argparse.Namespace) -> int:
    ref = flags.ref_of(options)
    with flags.objects_of(options) as objects:
        objects.delete(objects.get(kind, ref))
    print(f"{flags.KIND_WORDS[kind][0]} {ref.name} deleted")
    return 0
