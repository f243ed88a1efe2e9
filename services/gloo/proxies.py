"""Proxies to what their Envoys get of their own: listeners and route configurations.

A virtual host is the unit: it is translated again when it differs or when something it looked at does. A
route configuration is joined from its hosts' bytes. What is broken keeps its last good version.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from protos import gloo
from services.gloo.memory import Memory
from services.gloo.parts import WHOLE, domains_of
from services.gloo.plugin import Policy
from services.gloo.resources import EMPTY, Resource, Resources
from services.gloo.sanitize import choose_host, choose_resource, fallback_resources, has_errors
from services.gloo.translator.consul import ConsulSelection
from services.gloo.translator.listener import listener_conflicts, translate_listener
from services.gloo.translator.names import route_configuration_name
from services.gloo.translator.patches import looked_at
from services.gloo.translator.proxy import check_proxy, max_body, merge_reports
from services.gloo.translator.sources import Reports, attribute, origins_of
from services.gloo.translator.virtual_host import (
    TranslatedHost,
    find_conflicts,
    join_route_configuration,
    translate_virtual_host,
)
from shared.incremental.units import Key, Read, Units
from shared.ref import Ref, Source
from shared.report import Report

HostKey: TypeAlias = tuple[Ref, str, str]
"""Proxy, listener's name, virtual host's name."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HostInput:
    """What a virtual host is translated from, beside what it reads."""

    message: gloo.VirtualHost
    path: str
    max_body: int
    listener: gloo.HttpListenerOptions  # those that routes look at

    def same_as(self, other: HostInput | None) -> bool:
        """The path counts only where problems have no other place to go."""
        if other is None or (self.max_body, self.listener) != (other.max_body, other.listener):
            return False
        told = self.message.metadata is not None or self.message.metadata_static is not None
        return (told or self.path == other.path) and (
            self.message is other.message or self.message == other.message
        )


@dataclass(slots=True)
class ServedProxy:
    """A Proxy as it is served: its own resources, and what there is to say about it."""

    listeners: Resources = EMPTY
    routes: Resources = EMPTY
    reports: Reports = field(default_factory=dict)
    selections: frozenset[ConsulSelection] = frozenset()
    partial: tuple[tuple[str, str], ...] = ()  # hosts without their broken routes, by route configuration


class Proxies:
    """``served`` is for reading. Feed ``put`` and ``drop``, then ``translate`` units, then ``build``."""

    def __init__(self, policy: Policy, memory: Memory) -> None:
        self.served: dict[Ref, ServedProxy] = {}
        self._memory = memory
        self._policy = policy
        self._proxies: dict[Ref, gloo.Proxy] = {}
        self._inputs: dict[HostKey, HostInput] = {}
        self._hosts_of: dict[Ref, set[HostKey]] = {}
        self._good: dict[HostKey, TranslatedHost] = {}
        self._units: Units[HostKey, TranslatedHost] = Units(self._translate)
        self._fallback = [fallback_resources(policy)[1]] if policy.replace_invalid_routes else []

    @property
    def computed(self) -> int:
        """How many virtual hosts were translated so far."""
        return self._units.computed

    @property
    def failures(self) -> Mapping[HostKey, Exception]:
        """Virtual hosts on which translation itself failed; they keep their last value."""
        return self._units.failures

    def put(self, ref: Ref, proxy: gloo.Proxy) -> tuple[list[HostKey], list[HostKey]]:
        """Take over a new or changed Proxy; the units to translate, and those that are gone."""
        self._proxies[ref] = proxy
        wanted = dict(self._inputs_of(ref, proxy))
        changed = [key for key, given in wanted.items() if not given.same_as(self._inputs.get(key))]
        gone = [key for key in self._hosts_of.get(ref, ()) if key not in wanted]
        self._inputs.update(wanted)
        self._hosts_of[ref] = set(wanted)
        self._forget(gone)
        return changed, gone

    def drop(self, ref: Ref) -> list[HostKey]:
        self._proxies.pop(ref, None)
        self.served.pop(ref, None)
        self._memory.forget(ref)
        gone = list(self._hosts_of.pop(ref, ()))
        self._forget(gone)
        return gone

    def readers(self, looked_at: Collection[Key]) -> set[HostKey]:
        """The units to translate again because of what they looked at."""
        return self._units.readers(looked_at)

    def translate(
        self, get: Callable[[Key], object], put: Iterable[HostKey] = (), drop: Iterable[HostKey] = ()
    ) -> set[Ref]:
        """Translate units; the Proxies to build again for what came of it."""
        return {key[0] for key in self._units.update((), get, put=put, drop=drop)}

    def refused(self, ref: Ref, routes: str, part: str, text: str, good: bytes | None) -> Reports:
        """An Envoy's refusal of a part of a route configuration, handed to the objects it is made of."""
        for given in self._proxies[ref].listeners if ref in self._proxies else ():
            if route_configuration_name(given.name) != routes:
                continue
            if part == WHOLE:
                reports, report = Reports(), Report()
                report.error("", text)
                attribute(report, origins_of(given), reports)
                return reports
            for key in _keys(ref, given):
                if (host := self._units.values.get(key)) is not None and host.name == part:
                    return host.refused(text, good)
        return {}

    def build(self, ref: Ref) -> ServedProxy:
        """Join the Proxy's hosts and listeners to what its Envoys get."""
        proxy, owner, before = self._proxies[ref], Source("Proxy", ref), self.served.get(ref, ServedProxy())
        reports: Reports = {owner: check_proxy(proxy)}
        listeners, routes = list(self._fallback), []
        selections: set[ConsulSelection] = set()
        partial: list[tuple[str, str]] = []
        conflicts = listener_conflicts(proxy.listeners)
        for i, given in enumerate(proxy.listeners):
            made, found = translate_listener(
                given, f"listeners[{i}]", owner, self._policy, conflicts.get(i, "")
            )
            merge_reports(reports, found)
            last_good = before.listeners.by_name.get(given.name) or self._memory.listener(ref, given.name)
            made = choose_resource(made, has_errors(found), last_good)
            hosts = self._served_hosts(ref, given, reports, partial) if i not in conflicts else []
            if made is not None and made.name not in {each.name for each in listeners}:
                name = route_configuration_name(given.name)
                listeners.append(made)
                routes.append(join_route_configuration(name, hosts, given.route_options))
                selections.update(*(host.selections for host in hosts))
        served = ServedProxy(
            listeners=before.listeners.patched(put=listeners, drop=_others(before.listeners, listeners)),
            routes=before.routes.patched(put=routes, drop=_others(before.routes, routes)),
            reports=reports,
            selections=frozenset(selections),
            partial=tuple(partial),
        )
        self.served[ref] = served
        self._memory.forget(ref)
        return served

    def _served_hosts(
        self, ref: Ref, given: gloo.Listener, reports: Reports, partial: list[tuple[str, str]]
    ) -> list[TranslatedHost]:
        """The listener's virtual hosts that can stand beside each other; findings go to *reports*."""
        for key in _keys(ref, given):
            if (failure := self._units.failures.get(key)) is not None:
                text = f"virtual host {key[2]}: internal error, its last good version is served: {failure!r}"
                reports.setdefault(Source("Proxy", ref), Report()).error("", text)
        keys = [key for key in _keys(ref, given) if key in self._units.values]
        self._remember(keys)
        hosts = [choose_host(self._units.values[key], self._good.get(key)) for key in keys]
        problems = find_conflicts(hosts)
        served = []
        for i, (key, host) in enumerate(zip(keys, hosts, strict=True)):
            if not host.broken and i not in problems:
                self._good[key] = host
            for found in (host.reports, host.report_of(*problems.get(i, ()))):
                merge_reports(reports, found)
            if i not in problems and host.body:
                served.append(host)
                if host.broken and key not in self._good:
                    partial.append((route_configuration_name(given.name), host.name))
        return served

    def _remember(self, keys: Iterable[HostKey]) -> None:
        """Give hosts that are broken from the start the last good version that was served before it."""
        for key in keys:
            host = self._units.values[key]
            if not host.broken or key in self._good:
                continue
            body = self._memory.host(key[0], route_configuration_name(key[1]), host.name)
            if body is not None:
                selections = self._memory.selections(body)
                self._good[key] = replace(
                    host, body=body, domains=tuple(domains_of(body)), selections=selections
                )

    def _inputs_of(self, ref: Ref, proxy: gloo.Proxy) -> Iterable[tuple[HostKey, HostInput]]:
        for i, given in enumerate(proxy.listeners):
            if given.http_listener is None:
                continue
            options = looked_at(given.http_listener.options, gloo.HttpListenerOptions)
            for j, (key, host) in enumerate(
                zip(_keys(ref, given), given.http_listener.virtual_hosts, strict=True)
            ):
                path = f"listeners[{i}].httpListener.virtualHosts[{j}]"
                yield (
                    key,
                    HostInput(message=host, path=path, max_body=max_body(given), listener=options),
                )

    def _translate(self, key: HostKey, read: Read) -> TranslatedHost:
        given, owner = self._inputs[key], Source("Proxy", key[0])
        return translate_virtual_host(
            given.message,
            given.path,
            owner,
            read,
            self._policy,
            max_body=given.max_body,
            listener=given.listener,
            previous=self._units.values.get(key),
        )

    def _forget(self, keys: Iterable[HostKey]) -> None:
        for key in keys:
            self._inputs.pop(key, None)
            self._good.pop(key, None)


def _keys(ref: Ref, given: gloo.Listener) -> list[HostKey]:
    """The units of a listener's hosts; of several with one name the later ones are told apart by number."""
    seen: dict[str, int] = {}
    keys = []
    for host in given.http_listener.virtual_hosts if given.http_listener else []:
        number = seen[host.name] = seen.get(host.name, 0) + 1
        keys.append((ref, given.name, host.name if number == 1 else f"{host.name}#{number}"))
    return keys


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
