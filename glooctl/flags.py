"""The flags that many commands share, and what they mean."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from glooctl import waiting
from glooctl.consul import Consul, address_from
from glooctl.errors import UsageError
from glooctl.objects import Found, Objects
from shared.ref import Ref
from shared.store import keys
from shared.store.keys import Kind

OUTPUTS = ("table", "wide", "yaml", "json", "kube-yaml")
ROOT_KEY = "gloo"

# Words that name a kind on the command line; the first is the one that help shows.
KIND_WORDS: dict[Kind, tuple[str, ...]] = {
    keys.UPSTREAM: ("upstream", "upstreams", "us", "u"),
    keys.VIRTUAL_SERVICE: ("virtualservice", "virtualservices", "vs"),
    keys.ROUTE_TABLE: ("routetable", "routetables", "rt"),
    keys.VIRTUAL_HOST_OPTION: ("virtualhostoption", "virtualhostoptions", "vhopts"),
    keys.ROUTE_OPTION: ("routeoption", "routeoptions", "rtopts"),
    keys.LISTENER_OPTION: ("listeneroption", "listeneroptions", "lisopts"),
    keys.HTTP_LISTENER_OPTION: ("httplisteneroption", "httplisteneroptions", "hlisopts"),
    keys.MATCHABLE_HTTP_GATEWAY: ("httpgateway", "httpgateways", "hgw"),
    keys.MATCHABLE_TCP_GATEWAY: ("tcpgateway", "tcpgateways", "tgw"),
    keys.GATEWAY: ("gateway", "gateways", "gw"),
    keys.PROXY: ("proxy", "proxies", "p", "px"),
    keys.UPSTREAM_GROUP: ("upstreamgroup", "upstreamgroups", "ug", "ugs"),
    keys.ARTIFACT: ("artifact", "artifacts", "art"),
}

USED_BY_OTHERS = (
    *(keys.VIRTUAL_HOST_OPTION, keys.ROUTE_OPTION, keys.LISTENER_OPTION, keys.HTTP_LISTENER_OPTION),
    *(keys.MATCHABLE_HTTP_GATEWAY, keys.MATCHABLE_TCP_GATEWAY),
)


def add_consul_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("Consul")
    group.add_argument(
        "--use-consul", action="store_true", help="accepted for compatibility; Consul is always used"
    )
    group.add_argument(
        "--consul-root-key", default=ROOT_KEY, metavar="KEY", help="where the objects are (gloo)"
    )
    group.add_argument(
        "--consul-address", metavar="HOST:PORT", help="default: CONSUL_HTTP_ADDR or 127.0.0.1:8500"
    )
    group.add_argument("--consul-scheme", metavar="SCHEME", help="http or https")
    group.add_argument("--consul-datacenter", metavar="DC")
    group.add_argument("--consul-token", metavar="TOKEN", help="default: CONSUL_HTTP_TOKEN")


def add_admin_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--admin-address",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="a gloo to ask, may be given again; default: those that Consul lists",
    )


def add_wait_flags(parser: argparse.ArgumentParser) -> None:
    """``--wait`` for commands that write an object: stay until it is accepted, or acknowledged."""
    parser.add_argument(
        "--wait",
        nargs="?",
        const="accepted",
        choices=("accepted", "acked"),
        help="stay until it is accepted (or acked: taken by every Envoy); exit 1 when it is not",
    )
    parser.add_argument("--timeout", default="30s", metavar="TIME", help="of --wait; default: 30s")
    add_admin_flag(parser)


def add_text_flags(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """``--from-file`` for texts of an Artifact; nobody speaks of those, so there is no ``--wait``."""
    parser.add_argument(
        "--from-file",
        action="append",
        default=[],
        required=required,
        metavar="[KEY=]FILE",
        help="a text, may be given again; what is no text goes in as base64; default KEY: the file's name",
    )
    parser.set_defaults(wait=None)


def waited(objects: Objects, found: Found, options: argparse.Namespace) -> Found:
    """The object that was written, after doing what ``--wait`` asks for, if it does."""
    if not options.wait:
        return found
    timeout = waiting.seconds(options.timeout)
    waiting.wait(objects, found.kind, found.ref, options.wait, timeout, options.admin_address)
    return objects.get(found.kind, found.ref)


def add_object_flags(parser: argparse.ArgumentParser, *, name: bool = True) -> None:
    """``-n``, ``-o``, Consul's, and ``NAME`` or ``--name``."""
    if name:
        parser.add_argument("positional_name", nargs="?", metavar="NAME")
        parser.add_argument("--name", metavar="NAME", help="the same as NAME")
    parser.add_argument("-n", "--namespace", default="gloo-system", help="default: gloo-system")
    add_output_flag(parser)
    add_consul_flags(parser)


def add_output_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", choices=OUTPUTS, default="table", help="default: table")


def add_dry_run_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="print the object instead of writing it")


def add_kind_parsers(
    commands: Any, verb: str, short: str, help_text: str, kinds: tuple[Kind, ...]
) -> tuple[argparse.ArgumentParser, Iterator[tuple[Kind, argparse.ArgumentParser]]]:
    """The parser of ``glooctl VERB`` and, for each kind, that of ``glooctl VERB KIND``."""
    parser = commands.add_parser(
        verb, aliases=[short], help=help_text, description=help_text, allow_abbrev=False
    )
    parser.set_defaults(parser=parser)
    nested = parser.add_subparsers(title="what", metavar="KIND", parser_class=type(parser))

    def each() -> Iterator[tuple[Kind, argparse.ArgumentParser]]:
        for kind in kinds:
            word, *aliases = KIND_WORDS[kind]
            yield kind, nested.add_parser(word, aliases=aliases, help=kind.name, allow_abbrev=False)

    return nested, each()


def name_of(options: argparse.Namespace) -> str:
    """The name given, in either way; empty when there is none."""
    positional, flag = options.positional_name or "", options.name or ""
    if positional and flag and positional != flag:
        raise UsageError(f"two names given: {positional} and --name {flag}")
    return positional or flag


def ref_of(options: argparse.Namespace) -> Ref:
    name = name_of(options)
    if not name:
        raise UsageError("give the object's name, as NAME or --name NAME")
    return Ref(options.namespace, name)


@contextmanager
def objects_of(options: argparse.Namespace) -> Iterator[Objects]:
    """The objects in the Consul that the flags name."""
    flags = {
        word: getattr(options, f"consul_{word}") for word in ("address", "scheme", "datacenter", "token")
    }
    consul = Consul(address_from(flags))
    try:
        yield Objects(consul, options.consul_root_key)
    finally:
        consul.close()


Run = Callable[[argparse.Namespace], int | None]
