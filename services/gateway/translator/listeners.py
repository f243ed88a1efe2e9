"""A gateway to the head of a listener: everything but its virtual hosts."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from protos import gateway
from services.gateway.translator.model import (
    GW,
    LO,
    RULES,
    Document,
    Head,
    Read,
    Rules,
    TranslatedGateway,
    Version,
)
from services.gateway.translator.render import lenders
from services.gateway.translator.sections import Sections
from shared.codec.documents import to_document
from shared.errors import InvalidResource
from shared.ref import Ref, Source
from shared.report import Report
from shared.store.keys import check_ref
from shared.store.view import ALL

ISOLATE = "gateway.solo.io/isolate_vhost"  # an annotation
DEFAULT_PROXY = "gateway-proxy"
MAX_PORT = 65535


def translate_gateway(ref: Ref, read: Read) -> TranslatedGateway:
    """Translate the version as written, and the last good one if that is another."""
    version: Version[gateway.Gateway] = read(GW, ref)
    outcome = TranslatedGateway()
    if version.current is not None:
        outcome = _translate(ref, version.current, version.fallback, read)
    if version.fallback is None:
        return outcome
    last = _translate(ref, version.fallback, None, read)
    return replace(outcome, held=last.offered, used=outcome.used | last.used)


def _translate(
    ref: Ref, written: gateway.Gateway, good: gateway.Gateway | None, read: Read
) -> TranslatedGateway:
    source = Source(GW, ref)
    report = Report()
    with report.collect():
        _check_address(written.bind_address)
    if not 0 < written.bind_port <= MAX_PORT:
        report.error("bindPort", f"must be from 1 to {MAX_PORT}, not {written.bind_port}")
    for i, name in enumerate(written.proxy_names):
        with report.collect():
            _check_proxy_name(name, f"proxyNames[{i}]")
    made = Sections(read=read, ref=ref, isolated=_isolates(written, read))
    with report.collect():
        made.add(written, good)
    options, lent = made.lend(LO, [source], written.options)
    broken = bool(report.errors or (made.report.errors and written.hybrid_gateway is None))
    made.report.errors[:0] = report.errors
    listener: Document = {
        "name": _name(written),
        "bindAddress": written.bind_address,
        "bindPort": written.bind_port,
    }
    if written.use_proxy_proto is not None:
        listener["useProxyProto"] = written.use_proxy_proto
    if options is not None:
        listener["options"] = to_document(options)
    if written.route_options is not None:
        listener["routeOptions"] = to_document(written.route_options)
    head = Head(
        name=listener["name"],
        address=written.bind_address,
        port=written.bind_port,
        proxies=tuple(dict.fromkeys(written.proxy_names)) or (DEFAULT_PROXY,),
        hybrid=written.hybrid_gateway is not None
        or any(section.isolated and section.ssl for section in made.sections),
        listener=listener,
        lent=tuple(lenders(lent)),
        sections=tuple(made.sections),
    )
    return TranslatedGateway(
        offered=None if broken else head,
        used=frozenset(made.used),
        reports=made.reports,
        mended=made.mended,
        lacking=frozenset(made.lacking),
        spare=made.spare,
    )


def _name(written: gateway.Gateway) -> str:
    """A port of UDP is not the same as that of TCP."""
    name = f"listener-{written.bind_address}-{written.bind_port}"
    return name if written.udp_gateway is None else f"{name}-udp"


def _isolates(written: gateway.Gateway, read: Read) -> bool:
    """Whether each TLS configuration has virtual hosts of its own; a Gateway may decide for itself."""
    rules: Rules = read(RULES, ALL)
    said = (written.metadata.annotations if written.metadata is not None else {}).get(ISOLATE)
    return rules.isolate_by_tls if said is None else said == "true"


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
