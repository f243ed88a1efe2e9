"""``glooctl edit``: change TLS or an Artifact's texts by flags, or the whole object in $EDITOR."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from glooctl import editing, flags
from glooctl.commands.add import words
from glooctl.commands.create import texts_of
from glooctl.errors import CommandError
from glooctl.objects import Found, Objects
from glooctl.output import show
from shared.codec import text
from shared.errors import InvalidDocument
from shared.store import keys
from shared.store.keys import Kind

KINDS = (
    *(keys.VIRTUAL_SERVICE, keys.UPSTREAM, keys.ROUTE_TABLE, *flags.USED_BY_OTHERS),
    *(keys.GATEWAY, keys.UPSTREAM_GROUP, keys.ARTIFACT),
)
WITH_SSL = (keys.VIRTUAL_SERVICE, keys.UPSTREAM)


def add_parser(commands: Any) -> None:
    help_text = "Edit an object: its TLS or its texts by flags, or all of it in $EDITOR."
    _, kinds = flags.add_kind_parsers(commands, "edit", "ed", help_text, KINDS)
    for kind, parser in kinds:
        flags.add_object_flags(parser)
        parser.add_argument(
            "--resource-version", metavar="N", help="refuse when the object has moved on from it"
        )
        if kind in WITH_SSL:
            parser.add_argument("--ssl-secret-name", default="", metavar="SECRET")
            parser.add_argument("--ssl-secret-namespace", default="", metavar="NAMESPACE")
            parser.add_argument("--ssl-remove", action="store_true", help="serve without TLS")
            sni = "--ssl-sni-domains" if kind == keys.VIRTUAL_SERVICE else "--ssl-sni"
            parser.add_argument(sni, dest="ssl_sni", type=words, default=[], metavar="DOMAIN")
        if kind is keys.ARTIFACT:
            flags.add_text_flags(parser, required=False)
        else:
            flags.add_wait_flags(parser)
        parser.set_defaults(run=lambda options, kind=kind: run(kind, options))


def run(kind: Kind, options: argparse.Namespace) -> int:
    with flags.objects_of(options) as objects:
        found = objects.get(kind, flags.ref_of(options))
        if options.resource_version and options.resource_version != str(found.index):
            raise CommandError(
                f"{kind.name} {found.ref} is at resource version {found.index}, "
                f"not {options.resource_version}; read it again"
            )
        written = by_flags(objects, found, options) if has_flags(options) else in_editor(objects, found)
        written = written and flags.waited(objects, written, options)
    if written is None:
        print("nothing changed", file=sys.stderr)
        return 0
    show(kind, [written.document], options.output)
    return 0


def has_flags(options: argparse.Namespace) -> bool:
    """Whether something is to be changed without an editor."""
    names = ("ssl_secret_name", "ssl_secret_namespace", "ssl_remove", "ssl_sni", "from_file")
    return any(getattr(options, name, None) for name in names)


def by_flags(objects: Objects, found: Found, options: argparse.Namespace) -> Found:
    if found.kind == keys.ARTIFACT:
        return objects.replace(found, editing.with_texts(found.document, texts_of(options.from_file)))
    changed = editing.with_ssl(
        found.document,
        secret_name=options.ssl_secret_name,
        secret_namespace=options.ssl_secret_namespace,
        sni=options.ssl_sni,
        sni_field="sniDomains" if found.kind == keys.VIRTUAL_SERVICE else "sni",
        remove=options.ssl_remove,
    )
    return objects.replace(found, changed)


def in_editor(objects: Objects, found: Found) -> Found | None:
    """Let the user edit the object's text; what they leave unchanged is not written."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        raise CommandError("set EDITOR to edit the object as text, or give --ssl-… flags")
    if found.problem:
        raise CommandError(f"{found.kind.name} {found.ref} cannot be edited: {found.problem}")
    before = with_statuses(found.raw, {})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{found.ref}.yaml"
        path.write_bytes(before)
        if subprocess.run([*shlex.split(editor), str(path)], check=False).returncode:
            raise CommandError(f"{editor} ended with an error; nothing was written")
        after = path.read_bytes()
    if after == before:
        return None
    try:
        document = text.parse(after)
        written = with_statuses(after, found.document)
    except InvalidDocument as error:
        raise CommandError(f"the edited text is not valid, nothing was written: {error}") from error
    named, given = found.document["metadata"], document.get("metadata") or {}
    metadata = named | given if isinstance(given, dict) else {}
    if any(metadata.get(field) != named.get(field) for field in ("namespace", "name")):
        raise CommandError(
            "metadata.name and metadata.namespace cannot be edited; create another object instead"
        )
    return objects.replace(found, {**document, "metadata": metadata}, written)


def with_statuses(raw: bytes, statuses: editing.Document) -> bytes:
    """The author's text with what the services say about it, and nothing else, as in *statuses*."""
    for field in ("status", "namespacedStatuses"):
        raw = text.set_status(raw, statuses.get(field), field=field)
    return raw
