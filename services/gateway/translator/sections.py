"""What takes the connections of a gateway's listener: HTTP, TCP, or several of both told apart by matchers.

A mistake in one of several costs only that one: its last good version stays, or it is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from protos import gateway, gloo
from services.gateway.translator import labels
from services.gateway.translator.model import (
    GW,
    HLO,
    MHG,
    MTG,
    Document,
    Lent,
    MatchableTraits,
    Read,
    Section,
    Step,
    Version,
    all_of,
    report_of,
)
from services.gateway.translator.render import fill_namespaces, lender, lenders
from shared.codec.documents import to_document
from shared.codec.overlay import overlay, taken
from shared.errors import InvalidResource
from shared.ref import Ref, Source
from shared.report import Report
from shared.store.view import ALL

HYBRID = "hybridGateway"
HTTP_OPTIONS = "httpListener.options"
MANAGER = "httpConnectionManagerSettings"
Matchable = gateway.MatchableHttpGateway | gateway.MatchableTcpGateway
Options = TypeVar("Options", gloo.ListenerOptions, gloo.HttpListenerOptions)


@dataclass(slots=True, kw_only=True)
class Sections:
    """The sections of one Gateway in the making; see ``TranslatedGateway`` for what comes of it."""

    ref: Ref
    read: Read
    isolated: bool
    sections: list[Section] = field(default_factory=list)
    reports: dict[Source, Report] = field(default_factory=dict)
    used: set[Source] = field(default_factory=set)
    mended: gateway.Gateway | None = None
    lacking: set[str] = field(default_factory=set)
    spare: dict[str, Section] = field(default_factory=dict)

    @property
    def source(self) -> Source:
        return Source(GW, self.ref)

    @property
    def report(self) -> Report:
        """What is wrong with the Gateway as a whole, and with its sections."""
        return report_of(self.reports, self.source)

    def add(self, written: gateway.Gateway, good: gateway.Gateway | None) -> None:
        """Add those of *written*; raises ``InvalidResource`` if there can be none."""
        here = (Step(self.source),)
        if written.hybrid_gateway is not None:
            self._add_hybrid(written, written.hybrid_gateway, good)
        elif written.http_gateway is not None:
            _check_selection(written.http_gateway, self.report)
            self.sections.append(self._http(here, written.http_gateway, ssl=written.ssl))
        elif written.tcp_gateway is not None:
            self.sections.append(self._tcp(here, written.tcp_gateway))
        elif written.udp_gateway is not None:
            self.sections.append(self._udp(here, written.udp_gateway))
        else:
            kinds = "httpGateway, tcpGateway, hybridGateway or udpGateway"
            raise InvalidResource("", f"has no type: set {kinds}")
        if written.ssl and written.http_gateway is None:
            self.report.warn("ssl", WITHOUT_SSL[_kind(written)])

    def lend(self, kind: str, targets: Sequence[Source], own: Options | None) -> tuple[Options | None, Lent]:
        """*own* options over those of objects that target one of *targets*, and who lends what."""
        lent: dict[str, Source] = {}
        targeting: Mapping[Ref, frozenset[Source]] = self.read(all_of(kind), ALL) or {}
        for target in targets:
            for ref in sorted(ref for ref, names in targeting.items() if target in names):
                version: Version[Any] | None = self.read(kind, ref)
                found = (version.current or version.good) if version is not None else None
                self.used.add(Source(kind, ref))
                if found is None:
                    continue
                if version is not None and version.current is None:
                    text = f"{kind} {ref} is rejected; its last good version serves"
                    report_of(self.reports, target).warn("", text)
                lent |= dict.fromkeys(taken(own, found.options), Source(kind, ref))
                own = overlay(own, found.options)
        return own, lent

    # One section

    def _http(
        self,
        steps: tuple[Step, ...],
        http: gateway.HttpGateway,
        *,
        key: str = "",
        ssl: bool,
        matcher: Document | None = None,
        above: gateway.DelegatedHttpGateway | None = None,
    ) -> Section:
        targets = dict.fromkeys((steps[-1].source, self.source))
        options, lent = self.lend(HLO, list(targets), http.options)
        told = lenders(lent, HTTP_OPTIONS)
        if above is not None and above.http_connection_manager_settings is not None:
            own = options or gloo.HttpListenerOptions()
            merged, inherited = _inherit(
                own.http_connection_manager_settings,
                above.http_connection_manager_settings,
                above.prevent_child_overrides,
            )
            options = replace(own, http_connection_manager_settings=merged)
            step = Step(self.source, f"{HYBRID}.delegatedHttpGateways.{MANAGER}")
            told[:0] = [lender(step, f"{HTTP_OPTIONS}.{MANAGER}", inherited)]
        document: Document = {} if options is None else {"options": to_document(options)}
        if http.stat_prefix:
            document["statPrefix"] = http.stat_prefix
        return Section(
            key=key,
            steps=steps,
            ssl=ssl,
            isolated=self.isolated,
            selection=http,
            matched=({"matcher": matcher} if matcher else {}) | {"httpListener": document},
            lent=tuple(told),
        )

    def _tcp(
        self,
        steps: tuple[Step, ...],
        tcp: gateway.TcpGateway,
        *,
        key: str = "",
        matcher: Document | None = None,
    ) -> Section:
        document = to_document(tcp)
        for host in document.get("tcpHosts", ()):
            fill_namespaces(host.get("destination", {}), steps[-1].source.ref.namespace)
        matched = ({"matcher": matcher} if matcher else {}) | {"tcpListener": document}
        return Section(key=key, steps=steps, matched=matched)

    def _udp(self, steps: tuple[Step, ...], udp: gloo.UdpListener) -> Section:
        document = to_document(udp)
        fill_namespaces({"single": document.get("destination")}, steps[-1].source.ref.namespace)
        return Section(steps=steps, matched={"udpListener": document})

    # Several

    def _add_hybrid(
        self, written: gateway.Gateway, hybrid: gateway.HybridGateway, good: gateway.Gateway | None
    ) -> None:
        if hybrid.matched_gateways:
            for name, given in (
                ("delegatedHttpGateways", hybrid.delegated_http_gateways),
                ("delegatedTcpGateways", hybrid.delegated_tcp_gateways),
            ):
                if given is not None:
                    self.report.warn(f"{HYBRID}.{name}", "has no effect beside matchedGateways")
            kept = self._add_matched(hybrid, good.hybrid_gateway if good is not None else None)
            if kept and kept != hybrid.matched_gateways:
                mended = replace(hybrid, matched_gateways=kept)
                self.mended = replace(written, hybrid_gateway=mended)
            return
        if hybrid.delegated_http_gateways is None and hybrid.delegated_tcp_gateways is None:
            text = "has none: set matchedGateways, delegatedHttpGateways or delegatedTcpGateways"
            raise InvalidResource(HYBRID, text)
        if (http := hybrid.delegated_http_gateways) is not None:
            at = f"{HYBRID}.delegatedHttpGateways"
            for ref in self._chosen(MHG, http.ref, http.selector, at, http.ssl_config is not None):
                self._add_matchable(Source(MHG, ref), at, http)
        if (tcp := hybrid.delegated_tcp_gateways) is not None:
            at = f"{HYBRID}.delegatedTcpGateways"
            for ref in self._chosen(MTG, tcp.ref, tcp.selector, at):
                self._add_matchable(Source(MTG, ref), at, None)

    def _add_matched(
        self, hybrid: gateway.HybridGateway, good: gateway.HybridGateway | None
    ) -> list[gateway.MatchedGateway]:
        """Add those that stand in the Gateway; the versions of them that are used."""
        kept = []
        for i, given in enumerate(hybrid.matched_gateways):
            at, report = f"{HYBRID}.matchedGateways[{i}]", Report()
            section, last = self._matched(given, at, report), _last_good(given, i, hybrid, good)
            before = self._matched(last, at, Report()) if last is not None else None
            if section is not None:
                kept.append(given)
                self._add(section, before)
            elif last is not None and before is not None:
                kept.append(last)
                self.sections.append(before)
            else:
                self.lacking.add(at)
            self.report.add(report, at)
        return kept

    def _matched(self, given: gateway.MatchedGateway, at: str, report: Report) -> Section | None:
        """A section of the Gateway's own; None when there is a mistake in it."""
        matcher = given.matcher or gateway.HybridMatcher()
        steps, document = (Step(self.source, at),), to_document(matcher)
        section = None
        if given.http_gateway is not None:
            _check_selection(given.http_gateway, report)
            ssl = matcher.ssl_config is not None
            section = self._http(steps, given.http_gateway, key=at, ssl=ssl, matcher=document)
        elif given.tcp_gateway is not None:
            section = self._tcp(steps, given.tcp_gateway, key=at, matcher=document)
        else:
            report.error("", "has no type: set httpGateway or tcpGateway")
        return None if report.errors else section

    def _chosen(
        self,
        kind: str,
        named: gloo.ResourceRef | None,
        selector: gloo.Selector | None,
        at: str,
        ssl: bool | None = None,
    ) -> list[Ref]:
        """The matchable gateways that are referred to or selected; *ssl* says which of HTTP can be."""
        known: Mapping[Ref, MatchableTraits] = self.read(all_of(kind), ALL) or {}
        if named is not None:
            ref = Ref(named.namespace or self.ref.namespace, named.name)
            self.used.add(Source(kind, ref))
            traits = known.get(ref)
            if traits is None:
                self.report.warn(f"{at}.ref", f"{kind} {ref} not found")
            elif traits.known and ssl is not None and traits.ssl is not ssl:
                have = "sslConfig in its matcher, and here is none"
                text = have if traits.ssl else "no sslConfig in its matcher, and here is one"
                self.report.warn(f"{at}.ref", f"{kind} {ref} has {text}")
            else:
                return [ref]
            return []
        if selector is None:
            raise InvalidResource(at, "chooses none: set ref or selector")
        labels.check(selector.expressions, f"{at}.selector.expressions")
        everywhere = not selector.namespaces or "*" in selector.namespaces
        chosen = []
        for ref, traits in sorted(known.items(), key=lambda pair: pair[0]):
            if not traits.known:
                self.lacking.add(str(Source(kind, ref)))  # it may have been chosen before
            elif (
                (everywhere or ref.namespace in selector.namespaces)
                and (ssl is None or traits.ssl is ssl)
                and labels.match(traits.labels, selector.labels, selector.expressions)
            ):
                chosen.append(ref)
        if not chosen:
            self.report.warn(f"{at}.selector", f"selects no {kind}")
        return chosen

    def _add_matchable(self, source: Source, at: str, above: gateway.DelegatedHttpGateway | None) -> None:
        self.used.add(source)
        version: Version[Matchable] = self.read(source.kind, source.ref)
        report = report_of(self.reports, source)
        section = self._matchable(source, version.current, at, above, report) if version.current else None
        last = version.fallback
        before = self._matchable(source, last, at, above, Report()) if last is not None else None
        if section is not None:
            self._add(section, before)
        elif before is not None:
            self.report.warn(at, f"{source} is rejected; its last good version serves")
            self.sections.append(before)
        else:
            self.report.warn(at, f"{source} is rejected and left out")
            self.lacking.add(str(source))

    def _add(self, section: Section, before: Section | None) -> None:
        self.sections.append(section)
        if before is not None and before != section:
            self.spare[section.key] = before

    def _matchable(
        self,
        source: Source,
        given: Matchable,
        at: str,
        above: gateway.DelegatedHttpGateway | None,
        report: Report,
    ) -> Section | None:
        """A section from an object of its own; None when there is a mistake in it."""
        steps, key = (Step(self.source, at), Step(source)), str(source)
        document = to_document(given.matcher) if given.matcher is not None else {}
        if isinstance(given, gateway.MatchableTcpGateway):
            if given.tcp_gateway is None:
                report.error("tcpGateway", "is missing")
                return None
            return self._tcp(steps, given.tcp_gateway, key=key, matcher=document)
        if given.http_gateway is None:
            report.error("httpGateway", "is missing")
            return None
        _check_selection(given.http_gateway, report)
        if report.errors:
            return None
        ssl = given.matcher.ssl_config if given.matcher is not None else None
        told = []
        if ssl is not None and above is not None and above.ssl_config is not None:
            merged, inherited = _inherit(ssl, above.ssl_config, above.prevent_child_overrides)
            document["sslConfig"] = to_document(merged)
            step = Step(self.source, f"{at}.sslConfig")
            told = [lender(step, "matcher.sslConfig", inherited)]
        section = self._http(
            steps, given.http_gateway, key=key, ssl=ssl is not None, matcher=document, above=above
        )
        return replace(section, lent=(*told, *section.lent))


WITHOUT_SSL: Mapping[str, str] = {
    "tcp": "has no effect on TCP; each of tcpHosts has an sslConfig of its own",
    "hybrid": "has no effect on a hybrid gateway; the matchers have sslConfigs of their own",
    "udp": "has no effect on UDP",
}

Message = TypeVar("Message", gloo.HttpConnectionManagerSettings, gloo.SslConfig)


def _inherit(child: Message | None, parent: Message, prevent: bool) -> tuple[Message, list[str]]:
    """One over the other, the child over its parent unless that is prevented; what is the parent's."""
    if prevent:
        return overlay(parent, child) or parent, taken(None, parent)
    return overlay(child, parent) or parent, taken(child, parent)


def _last_good(
    given: gateway.MatchedGateway,
    i: int,
    now: gateway.HybridGateway,
    good: gateway.HybridGateway | None,
) -> gateway.MatchedGateway | None:
    """What was at the place of *given*: that with its matcher, or that which stood where it stands."""
    before = good.matched_gateways if good is not None else []
    same = [each for each in before if each.matcher == given.matcher]
    if same:
        return same[0]
    others = [each.matcher for each in now.matched_gateways]
    return before[i] if i < len(before) and before[i].matcher not in others else None


def _kind(written: gateway.Gateway) -> str:
    if written.hybrid_gateway is not None:
        return "hybrid"
    return "tcp" if written.tcp_gateway is not None else "udp"


def _check_selection(http: gateway.HttpGateway, report: Report) -> None:
    """Of the ways to choose virtual services one decides; the others are not passed over in silence."""
    given: Iterable[tuple[str, object]] = (
        ("virtualServiceExpressions", http.virtual_service_expressions),
        ("virtualServiceSelector", http.virtual_service_selector),
        ("virtualServices", http.virtual_services),
    )
    path = "httpGateway"
    names = [name for name, value in given if value]
    for name in names[1:]:
        report.warn(f"{path}.{name}", f"has no effect beside {names[0]}")
    if names[:1] == ["virtualServices"] and http.virtual_service_namespaces:
        report.warn(f"{path}.virtualServiceNamespaces", "has no effect beside virtualServices")
    if http.virtual_service_expressions is not None:
        with report.collect():
            labels.check(
                http.virtual_service_expressions.expressions, f"{path}.virtualServiceExpressions.expressions"
            )
