"""A gateway to the head of a listener: everything but its virtual hosts."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from protos import gateway
from services.gateway.translator import labels
from services.gateway.translator.model import GW, Document, Head, Read, TranslatedGateway, Version
from services.gateway.translator.render import fill_namespaces
from shared.codec.documents import to_document
from shared.errors import InvalidResource
from shared.ref import Ref
from shared.report import Report
from shared.store.keys import check_ref

DEFAULT_PROXY = "gateway-proxy"
MAX_PORT = 65535


def translate_gateway(ref: Ref, read: Read) -> TranslatedGateway:
    """Translate the version as written, and the last good one if that is another."""
    version: Version[gateway.Gateway] = read(GW, ref)
    outcome = TranslatedGateway()
    if version.current is not None:
        report = Report()
        head = _translate(ref, version.current, report)
        outcome = TranslatedGateway(offered=None if report.errors else head, report=report)
    if version.fallback is None:
        return outcome
    unheard = Report()
    head = _translate(ref, version.fallback, unheard)
    return replace(outcome, held=None if unheard.errors else head)


def _translate(ref: Ref, written: gateway.Gateway, report: Report) -> Head | None:
    with report.collect():
        _check_address(written.bind_address)
    if not 0 < written.bind_port <= MAX_PORT:
        report.error("bindPort", f"must be from 1 to {MAX_PORT}, not {written.bind_port}")
    for i, name in enumerate(written.proxy_names):
        with report.collect():
            _check_proxy_name(name, f"proxyNames[{i}]")
    if written.hybrid_gateway is not None:
        report.error("hybridGateway", "not supported yet")
    elif written.http_gateway is None and written.tcp_gateway is None:
        report.error("", "has no type: set httpGateway or tcpGateway")
    listener: Document = {
        "name": f"listener-{written.bind_address}-{written.bind_port}",
        "bindAddress": written.bind_address,
        "bindPort": written.bind_port,
    }
    if written.use_proxy_proto is not None:
        listener["useProxyProto"] = written.use_proxy_proto
    if written.options is not None:
        listener["options"] = to_document(written.options)
    if written.route_options is not None:
        listener["routeOptions"] = to_document(written.route_options)
    if written.tcp_gateway is not None:
        listener["tcpListener"] = _tcp(written.tcp_gateway, ref.namespace)
        if written.ssl:
            report.warn("ssl", "has no effect on TCP; each of tcpHosts has an sslConfig of its own")
    http: Document | None = None
    if written.http_gateway is not None:
        http = {}
        if written.http_gateway.options is not None:
            http["options"] = to_document(written.http_gateway.options)
        _check_selection(written.http_gateway, report)
    return Head(
        name=listener["name"],
        address=written.bind_address,
        port=written.bind_port,
        ssl=written.ssl,
        proxies=tuple(dict.fromkeys(written.proxy_names)) or (DEFAULT_PROXY,),
        selection=written.http_gateway,
        listener=listener,
        http=http,
    )


def _tcp(written: gateway.TcpGateway, namespace: str) -> Document:
    document = to_document(written)
    for host in document.get("tcpHosts", ()):
        fill_namespaces(host.get("destination", {}), namespace)
    return document


def _check_address(address: str) -> None:
    if not address:
        raise InvalidResource("bindAddress", "is missing")
    try:
        ip_address(address)
    except ValueError as error:
        raise InvalidResource("bindAddress", f"{address!r} is no IP address") from error


def _check_proxy_name(name: str, path: str) -> None:
    """A Proxy's name becomes part of its key."""
    try:
        check_ref(Ref("proxy", name))
    except InvalidResource as invalid:
        raise InvalidResource(path, invalid.problem) from invalid


def _check_selection(http: gateway.HttpGateway, report: Report) -> None:
    """Of the ways to choose virtual services one decides; the others are not passed over in silence."""
    given = [
        ("virtualServiceExpressions", http.virtual_service_expressions),
        ("virtualServiceSelector", http.virtual_service_selector),
        ("virtualServices", http.virtual_services),
    ]
    names = [name for name, value in given if value]
    for name in names[1:]:
        report.warn(f"httpGateway.{name}", f"has no effect beside {names[0]}")
    if names[:1] == ["virtualServices"] and http.virtual_service_namespaces:
        report.warn("httpGateway.virtualServiceNamespaces", "has no effect beside virtualServices")
    if http.virtual_service_expressions is not None:
        with report.collect():
            path = "httpGateway.virtualServiceExpressions.expressions"
            labels.check(http.virtual_service_expressions.expressions, path)
