"""``glooctl create``: create objects, from flags or from a file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from glooctl import editing, flags
from glooctl.commands import secret
from glooctl.commands.add import words
from glooctl.errors import CommandError, UsageError
from glooctl.objects import validate
from glooctl.output import show
from shared.codec import text
from shared.errors import InvalidDocument
from shared.store import keys
from shared.store.keys import Kind

# A bare document has no kind; a field that only one kind has tells. Some have none.
TELLING = {
    keys.VIRTUAL_SERVICE: ("virtualHost", "displayName"),
    keys.GATEWAY: ("hybridGateway", "bindAddress", "bindPort"),
    keys.UPSTREAM_GROUP: ("destinations",),
    keys.ROUTE_TABLE: ("routes",),
    **dict.fromkeys(flags.USED_BY_OTHERS, ()),
    keys.PROXY: ("listeners",),
    keys.UPSTREAM: ("consul", "static", "kube", "pipe", "aws", "azure", "awsEc2", "upstreamSpec"),
    keys.ARTIFACT: ("data",),
}


def add_parser(commands: Any) -> None:
    help_text = "Create an object, from flags or from a file."
    parser = commands.add_parser("create", help=help_text, description=help_text, aliases=["c"])
    parser.add_argument(
        "-f", "--file", metavar="FILE", help="YAML or JSON, one or several documents; - is stdin"
    )
    flags.add_object_flags(parser, name=False)
    flags.add_dry_run_flag(parser)
    flags.add_wait_flags(parser)
    parser.set_defaults(parser=parser, run=create_from_file)
    nested = parser.add_subparsers(title="what", metavar="KIND", parser_class=type(parser))
    add_virtual_service(nested)
    add_upstream(nested)
    add_upstream_group(nested)
    add_artifact(nested)
    secret.add_create(nested)


def leaf(nested: Any, kind: Kind) -> argparse.ArgumentParser:
    word, *aliases = flags.KIND_WORDS[kind]
    parser: argparse.ArgumentParser = nested.add_parser(
        word, aliases=aliases, help=kind.name, allow_abbrev=False
    )
    return parser


def add_virtual_service(nested: Any) -> None:
    parser = leaf(nested, keys.VIRTUAL_SERVICE)
    flags.add_object_flags(parser)
    flags.add_dry_run_flag(parser)
    flags.add_wait_flags(parser)
    parser.add_argument("--domains", type=words, default=["*"], metavar="A,B", help="default: *")
    parser.add_argument("--display-name", default="", help="default: the name")
    parser.set_defaults(run=create_virtual_service)


def add_upstream(nested: Any) -> None:
    parser = leaf(nested, keys.UPSTREAM)
    parser.set_defaults(parser=parser)
    kinds = parser.add_subparsers(title="type", metavar="TYPE", parser_class=type(parser))
    consul = kinds.add_parser("consul", help="a service in Consul", allow_abbrev=False)
    consul.add_argument("--consul-service", required=True, metavar="SERVICE")
    consul.add_argument("--consul-service-tags", type=words, default=[], metavar="A,B")
    static = kinds.add_parser("static", help="fixed hosts", allow_abbrev=False)
    static.add_argument("--static-hosts", type=words, required=True, metavar="HOST[:PORT],…")
    static.add_argument("--static-outbound-tls", action="store_true", help="speak TLS to the hosts")
    for one, run in ((consul, create_consul_upstream), (static, create_static_upstream)):
        flags.add_object_flags(one)
        flags.add_dry_run_flag(one)
        flags.add_wait_flags(one)
        one.set_defaults(run=run)


def add_upstream_group(nested: Any) -> None:
    parser = leaf(nested, keys.UPSTREAM_GROUP)
    flags.add_object_flags(parser)
    flags.add_dry_run_flag(parser)
    flags.add_wait_flags(parser)
    parser.add_argument("--weighted-upstreams", type=words, required=True, metavar="NS.NAME=WEIGHT,…")
    parser.set_defaults(run=create_upstream_group)


def add_artifact(nested: Any) -> None:
    parser = leaf(nested, keys.ARTIFACT)
    flags.add_object_flags(parser)
    flags.add_dry_run_flag(parser)
    flags.add_text_flags(parser, required=True)
    parser.set_defaults(run=create_artifact)


def create_virtual_service(options: argparse.Namespace) -> int:
    ref = flags.ref_of(options)
    display_name = options.display_name or ref.name
    document = editing.new_virtual_service(ref.name, ref.namespace, options.domains, display_name)
    return create(keys.VIRTUAL_SERVICE, document, options)


def create_consul_upstream(options: argparse.Namespace) -> int:
    ref = flags.ref_of(options)
    tags = options.consul_service_tags
    document = editing.consul_upstream(ref.name, ref.namespace, options.consul_service, tags)
    return create(keys.UPSTREAM, document, options)


def create_static_upstream(options: argparse.Namespace) -> int:
    ref = flags.ref_of(options)
    tls = options.static_outbound_tls
    return create(
        keys.UPSTREAM, editing.static_upstream(ref.name, ref.namespace, options.static_hosts, tls), options
    )


def create_upstream_group(options: argparse.Namespace) -> int:
    ref = flags.ref_of(options)
    document = editing.upstream_group(ref.name, ref.namespace, options.weighted_upstreams)
    return create(keys.UPSTREAM_GROUP, document, options)


def create_artifact(options: argparse.Namespace) -> int:
    ref = flags.ref_of(options)
    return create(
        keys.ARTIFACT, editing.artifact(ref.name, ref.namespace, texts_of(options.from_file)), options
    )


def texts_of(files: Iterable[str]) -> dict[str, bytes]:
    """What ``--from-file`` names, by key."""
    found: dict[str, bytes] = {}
    for each in files:
        key, separator, path = each.partition("=")
        name, path = (key, path) if separator else (Path(each).name, each)
        if not name or not path:
            raise UsageError(f"--from-file {each!r} is not [KEY=]FILE")
        found[name] = read(path)
    return found


def create(kind: Kind, document: Mapping[str, Any], options: argparse.Namespace) -> int:
    if options.dry_run:
        validate(kind, document)
        show(kind, [dict(document)], "kube-yaml" if options.output == "table" else options.output)
        return 0
    with flags.objects_of(options) as objects:
        written = objects.create(kind, document)
        written = flags.waited(objects, written, options)
    show(kind, [written.document], options.output)
    return 0


def create_from_file(options: argparse.Namespace) -> int:
    """Create every document of the file; all are checked before the first is written."""
    if not options.file:
        raise UsageError("say what to create: a KIND with its flags, or -f FILE")
    documents = list(documents_of(read(options.file), options.namespace))
    for kind, document in documents:
        validate(kind, document)
    if options.dry_run:
        for kind, document in documents:
            show(kind, [document], "kube-yaml" if options.output == "table" else options.output)
        return 0
    with flags.objects_of(options) as objects:
        written = [objects.create(kind, document) for kind, document in documents]
        for found in written:
            if found.kind != keys.ARTIFACT:  # of which nobody has anything to say
                found = flags.waited(objects, found, options)
            show(found.kind, [found.document], options.output)
    return 0


def read(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {name}: {error.strerror}") from error


def documents_of(raw: bytes, namespace: str) -> Iterable[tuple[Kind, dict[str, Any]]]:
    """Kind and document of each YAML document, Kubernetes-shaped or bare."""
    parts = [raw] if raw.lstrip().startswith(b"{") else split(raw)
    if not parts:
        raise CommandError("the file holds no document")
    for number, part in enumerate(parts, 1):
        try:
            parsed = text.parse(part)
        except InvalidDocument as error:
            raise CommandError(f"document {number}: {error}") from error
        if not isinstance(parsed, dict):
            raise CommandError(f"document {number}: not a mapping")
        kind, document = unwrapped(parsed, number)
        metadata = document.setdefault("metadata", {})
        if isinstance(metadata, dict):
            metadata.setdefault("namespace", namespace)
        yield kind, document


def split(raw: bytes) -> list[bytes]:
    parts: list[list[bytes]] = [[]]
    for line in raw.splitlines(keepends=True):
        if line.rstrip() == b"---":
            parts.append([])
        else:
            parts[-1].append(line)
    return [joined for part in parts if (joined := b"".join(part)).strip()]


def unwrapped(document: dict[str, Any], number: int) -> tuple[Kind, dict[str, Any]]:
    if "kind" in document and "apiVersion" in document:
        kind = next((kind for kind in TELLING if kind.name == document["kind"]), None)
        if kind is None:
            allowed = ", ".join(kind.name for kind in TELLING)
            raise CommandError(f"document {number}: unknown kind {document['kind']!r}; known are {allowed}")
        return kind, {**(document.get("spec") or {}), "metadata": document.get("metadata") or {}}
    for kind, fields in TELLING.items():
        if any(field in document for field in fields):
            return kind, document
    raise CommandError(
        f"document {number}: cannot tell its kind; add `kind:` and `apiVersion:`, with the rest in `spec:`"
    )
