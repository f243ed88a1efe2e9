"""The translation as a running whole: takes changes of objects, gives Proxies and findings.

Pure in effect: no clock and no I/O; what it gives depends on the changes it was told, in their order. It
remembers three things between changes: the units, so that one edit costs one unit and a join; the last
good version of every object; and who serves which domains, so that a newcomer never takes one away.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from protos import gateway
from services.gateway.composition import Composition, Rendered
from services.gateway.translator.listeners import translate_gateway
from services.gateway.translator.model import (
    GW,
    RO,
    RT,
    RULES,
    TABLES,
    VHO,
    VS,
    Part,
    Read,
    Reports,
    Rules,
    TableTraits,
    TranslatedGateway,
    TranslatedService,
    Version,
    labels_of,
    report_of,
)
from services.gateway.translator.proxy import Plan, plan
from services.gateway.translator.render import Rendering
from services.gateway.translator.restore import Restored
from services.gateway.translator.virtual_service import translate_service
from shared.incremental.units import Steps, Units, at_once
from shared.ref import Ref, Source
from shared.report import Report
from shared.store.objects import Stored
from shared.store.view import ALL

Unit = tuple[str, Hashable]


@dataclass(slots=True)
class Changes:
    """What happened to the objects since the last translation."""

    put: dict[Source, Stored] = field(default_factory=dict)
    gone: set[Source] = field(default_factory=set)

    def add(self, put: Iterable[Stored], gone: Iterable[Source]) -> None:
        for source in gone:
            self.put.pop(source, None)
            self.gone.add(source)
        for stored in put:
            self.gone.discard(stored.source)
            self.put[stored.source] = stored


class Translation:
    """See the module. *namespace* is where Proxies are; ``objects`` and ``plan`` are for reading only."""

    def __init__(self, namespace: str, rules: Rules | None = None) -> None:
        self.objects: dict[Source, Stored] = {}
        self.plan = Plan()
        self.rules = rules or Rules()
        self.services: Units[Unit, TranslatedService] = Units(self._service)
        self.gateways: Units[Unit, TranslatedGateway] = Units(
            lambda unit, read: translate_gateway(_ref(unit), read)
        )
        self._versions: dict[Source, Version[Any]] = {}
        self._tables: dict[Ref, TableTraits] = {}
        self._findings = Findings()
        self._restored = Restored()
        self._adopted = False
        self._before = self.plan.before
        self._chosen: dict[Ref, Part] = {}
        self._losing: frozenset[Ref] = frozenset()
        self._conflicts: Reports = {}
        self._shares: dict[Source, set[str]] = {}
        self._rendered: dict[Ref, Mapping[int, tuple[gateway.Route, bytes]]] = {}
        self._composition = Composition(namespace)
        self._edited: set[Ref] = set()

    def adopt(self, restored: Restored) -> None:
        """Take what stored Proxies hold for what is served now: at start, and on becoming the writer."""
        self._restored = restored
        self._before = restored.before
        self._adopted = True

    def update(self, changes: Changes, rules: Rules | None = None) -> set[Source]:
        """Translate *changes*; the objects of which a finding, a share in a Proxy or a value may differ."""
        return at_once(self.update_in_steps(changes, rules))

    def update_in_steps(self, changes: Changes, rules: Rules | None = None) -> Steps[set[Source]]:
        """``update``, a virtual service a step; between steps some of what can be read is still the old."""
        changed = self._take(changes)
        if rules is not None and rules != self.rules:
            self.rules = rules
            changed.add((RULES, ALL))
        touched = set(changes.put) | changes.gone
        if not changed and not self._adopted:
            return touched
        services = yield from self.services.follow_in_steps(VS, changed, self._get)
        gateways = self.gateways.follow(GW, changed, self._get)
        touched |= self._note(services)
        yield
        if self._adopted:
            touched |= self.objects.keys()
        replan = self._adopted or bool(gateways) or not self._same_services(changed)
        touched |= yield from self._place(services, replan=replan)
        self._adopted = False
        touched |= {Source(kind, ref) for kind, ref in gateways if isinstance(ref, Ref)}
        yield from self._promote(touched)
        return touched

    def members(self, proxy: str) -> set[Source]:
        """The objects that have a share in a Proxy."""
        found = {source for source, proxies in self._shares.items() if proxy in proxies}
        for source in list(found):
            if (value := self.services.values.get((source.kind, source.ref))) is not None:
                found |= {Source(RT, table) for table in value.tables}
        return found

    def report(self, source: Source) -> Report:
        """Everything found wrong with an object: by decoding, by its own translation, by the plan."""
        found = Report()
        if (stored := self.objects.get(source)) is not None:
            found.add(stored.report)
            if source.kind in (VHO, RO) and stored.message is not None and stored.message.target_refs:
                found.warn("targetRefs", "has no effect without Kubernetes; optionsConfigRefs refer to it")
        if source in self._findings.by_source:
            for _, report in sorted(self._findings.by_source[source].items(), key=lambda told: told[0]):
                found.add(report)
        unit = (source.kind, source.ref)
        if (translated := self.gateways.values.get(unit)) is not None:
            found.add(translated.report)
        for reports in (self.plan.reports, self._conflicts):
            if source in reports:
                found.add(reports[source])
        for units in (self.services, self.gateways):
            if (failure := units.failures.get(unit)) is not None:
                found.error("", f"internal error: {failure!r}; the last good version stays")
        return _without_repetition(found)

    def shares(self, source: Source) -> set[str]:
        """The names of the Proxies that an object has a share in."""
        if source.kind != RT:
            return self._shares.get(source, set())
        users = self._findings.users.get(source.ref, ())
        return set[str]().union(*(self._shares.get(Source(VS, user), ()) for user in users))

    def render(self) -> dict[str, Rendered]:
        """All Proxies by name, at the cost of what changed since the last time."""
        edited, self._edited = self._edited, set()
        return self._composition.compose(self.plan, self._chosen, edited)

    # Taking changes

    def _take(self, changes: Changes) -> set[Unit]:
        changed: set[Unit] = set()
        for source in changes.gone:
            if self.objects.pop(source, None) is None:
                continue
            del self._versions[source]
            if source.kind == VS:
                self._rendered.pop(source.ref, None)
            changed.add((source.kind, source.ref))
            if source.kind == RT and self._tables.pop(source.ref, None) is not None:
                changed.add((TABLES, ALL))
        for source, stored in changes.put.items():
            before, self.objects[source] = self.objects.get(source), stored
            if before is not None and stored.same_spec(before):
                continue
            known = self._versions.get(source)
            self._versions[source] = Version(current=stored.message, good=known.good if known else None)
            changed.add((source.kind, source.ref))
            if source.kind == RT and stored.message is not None:
                traits = _table_traits(stored.message)
                if self._tables.get(source.ref) != traits:
                    self._tables[source.ref] = traits
                    changed.add((TABLES, ALL))
        return changed

    def _get(self, key: Unit) -> object:
        kind, ref = key
        if isinstance(ref, Ref):
            return self._versions.get(Source(kind, ref))
        return self._tables if kind == TABLES else self.rules

    def _service(self, unit: Unit, read: Read) -> TranslatedService:
        ref = _ref(unit)
        rendering = Rendering(known=self._rendered.get(ref, {}))
        translated = translate_service(ref, read, rendering)
        self._rendered[ref] = rendering.used
        return translated

    def _note(self, units: Iterable[Unit]) -> set[Source]:
        """Index what the virtual services' units found; the objects concerned, before or after."""
        return set[Source]().union(
            *(self._findings.set(_ref(unit), self.services.values.get(unit)) for unit in units)
        )

    # Placing

    def _same_services(self, changed: Iterable[Unit]) -> bool:
        """Whether all changed virtual services were there before and still are."""
        return all(
            (ref in self._chosen) and (kind, ref) in self.services.values
            for kind, ref in changed
            if kind == VS
        )

    def _place(self, differing: Iterable[Unit], *, replan: bool) -> Steps[set[Source]]:
        """Choose a version of every virtual service and give it its place."""
        refs = {_ref(unit) for unit in differing}
        if not replan and not self._losing:
            fresh = {ref: self._choose(ref, frozenset()) for ref in refs}
            if all(
                part is not None and ref in self._chosen and part.traits == self._chosen[ref].traits
                for ref, part in fresh.items()
            ):
                self._chosen |= cast("dict[Ref, Part]", fresh)
                self._edited |= refs
                return set()
        return (yield from self._replan())

    def _replan(self) -> Steps[set[Source]]:
        """Plan with the versions as written; whoever loses its place goes back to its last good version."""
        losing, conflicts, touched = frozenset[Ref](), dict[Source, Report](), set[Source]()
        gateways = {_ref(unit): self._gateway(unit) for unit in self.gateways.values}
        while True:
            chosen = {
                ref: part
                for _, ref in self.services.values
                if isinstance(ref, Ref) and (part := self._choose(ref, losing)) is not None
            }
            yield
            planned = plan(gateways, {ref: part.traits for ref, part in chosen.items()}, self._before)
            yield
            for source, report in planned.conflicts.items():
                report_of(conflicts, source).add(report)
            again = {ref for ref in planned.losers - losing if self._has_other(ref, chosen[ref])}
            if not again:
                break
            losing |= again
            touched |= self._contest(again, contested=True)
        touched |= self._contest(self._losing - losing, contested=False)
        shares = planned.shares()
        touched |= _differing(self.plan.reports, planned.reports) | _differing(self._conflicts, conflicts)
        for source in _differing(self._shares, shares):
            touched.add(source)
            value = self.services.values.get((source.kind, source.ref))
            touched |= {Source(RT, table) for table in value.tables} if value else set()
        self.plan, self._before, self._chosen, self._losing = planned, planned.before, chosen, losing
        self._conflicts, self._shares = conflicts, shares
        return touched

    def _choose(self, ref: Ref, losing: frozenset[Ref]) -> Part | None:
        """The version to serve: as written if that can be, else the last good one, else what is left."""
        value = self.services.values.get((VS, ref))
        stored = self._restored.parts.get(ref)
        if value is None:
            return stored
        offered = None if ref in losing else value.offered
        for part in (offered, value.held):
            if part is not None and part.complete:
                return part
        return stored or offered or value.held

    def _has_other(self, ref: Ref, part: Part) -> bool:
        """Whether a virtual service that lost with *part* has something else to try."""
        value, version = self.services.values.get((VS, ref)), self._versions.get(Source(VS, ref))
        if value is None or version is None or part is not value.offered:
            return False
        return version.fallback is not None or ref in self._restored.parts

    def _contest(self, refs: Iterable[Ref], *, contested: bool) -> set[Source]:
        """Have the last good versions of *refs* translated too, or no longer."""
        keys: set[Unit] = set()
        for ref in refs:
            source = Source(VS, ref)
            if source in self._versions:
                self._versions[source] = replace(self._versions[source], contested=contested)
                keys.add((VS, ref))
        return self._note(self.services.update(keys, self._get))

    def _gateway(self, unit: Unit) -> TranslatedGateway:
        value = self.gateways.values[unit]
        stored = self._restored.heads.get(_ref(unit))
        return value if stored is None or value.held is not None else replace(value, held=stored)

    # Remembering

    def _promote(self, touched: Iterable[Source]) -> Steps[None]:
        """Remember the versions that can serve as they are written."""
        parts, heads = dict(self._restored.parts), dict(self._restored.heads)
        for source in touched:
            version = self._versions.get(source)
            if version is None:
                parts.pop(source.ref, None) if source.kind == VS else None
                heads.pop(source.ref, None) if source.kind == GW else None
            elif version.current is not None and self._serves(source) and not self.report(source).errors:
                if version.good is not version.current:
                    self._versions[source] = replace(version, good=version.current)
                parts.pop(source.ref, None) if source.kind == VS else None
                heads.pop(source.ref, None) if source.kind == GW else None
            yield
        self._restored = replace(self._restored, parts=parts, heads=heads)

    def _serves(self, source: Source) -> bool:
        if source.kind == VS:
            value = self.services.values.get((VS, source.ref))
            return value is not None and value.offered is not None and value.offered.complete
        return True


class Findings:
    """What the virtual services' translations found, by the object it was found on."""

    def __init__(self) -> None:
        self.by_source: defaultdict[Source, dict[Ref, Report]] = defaultdict(dict)
        self.users: defaultdict[Ref, set[Ref]] = defaultdict(set)
        self._told: dict[Ref, TranslatedService] = {}

    def set(self, service: Ref, value: TranslatedService | None) -> set[Source]:
        """Replace what *service*'s translation found; the objects that had or have a finding or a user."""
        touched: set[Source] = {Source(VS, service)}
        if (old := self._told.pop(service, None)) is not None:
            for source in old.reports:
                self.by_source[source].pop(service, None)
                if not self.by_source[source]:
                    del self.by_source[source]
            for table in old.tables:
                self.users[table].discard(service)
                if not self.users[table]:
                    del self.users[table]
            touched |= set(old.reports) | {Source(RT, table) for table in old.tables}
        if value is not None:
            self._told[service] = value
            for source, report in value.reports.items():
                self.by_source[source][service] = report
            for table in value.tables:
                self.users[table].add(service)
            touched |= set(value.reports) | {Source(RT, table) for table in value.tables}
        return touched


def _ref(unit: Unit) -> Ref:
    return cast("Ref", unit[1])


def _table_traits(table: gateway.RouteTable) -> TableTraits:
    return TableTraits(labels=labels_of(table.metadata), weight=table.weight or 0)


def _differing(before: Mapping[Source, object], after: Mapping[Source, object]) -> set[Source]:
    return {source for source in before.keys() | after.keys() if before.get(source) != after.get(source)}


def _without_repetition(report: Report) -> Report:
    """Several virtual services find the same in a route table they share."""
    return Report(list(dict.fromkeys(report.errors)), list(dict.fromkeys(report.warnings)))
