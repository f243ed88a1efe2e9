"""Parts of a Proxy as JSON bytes: rendered once, joined as often as needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from protos import gateway, gloo
from services.gateway.translator.matchers import default_matchers
from services.gateway.translator.model import GW, VS, Document, Lent, Routed, Rules, Step
from services.gateway.translator.proxy import Listener, Placed
from shared.codec.documents import to_document
from shared.incremental.memo import Memo
from shared.ref import Ref, Source
from shared.routes import document_key, sort_routes

OPTIONS_PATH = "options"


class Rendering(Memo[gateway.Route, bytes]):
    """The routes of one virtual service as they were rendered the last time, so that one edited among a
    thousand is the only one rendered."""

    def route(self, routed: Routed) -> bytes:
        """A route of the Proxy, but for its metadata."""
        written = routed.written
        if not routed.own:
            return orjson.dumps(_route(routed))
        rendered = self.known(written)
        return self.keep(written, orjson.dumps(_route(routed)) if rendered is None else rendered)


def render_host(
    ref: Ref, host: gateway.VirtualHost, routes: Iterable[Routed], rendering: Rendering, lent: Lent
) -> bytes:
    """A virtual service alone on its domains, as a virtual host of a Proxy."""
    document: Document = {"name": str(ref), "domains": list(host.domains) or ["*"]}
    if rendered := [_with_metadata(rendering.route(routed), routed) for routed in routes]:
        document["routes"] = rendered
    if host.options is not None:
        document["options"] = to_document(host.options)
    document["metadata"] = metadata([Step(Source(VS, ref), "virtualHost")], lenders(lent))
    return orjson.dumps(document)


def _route(routed: Routed) -> Document:
    written = routed.written
    route = gloo.Route(
        matchers=list(routed.matchers) or default_matchers(),
        route_action=written.route_action,
        redirect_action=written.redirect_action,
        direct_response_action=written.direct_response_action,
        options=routed.options,
        name=routed.name,
    )
    document = to_document(route)
    fill_namespaces(document.get("routeAction", {}), routed.steps[-1].source.ref.namespace)
    return document


def fill_namespaces(action: Document, namespace: str) -> None:
    """Let references without a namespace be to the one of the object that they stand in."""
    members = action.get("multi", {}).get("destinations", ())
    destinations = (action.get("single"), *(member.get("destination") for member in members))
    refs = [destination.get("upstream") for destination in destinations if destination is not None]
    for ref in (*refs, action.get("upstreamGroup")):
        if ref is not None:
            ref.setdefault("namespace", namespace)


def _with_metadata(route: bytes, routed: Routed) -> orjson.Fragment:
    """*route*, an object that is never empty, with one more member."""
    told = orjson.dumps(metadata(routed.steps, lenders(routed.lent)))
    return orjson.Fragment(b'%b,"metadata":%b}' % (route[:-1], told))


def render_ssl(config: gloo.SslConfig, rules: Rules) -> bytes:
    """A virtual service's TLS; equal configurations have equal bytes."""
    if config.one_way_tls is None and rules.one_way_tls is not None:
        config = replace(config, one_way_tls=rules.one_way_tls)
    return orjson.dumps(to_document(config), option=orjson.OPT_SORT_KEYS)


def metadata(steps: Iterable[Step], lent: Sequence[Document] = ()) -> Document:
    """Where a listener, a virtual host or a route came from, in Gloo's form.

    ``path`` is where the route stands in that object's document, for the findings of later stages. So is what
    is *lent*: whose options these are in truth.
    """
    document: Document = {"sources": [_source(step) for step in steps]}
    return document | {"options": list(lent)} if lent else document


def lenders(lent: Lent, of: str = OPTIONS_PATH) -> list[Document]:
    """Who lends which of the options at *of*, all of them objects with ``options``."""
    fields: dict[Source, list[str]] = {}
    for name, source in lent.items():
        fields.setdefault(source, []).append(name)
    return [lender(Step(source, OPTIONS_PATH), of, names) for source, names in fields.items()]


def lender(step: Step, of: str, fields: Sequence[str]) -> Document:
    """One who lends *fields* of what is at *of*; its step's path is where they stand with it."""
    document = _source(step) | {"fields": list(fields)}
    return document if of == step.path else document | {"of": of}


def _source(step: Step) -> Document:
    source, ref = step.source, step.source.ref
    document: Document = {"kind": f"*v1.{source.kind}", "name": ref.name, "namespace": ref.namespace}
    if step.path:
        document["path"] = step.path
    return document


def merge_hosts(name: str, bodies: Sequence[bytes]) -> bytes:
    """Virtual services with the same domains as one virtual host, the routes in Gloo's order.

    The owner of the options, of which there is at most one, is the last source: that is the one whom
    findings about the host go to, and a part can be taken out of a stored host again.
    """
    given: list[Mapping[str, Any]] = [orjson.loads(body) for body in bodies]
    hosts = sorted(given, key=lambda host: "options" in host)
    routes = sort_routes([route for host in given for route in host.get("routes", ())], document_key)
    document: Document = {"name": name, "domains": hosts[-1]["domains"]}
    if routes:
        document["routes"] = routes
    if "options" in hosts[-1]:
        document["options"] = hosts[-1]["options"]
    document["metadata"] = {"sources": [source for host in hosts for source in host["metadata"]["sources"]]}
    return orjson.dumps(document)


def render_listener(listener: Listener) -> Document:
    """A listener without its virtual hosts.

    Its metadata also names, for each TLS configuration, the virtual services that brought it, and so for each
    of its matched listeners.
    """
    head = listener.head
    document = dict(head.listener)
    origin = metadata([Step(Source(GW, listener.gateway))], head.lent)
    if head.hybrid:
        matched = [_matched(placed) for placed in listener.placed]
        document["hybridListener"] = {"matchedListeners": matched} if matched else {}
        if matched:
            origin["matchedListeners"] = [_origin(placed) for placed in listener.placed]
    else:
        for placed in listener.placed:  # there is one
            document |= _matched(placed)
            origin = _origin(placed, head.lent)
    document["metadata"] = origin
    return document


def _matched(placed: Placed) -> Document:
    document: Document = {name: dict(part) for name, part in placed.section.matched.items()}
    if placed.ssl:
        document["sslConfigurations"] = [orjson.loads(config) for config, _ in placed.ssl]
    return document


def _origin(placed: Placed, lent: Sequence[Document] = ()) -> Document:
    origin = metadata(placed.section.steps, [*lent, *placed.section.lent])
    if placed.ssl:
        origin["sslConfigurations"] = [
            metadata(Step(Source(VS, ref), "sslConfig") for ref in refs) for _, refs in placed.ssl
        ]
    return origin
