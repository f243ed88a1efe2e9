"""Edits of documents: pure functions from documents and flags to new documents."""

from __future__ import annotations

import copy
from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from glooctl.errors import CommandError, UsageError

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteFlags:
    """The flags of ``add route``; what is not given is empty."""

    exact: str = ""
    regex: str = ""
    prefix: str = ""
    methods: Sequence[str] = ()
    headers: Sequence[str] = ()
    query_parameters: Sequence[str] = ()
    upstream: str = ""
    upstream_namespace: str = "gloo-system"
    delegate: str = ""
    delegate_namespace: str = "gloo-system"
    group: str = ""
    group_namespace: str = "gloo-system"
    consul_service: str = ""
    prefix_rewrite: str | None = None


def route_from(flags: RouteFlags) -> Document:
    """The route that the flags describe; exactly one path and exactly one destination."""
    route: Document = {"matchers": [matcher_from(flags)], **action_from(flags)}
    if flags.prefix_rewrite is not None:
        route["options"] = {"prefixRewrite": flags.prefix_rewrite}
    return route


def matcher_from(flags: RouteFlags) -> Document:
    paths = {"exact": flags.exact, "regex": flags.regex, "prefix": flags.prefix}
    given = {kind: path for kind, path in paths.items() if path}
    if len(given) != 1:
        raise UsageError("give exactly one of --path-exact, --path-prefix and --path-regex")
    matcher: Document = dict(given)
    if flags.headers:
        matcher["headers"] = [header_matcher(text) for text in flags.headers]
    if flags.query_parameters:
        matcher["queryParameters"] = [
            {**_named(text, "--queryParameter"), "regex": True} for text in flags.query_parameters
        ]
    if flags.methods:
        matcher["methods"] = [method.upper() for method in flags.methods]
    return matcher


def header_matcher(text: str) -> Document:
    """``name=regex``; without a value the header must only be present."""
    named = _named(text, "--header")
    return {**named, "regex": True} if named.get("value") else named


def _named(text: str, flag: str) -> Document:
    name, _, value = text.partition("=")
    if not name:
        raise UsageError(f"{flag} {text!r} is not name=value")
    return {"name": name, "value": value} if value else {"name": name}


def action_from(flags: RouteFlags) -> Document:
    actions: list[Document] = []
    if flags.upstream:
        ref = _ref(flags.upstream, flags.upstream_namespace)
        actions.append({"routeAction": {"single": {"upstream": ref}}})
    if flags.consul_service:
        destination = {"consul": {"serviceName": flags.consul_service}}
        actions.append({"routeAction": {"single": destination}})
    if flags.group:
        actions.append({"routeAction": {"upstreamGroup": _ref(flags.group, flags.group_namespace)}})
    if flags.delegate:
        actions.append({"delegateAction": _ref(flags.delegate, flags.delegate_namespace)})
    if len(actions) != 1:
        raise UsageError(
            "give exactly one destination: --dest-name, --upstream-group-name, --delegate-name or "
            "--dest-consul-service"
        )
    return actions[0]


def _ref(name: str, namespace: str) -> Document:
    return {"name": name, "namespace": namespace}


def routes_of(document: Mapping[str, Any]) -> list[Document]:
    """The routes of a VirtualService or a RouteTable."""
    holder = document.get("virtualHost") or {} if "virtualHost" in document else document
    return list(holder.get("routes") or [])


def with_routes(document: Mapping[str, Any], routes: Sequence[Document]) -> Document:
    changed = copy.deepcopy(dict(document))
    holder = changed.setdefault("virtualHost", {}) if "virtualHost" in changed else changed
    holder["routes"] = list(routes)
    return changed


def add_route(document: Mapping[str, Any], route: Document, index: int) -> Document:
    """Put *route* in at *index*; past the end it comes last."""
    if index < 0:
        raise UsageError("--index must not be negative")
    routes = routes_of(document)
    routes.insert(index, route)
    return with_routes(document, routes)


def remove_route(document: Mapping[str, Any], index: int) -> Document:
    routes = routes_of(document)
    if not 0 <= index < len(routes):
        has = f"it has {len(routes)} routes, numbered from 0" if routes else "it has no routes"
        raise CommandError(f"no route with index {index}: {has}")
    del routes[index]
    return with_routes(document, routes)


def new_virtual_service(
    name: str, namespace: str, domains: Sequence[str] = ("*",), display_name: str = ""
) -> Document:
    document: Document = {
        "metadata": {"name": name, "namespace": namespace},
        "virtualHost": {"domains": list(domains)},
    }
    if display_name:
        document["displayName"] = display_name
    return document


def pick_virtual_service(documents: Sequence[Document]) -> Document | None:
    """The first VirtualService that serves the domain ``*``."""
    for document in documents:
        if "*" in ((document.get("virtualHost") or {}).get("domains") or ["*"]):
            return document
    return None


def consul_upstream(name: str, namespace: str, service: str, tags: Sequence[str]) -> Document:
    spec: Document = {"serviceName": service}
    if tags:
        spec["serviceTags"] = list(tags)
    return {"metadata": _ref(name, namespace), "consul": spec}


def static_upstream(name: str, namespace: str, hosts: Sequence[str], use_tls: bool) -> Document:
    spec: Document = {"hosts": [static_host(text) for text in hosts]}
    if use_tls:
        spec["useTls"] = True
    return {"metadata": _ref(name, namespace), "static": spec}


def static_host(text: str) -> Document:
    """``host``, ``host:port``, ``[ipv6]:port``; the port is 80 when missing."""
    address, separator, port = text.rpartition(":")
    if not separator or text.endswith("]"):
        address, port = text, "80"
    if not address or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"--static-hosts {text!r} is not host:port")
    return {"addr": address.removeprefix("[").removesuffix("]"), "port": int(port)}


def upstream_group(name: str, namespace: str, weighted: Sequence[str]) -> Document:
    """From ``namespace.name=weight`` words."""
    members = []
    for text in weighted:
        ref, separator, weight = text.partition("=")
        owner, dot, upstream = ref.partition(".")
        if not separator or not dot or not upstream or not weight.isdigit():
            raise UsageError(f"--weighted-upstreams {text!r} is not namespace.name=weight")
        members.append({"destination": {"upstream": _ref(upstream, owner)}, "weight": int(weight)})
    if not members:
        raise UsageError("--weighted-upstreams needs at least one namespace.name=weight")
    return {"metadata": _ref(name, namespace), "destinations": members}


def artifact(name: str, namespace: str, texts: Mapping[str, bytes]) -> Document:
    return with_texts({"metadata": _ref(name, namespace)}, texts)


def with_texts(document: Mapping[str, Any], texts: Mapping[str, bytes]) -> Document:
    """An Artifact with these texts beside or in place of its own; what is no text goes in as base64."""
    ready = {key: as_text(raw) for key, raw in texts.items()}
    return {**document, "data": {**(document.get("data") or {}), **ready}}


def as_text(raw: bytes) -> str:
    with suppress(UnicodeDecodeError):
        text = raw.decode()
        if all(each.isprintable() or each in "\t\r\n" for each in text):
            return text
    return b64encode(raw).decode()


def with_ssl(
    document: Mapping[str, Any],
    *,
    secret_name: str = "",
    secret_namespace: str = "",
    sni: Sequence[str] = (),
    sni_field: str = "sniDomains",
    remove: bool = False,
) -> Document:
    """The object with another TLS configuration; only what the flags name is changed."""
    changed = copy.deepcopy(dict(document))
    if remove:
        changed.pop("sslConfig", None)
        return changed
    config = dict(changed.get("sslConfig") or {})
    if secret_name:
        config.pop("sslFiles", None)
        config.pop("sds", None)
        config["secretRef"] = _ref(secret_name, secret_namespace or "gloo-system")
    if sni:
        config[sni_field] = list(sni) if sni_field == "sniDomains" else sni[0]
    changed["sslConfig"] = config
    return changed
