"""``glooctl proxy``: the Envoys, as every gloo sees them and as one says of itself."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

from glooctl import admin, envoys, flags
from glooctl.errors import CommandError
from glooctl.progress import role_of
from glooctl.replicas import address_of, gloos
from shared.codec import text
from shared.ref import Ref
from shared.store import keys

OUTPUTS = ("table", "wide", "yaml", "json")
DEFAULT_PROXY = "gateway-proxy"
ENVOY = "127.0.0.1:19000"


def add_parser(commands: Any) -> None:
    help_text = "Look at the Envoys: what each was sent, took and refused."
    parser = commands.add_parser("proxy", help=help_text, description=help_text, aliases=["px"])
    parser.set_defaults(parser=parser)
    nested = parser.add_subparsers(title="what", metavar="ACTION", parser_class=type(parser))

    def leaf(word: str, help_text: str, run: flags.Run) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = nested.add_parser(
            word, help=help_text, description=help_text, allow_abbrev=False
        )
        added.set_defaults(run=run)
        return added

    one = leaf("status", "every Envoy: per type, what it was sent, what it took, what it refused", status)
    one.add_argument("which", nargs="?", default="", metavar="ROLE|NODE", help="default: all")
    one.add_argument("-o", "--output", choices=OUTPUTS, default="table", help="default: table")
    served = leaf(
        "served-config", "the resources that gloo serves to a role, and where they come from", served_config
    )
    served.add_argument("-o", "--output", choices=("yaml", "json"), default="yaml")
    for asks_gloo in (one, served):
        flags.add_admin_flag(asks_gloo)
        flags.add_consul_flags(asks_gloo)
    for word, help_text, page in (
        ("dump", "the configuration that an Envoy has", "/config_dump"),
        ("stats", "an Envoy's counters", "/stats"),
    ):
        added = leaf(word, help_text, partial(envoy_page, page))
        added.add_argument("--envoy-admin", default=ENVOY, metavar="HOST:PORT", help=f"default: {ENVOY}")
    for word, help_text in (
        ("url", "where clients reach the proxy"),
        ("address", "the same, without http://"),
    ):
        added = leaf(word, help_text, partial(print_url, word == "address"))
        added.add_argument(
            "-p", "--port", default="http", metavar="PORT", help="http, https, a number or a listener"
        )
        added.add_argument("--host", default="", help="for listeners that are bound to every address")
        flags.add_consul_flags(added)
    for of_proxy in [served, *(nested.choices[word] for word in ("url", "address"))]:
        of_proxy.add_argument("positional_name", nargs="?", metavar="NAME", help=f"default: {DEFAULT_PROXY}")
        of_proxy.add_argument("--name", metavar="NAME", help="the same as NAME")
        of_proxy.add_argument("-n", "--namespace", default="gloo-system", help="default: gloo-system")


def status(options: argparse.Namespace) -> int:
    """Print every Envoy of every gloo; one that does not answer is named on stderr and makes the code 1."""
    told: list[envoys.Document] = []
    silent = False
    with flags.objects_of(options) as objects:
        replicas = gloos(objects, options.admin_address)
    for replica in replicas:
        try:
            page = admin.fetch(address_of(replica), "/debug/xds", str(replica))
        except CommandError as error:
            print(f"glooctl: {error}", file=sys.stderr)
            silent = True
            continue
        told += envoys.clients_of(page, replica.name)
    found = [client for client in told if envoys.is_meant(client, options.which)]
    if options.which and not found and not silent:
        raise CommandError(f"no Envoy of role or name {options.which!r} is connected to any gloo")
    show(found, options.output)
    return 1 if silent else 0


def show(found: list[envoys.Document], form: str) -> None:
    if form in ("table", "wide"):
        print(envoys.table(found, wide=form == "wide"))
    elif form == "json":
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        print("---\n".join(text.render(client) for client in found), end="")


def served_config(options: argparse.Namespace) -> int:
    role = role_of(proxy_ref(options))
    with flags.objects_of(options) as objects:
        replica = gloos(objects, options.admin_address)[0]
    page = admin.fetch(address_of(replica), f"/debug/snapshot/{role}", str(replica))
    if not page:
        raise CommandError(
            f"{replica} serves nothing to role {role}: there is no such Proxy, or nothing was read yet"
        )
    print(json.dumps(page, indent=2) if options.output == "json" else text.render(page).rstrip("\n"))
    return 0


def envoy_page(page: str, options: argparse.Namespace) -> int:
    print(admin.fetch_text(options.envoy_admin, page, "Envoy's admin interface").rstrip("\n"))
    return 0


def print_url(bare: bool, options: argparse.Namespace) -> int:
    with flags.objects_of(options) as objects:
        found = objects.get(keys.PROXY, proxy_ref(options))
    listeners = found.document.get("listeners") or []
    known = dict(entries(listeners))
    wanted = next((each for word, each in entries(listeners) if word == options.port), None)
    if wanted is None:
        raise CommandError(
            f"Proxy {found.ref} has no listener {options.port!r}: known are {', '.join(known) or 'none'}"
        )
    address = wanted.get("bindAddress") or ""
    host = options.host or ("localhost" if address in ("", "::", "0.0.0.0") else address)
    host = f"[{host}]" if ":" in host else host
    where = f"{host}:{wanted.get('bindPort', 0)}"
    print(where if bare else f"{scheme(wanted)}://{where}")
    return 0


def entries(listeners: list[envoys.Document]) -> Iterator[tuple[str, envoys.Document]]:
    """The listeners by all the words that ``--port`` knows them by."""
    for listener in listeners:
        yield scheme(listener), listener
        yield str(listener.get("bindPort", 0)), listener
        yield str(listener.get("name") or ""), listener


def scheme(listener: envoys.Document) -> str:
    return "https" if listener.get("sslConfigurations") else "http"


def proxy_ref(options: argparse.Namespace) -> Ref:
    return Ref(options.namespace, flags.name_of(options) or DEFAULT_PROXY)
