"""Proxies to what their Envoys get of their own: listeners and route configurations.

A virtual host is the unit: it is translated again when it differs or when something it looked at does. A
route configuration is joined from its hosts' bytes. What is broken keeps its last good version.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from protos import gloo
from services.gloo.memory import Memory
from services.gloo.parts import WHOLE, domains_of
from services.gloo.plugin import Policy
from services.gloo.resources import EMPTY, Resource, Resources
from services.gloo.sanitize import choose_host, choose_resource, fallback_resources, has_errors
from services.gloo.translator.addresses import listener_conflicts
from services.gloo.translator.consul import ConsulSelection, destination_cluster_name
from services.gloo.translator.filter_chains import ALL_TAKEN, Configurations, Remembered, Trying
from services.gloo.translator.forwarding import forwarding_by, unsettled
from services.gloo.translator.hybrid import HttpPart, fetches, http_parts, translate_any
from services.gloo.translator.listener import Surroundings, TranslatedListener
from services.gloo.translator.names import http3_name
from services.gloo.translator.patches import looked_at
from services.gloo.translator.proxy import check_proxy, max_body, merge_reports
from services.gloo.translator.scripts import scripts_in
from services.gloo.translator.secret import names_asked_for
from services.gloo.translator.sources import Origin, Reports, attribute, origins_of
from services.gloo.translator.virtual_host import (
    TranslatedHost,
    find_conflicts,
    join_route_configuration,
    translate_virtual_host,
)
from services.gloo.xds.wire import mentions
from shared.incremental.units import Key, Read, Units
from shared.ref import Ref, Source
from shared.report import Report

Named = TypeVar("Named", gloo.Listener, gloo.VirtualHost)
OfHttp = TypeVar("OfHttp", gloo.Listener, gloo.MatchedListener)


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What of a listener its virtual hosts are translated with."""

    max_body: int
    options: gloo.HttpListenerOptions  # those that routes look at


@dataclass(slots=True, kw_only=True, eq=False)
class Host:
    """A virtual host of a listener, a unit: what it is translated from, and its last good version."""

    ref: Ref
    routes: str  # the name of the route configuration
    message: gloo.VirtualHost
    around: Around
    place: tuple[int, str, int]  # of the listener in its Proxy, of HTTP in that, and of the host there
    good: TranslatedHost | None = None

    @property
    def path(self) -> str:
        return "listeners[{}].{}.virtualHosts[{}]".format(*self.place)

    def take(self, message: gloo.VirtualHost, around: Around, place: tuple[int, str, int]) -> bool:
        """Take over what stands in the Proxy now; whether it is to be translated again.

        The place counts only where problems have no other place to go.
        """
        same = self.around is around and (self.message is message or self.message == message)
        if same and self.place != place:
            same = message.metadata is not None or message.metadata_static is not None
        self.message, self.around, self.place = message, around, place
        return not same


@dataclass(slots=True)
class ListenerUnit:
    """A listener as it was translated last: from what, what it looked at, and what came of it."""

    given: tuple[Any, ...] = ()
    looked: dict[Key, Any] = field(default_factory=dict)
    trying: Trying = ALL_TAKEN
    known: Configurations = field(default_factory=Configurations)
    done: TranslatedListener | None = None


@dataclass(slots=True)
class Sheet:
    """The virtual hosts of a route configuration in their order, and how they were put together last."""

    around: Around
    hosts: dict[str, Host] = field(default_factory=dict)
    chosen: Sequence[TranslatedHost] = ()
    problems: Mapping[int, Sequence[str]] = field(default_factory=dict)


@dataclass(slots=True)
class Entry:
    """A listener, and the virtual hosts of all it has of HTTP, by route configuration."""

    listener: ListenerUnit = field(default_factory=ListenerUnit)
    sheets: dict[str, Sheet] = field(default_factory=dict)


@dataclass(slots=True)
class ServedProxy:
    """A Proxy as it is served: its own resources, and what there is to say about it."""

    listeners: Resources = EMPTY
    routes: Resources = EMPTY
    reports: Reports = field(default_factory=dict)
    selections: frozenset[ConsulSelection] = frozenset()
    clusters: Resources = EMPTY  # that forward to any host
    secrets: Mapping[str, frozenset[Source]] = field(default_factory=dict)  # by name, and for whom
    tried: Mapping[str, frozenset[Source]] = field(default_factory=dict)  # those nobody refers to yet
    scripts: frozenset[str] = frozenset()  # that are used
    partial: tuple[tuple[str, str], ...] = ()  # hosts without their broken routes, by route configuration


class Proxies:
    """``served`` is for reading. Feed ``put`` and ``drop``, then ``translate`` units, then ``build``."""

    def __init__(
        self, policy: Policy, memory: Memory, takes: Callable[[Ref, str], bool] = lambda ref, name: True
    ) -> None:
        """*takes* says whether an Envoy of a Proxy has taken the secret of that name."""
        self.served: dict[Ref, ServedProxy] = {}
        self._memory = memory
        self._takes = takes
        self._policy = policy
        self._proxies: dict[Ref, gloo.Proxy] = {}
        self._entries: dict[Ref, dict[str, Entry]] = {}
        self._units: Units[Host, TranslatedHost] = Units(self._translate)
        self._fallback = fallback_resources(policy)[1:] if policy.replace_invalid_routes else ()

    @property
    def computed(self) -> int:
        """How many virtual hosts were translated so far."""
        return self._units.computed

    def put(self, ref: Ref, proxy: gloo.Proxy) -> tuple[list[Host], list[Host]]:
        """Take over a new or changed Proxy; the units to translate, and those that are gone."""
        before, entries = self._entries.get(ref, {}), dict[str, Entry]()
        changed: list[Host] = []
        for i, (name, given) in enumerate(_told_apart(proxy.listeners)):
            known = before.get(name, Entry())
            entry = entries[name] = Entry(known.listener)
            for part in http_parts(given):
                sheet, differing = _sheet(ref, i, given, part, known.sheets.get(part.routes))
                entry.sheets[part.routes] = sheet
                changed += differing
        self._proxies[ref], self._entries[ref] = proxy, entries
        return changed, [*_hosts(before).difference(_hosts(entries))]

    def drop(self, ref: Ref) -> list[Host]:
        self._proxies.pop(ref, None)
        self.served.pop(ref, None)
        self._memory.forget(ref)
        return [*_hosts(self._entries.pop(ref, {}))]

    def readers(self, looked_at: Collection[Key]) -> set[Host]:
        """The units to translate again because of what they looked at."""
        return self._units.readers(looked_at)

    def translate(
        self, get: Callable[[Key], object], put: Iterable[Host] = (), drop: Iterable[Host] = ()
    ) -> set[Ref]:
        """Translate units; the Proxies to build again for what came of it."""
        return {host.ref for host in self._units.update((), get, put=put, drop=drop)}

    def refused(self, ref: Ref, routes: str, part: str, text: str, good: bytes | None) -> Reports:
        """An Envoy's refusal of a part of a route configuration, handed to the objects it is made of."""
        proxy = self._proxies.get(ref)
        for given, entry in zip(proxy.listeners, self._entries[ref].values(), strict=True) if proxy else ():
            sheet = entry.sheets.get(routes)
            if sheet is None:
                continue
            if part == WHOLE:
                reports, report = Reports(), Report()
                report.error("", text)
                attribute(report, origins_of(given), reports)
                return reports
            for host in sheet.hosts.values():
                if (value := self._units.values.get(host)) is not None and value.name == part:
                    return value.refused(text, unsettled(good, routes) if good else good)
        return {}

    def looked_at(self, keys: Set[Key]) -> set[Ref]:
        """The Proxies to build again because their listeners looked at one of *keys*."""
        return {
            ref
            for ref, entries in self._entries.items()
            if any(not keys.isdisjoint(entry.listener.looked) for entry in entries.values())
        }

    def tried_out(self) -> set[Ref]:
        """The Proxies to build again because an Envoy has taken what their listeners waited for."""
        return {
            ref
            for ref, entries in self._entries.items()
            if any(self._tried_out(ref, entry.listener) for entry in entries.values())
        }

    def _tried_out(self, ref: Ref, unit: ListenerUnit) -> bool:
        return any(self._takes(ref, name) for name in unit.trying.untaken)

    @property
    def looks(self) -> Iterator[Iterable[Key]]:
        """What each listener looks at; the very same value until it is translated again."""
        return (entry.listener.looked for entries in self._entries.values() for entry in entries.values())

    def tls(self, ref: Ref) -> dict[str, Mapping[Origin, gloo.SslConfig]]:
        """The last good TLS configurations, by listener and where they stand."""
        units = ((name, entry.listener) for name, entry in self._entries.get(ref, {}).items())
        return {name: unit.done.tls for name, unit in units if unit.done is not None and unit.done.tls}

    def build(self, ref: Ref, get: Callable[[Key], Any]) -> ServedProxy:
        """Join the Proxy's hosts and listeners to what its Envoys get; *get* looks at other objects."""
        proxy, owner, before = self._proxies[ref], Source("Proxy", ref), self.served.get(ref, ServedProxy())
        reports: Reports = {owner: check_proxy(proxy)}
        listeners, routes = list(self._fallback[:1]), list(self._fallback[1:])
        selections: set[ConsulSelection] = set()
        clusters: dict[str, Resource] = {}
        forwarding = {**self._memory.forward_proxies(ref), **before.clusters.by_name}
        partial: list[tuple[str, str]] = []
        secrets: dict[str, frozenset[Source]] = {}
        tried: dict[str, frozenset[Source]] = {}
        scripts: set[str] = set()
        conflicts = listener_conflicts(proxy.listeners)
        for i, (given, entry) in enumerate(zip(proxy.listeners, self._entries[ref].values(), strict=True)):
            last_good = self._served(ref, given.name)
            done = self._listener(entry.listener, given, i, owner, conflicts.get(i, ""), get, last_good)
            merge_reports(reports, done.reports)
            errors = done.resource is None and has_errors(done.reports)
            made = choose_resource(done.resource, errors, last_good)
            hosts = {
                name: self._served_hosts(sheet, reports, partial) if i not in conflicts else []
                for name, sheet in entry.sheets.items()
            }
            if made is not None and made.name not in {each.name for each in listeners}:
                listeners.append(made)
                clusters |= {each.name: each for each in done.clusters}
                listeners += self._beside(ref, made, done)
                asking = done.secrets
                if made is not done.resource:
                    asking = dict.fromkeys(names_asked_for(made.body), made.sources)
                for secret, sources in asking.items():
                    secrets[secret] = secrets.get(secret, frozenset()) | sources
                for secret, sources in entry.listener.trying.tried.items():
                    tried[secret] = tried.get(secret, frozenset()) | sources
                for name, some in hosts.items():
                    if fetches(made, name):
                        to = forwarding_by(name, done.clusters, forwarding.values())
                        routes.append(
                            join_route_configuration(name, some, given.route_options, forwarding_by=to)
                        )
                        selections.update(*(host.selections for host in some))
                        scripts.update(*(host.scripts for host in some))
                if given.http_listener is None or made is not done.resource:  # some may go on as it was
                    there = {**self._memory.routes(ref), **before.routes.by_name}
                    going_on = [there[name] for name in there if name not in hosts and fetches(made, name)]
                    routes += going_on
                    scripts.update(*(scripts_in(each.body) for each in going_on))
                    selections |= done.selections | self._selected(made, before)
        clusters |= {  # those that were not made anew, but that some still need
            name: each
            for name, each in forwarding.items()
            if name not in clusters and any(mentions(one.body, [name.encode()]) for one in routes)
        }
        for cluster in clusters.values():
            for secret in names_asked_for(cluster.body):
                secrets[secret] = secrets.get(secret, frozenset()) | cluster.sources
        served = ServedProxy(
            listeners=before.listeners.patched(put=listeners, drop=_others(before.listeners, listeners)),
            routes=before.routes.patched(put=routes, drop=_others(before.routes, routes)),
            reports=reports,
            selections=frozenset(selections),
            clusters=before.clusters.patched(
                put=clusters.values(), drop=before.clusters.by_name.keys() - clusters.keys()
            ),
            secrets=secrets,
            tried=tried,
            scripts=frozenset(scripts),
            partial=tuple(partial),
        )
        self.served[ref] = served
        self._memory.forget(ref)
        return served

    def _beside(self, ref: Ref, made: Resource, done: TranslatedListener) -> Iterable[Resource]:
        """The listener of HTTP/3 that goes with one, *made* anew or as it was."""
        name = http3_name(made.name)
        if any(each.name == name for each in self._proxies[ref].listeners):
            return ()  # it is another's
        beside = done.http3 if made is done.resource else self._served(ref, name)
        return [beside] if beside is not None else ()

    def _served(self, ref: Ref, listener: str) -> Resource | None:
        """A listener as it is served until now."""
        before = self.served.get(ref, ServedProxy())
        return before.listeners.by_name.get(listener) or self._memory.listener(ref, listener)

    def _selected(self, made: Resource, before: ServedProxy) -> set[ConsulSelection]:
        """What `consul` destinations chose before, as far as *made* still names it."""
        known = self._memory.known() | {destination_cluster_name(each): each for each in before.selections}
        return {each for name, each in known.items() if mentions(made.body, [name.encode()])}

    def _listener(
        self,
        unit: ListenerUnit,
        given: gloo.Listener,
        i: int,
        owner: Source,
        conflict: str,
        get: Callable[[Key], Any],
        served: Resource | None,
    ) -> TranslatedListener:
        """A listener, translated again when it differs in more than its virtual hosts."""
        head = _without_hosts(given)
        now = (i, conflict, head)
        same = unit.given == now and all(get(key) == value for key, value in unit.looked.items())
        if unit.done is not None and same and not self._tried_out(owner.ref, unit):
            return unit.done
        looked: dict[Key, Any] = {}

        def read(kind: str, name: Ref) -> Any:
            value = looked[kind, name] = get((kind, name))
            return value

        trying = Trying(lambda name: self._takes(owner.ref, name))
        last_good = unit.done.tls if unit.done is not None else self._memory.tls(owner.ref, given.name)
        around = Surroundings(
            path=f"listeners[{i}]",
            owner=owner,
            conflict=conflict,
            policy=self._policy,
            read=read,
            served=served,
            remembered=Remembered(last_good=last_good, trying=trying, known=unit.known),
        )
        unit.done = translate_any(given, around)
        unit.given, unit.looked, unit.trying = now, looked, trying
        return unit.done

    def _served_hosts(
        self, sheet: Sheet, reports: Reports, partial: list[tuple[str, str]]
    ) -> list[TranslatedHost]:
        """The listener's virtual hosts that can stand beside each other; findings go to *reports*."""
        self._tell_failures(sheet, reports)
        hosts = [host for host in sheet.hosts.values() if host in self._units.values]
        chosen = [self._chosen(host) for host in hosts]
        if not _alike(chosen, sheet.chosen):
            sheet.problems = find_conflicts(chosen)
        sheet.chosen = chosen
        served = []
        for i, (host, one) in enumerate(zip(hosts, chosen, strict=True)):
            if one.reports:
                merge_reports(reports, one.reports)
            if i in sheet.problems:
                merge_reports(reports, one.report_of(*sheet.problems[i]))
                continue
            whole = not one.reports or not one.broken
            if whole:
                host.good = one
            if one.body:
                served.append(one)
                if not whole and host.good is None:
                    partial.append((host.routes, one.name))
        return served

    def _chosen(self, host: Host) -> TranslatedHost:
        """What to serve of a host. One broken from the start has the last good version served before it."""
        value = self._units.values[host]
        if not value.reports or not value.broken:
            return value
        if host.good is None:
            body = self._memory.host(host.ref, host.routes, value.name)
            if body is not None:
                selections = self._memory.selections(body)
                host.good = replace(
                    value,
                    body=body,
                    domains=tuple(domains_of(body)),
                    selections=selections,
                    scripts=scripts_in(body),
                )
        return choose_host(value, host.good)

    def _tell_failures(self, sheet: Sheet, reports: Reports) -> None:
        for name, host in sheet.hosts.items() if self._units.failures else ():
            if (failure := self._units.failures.get(host)) is not None:
                text = f"virtual host {name}: internal error, its last good version is served: {failure!r}"
                reports.setdefault(Source("Proxy", host.ref), Report()).error("", text)

    def _translate(self, host: Host, read: Read) -> TranslatedHost:
        return translate_virtual_host(
            host.message,
            host.path,
            Source("Proxy", host.ref),
            read,
            self._policy,
            max_body=host.around.max_body,
            listener=host.around.options,
            routes=host.routes,
            previous=self._units.values.get(host),
        )


def _without_hosts(given: gloo.Listener) -> gloo.Listener:
    """A listener but for its virtual hosts, of which it counts only whether there are some."""
    if given.hybrid_listener is not None:
        parts = [_without_hosts_of(each) for each in given.hybrid_listener.matched_listeners]
        return replace(given, hybrid_listener=gloo.HybridListener(matched_listeners=parts))
    return _without_hosts_of(given)


def _without_hosts_of(given: OfHttp) -> OfHttp:
    http = given.http_listener
    if http is None:
        return given
    some = [gloo.VirtualHost()] if http.virtual_hosts else []
    return replace(given, http_listener=replace(http, virtual_hosts=some))


def _sheet(
    ref: Ref, i: int, given: gloo.Listener, part: HttpPart, before: Sheet | None
) -> tuple[Sheet, list[Host]]:
    """A part's hosts, those of *before* that still stand there among them, and those to translate."""
    options = looked_at(part.http.options, gloo.HttpListenerOptions)
    around = Around(max_body=max_body(given), options=options)
    if before is not None and before.around == around:
        around = before.around
    sheet, changed = Sheet(around), list[Host]()
    if before is not None:
        sheet.chosen, sheet.problems = before.chosen, before.problems
    for j, (name, message) in enumerate(_told_apart(part.http.virtual_hosts)):
        host, place = before.hosts.get(name) if before is not None else None, (i, part.path, j)
        if host is None:
            host = Host(ref=ref, routes=part.routes, message=message, around=around, place=place)
            changed.append(host)
        elif host.take(message, around, place):
            changed.append(host)
        sheet.hosts[name] = host
    return sheet, changed


def _told_apart(parts: Iterable[Named]) -> Iterator[tuple[str, Named]]:
    """Parts by name; of several with one name the later ones are told apart by number."""
    seen: dict[str, int] = {}
    for part in parts:
        number = seen[part.name] = seen.get(part.name, 0) + 1
        yield part.name if number == 1 else f"{part.name}#{number}", part


def _hosts(entries: Mapping[str, Entry]) -> set[Host]:
    sheets = (sheet for entry in entries.values() for sheet in entry.sheets.values())
    return {host for sheet in sheets for host in sheet.hosts.values()}


def _alike(hosts: Sequence[TranslatedHost], others: Sequence[TranslatedHost]) -> bool:
    """Whether all have the names and domains of the others."""
    return len(hosts) == len(others) and all(
        one is other or (one.name == other.name and one.domains == other.domains)
        for one, other in zip(hosts, others, strict=True)
    )


def _others(resources: Resources, kept: Iterable[Resource]) -> list[str]:
    names = {each.name for each in kept}
    return [name for name in resources.by_name if name not in names]


def proxy_findings(reports: Reports, owner: Source) -> Report:
    """All that was found in a Proxy as one report: what belongs to another object is named with it."""
    whole = Report()
    for source in sorted(reports):
        if source == owner:
            whole.add(reports[source])
            continue
        for problem in reports[source].errors:
            whole.error("", f"{source}: {problem}")
        for problem in reports[source].warnings:
            whole.warn("", f"{source}: {problem}")
    return whole
