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

from services.gateway.composition import Composition, Rendered
from services.gateway.translator.listeners import translate_gateway
from services.gateway.translator.model import (
    GW,
    HLO,
    LO,
    MATCHABLES,
    MHG,
    OPTIONS,
    RO,
    RT,
    RULES,
    VHO,
    VS,
    Head,
    MatchableTraits,
    Part,
    Read,
    Reports,
    Rules,
    Section,
    TableTraits,
    TranslatedGateway,
    TranslatedService,
    Version,
    all_of,
    labels_of,
    report_of,
)
from services.gateway.translator.proxy import Plan, plan
from services.gateway.translator.render import Rendering
from services.gateway.translator.restore import Restored
from services.gateway.translator.targets import check_targets, missing_targets, targets_of
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
        self._seen: dict[str, dict[Ref, object]] = {kind: {} for kind in (RT, *MATCHABLES, LO, HLO)}
        self._findings = Findings()
        self._restored = Restored()
        self._adopted = False
        self._before = self.plan.before
        self._chosen: dict[Ref, Part] = {}
        self._losing: frozenset[Ref] = frozenset()
        self._conflicts: Reports = {}
        self._shares: dict[Source, set[str]] = {}
        self._rendered: dict[Ref, Rendering] = {}
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
        touched |= self._note(services) | self._note(gateways)
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
        return found.union(*(self._findings.used_by(source) for source in found))

    def report(self, source: Source) -> Report:
        """Everything found wrong with an object: by decoding, by its own translation, by the plan."""
        found = Report()
        if (stored := self.objects.get(source)) is not None:
            found.add(stored.report)
            found.add(self._alone(source, stored))
        if source in self._findings.by_source:
            for _, report in sorted(self._findings.by_source[source].items(), key=lambda told: told[0]):
                found.add(report)
        unit = (source.kind, source.ref)
        for reports in (self.plan.reports, self._conflicts):
            if source in reports:
                found.add(reports[source])
        for units in (self.services, self.gateways):
            if (failure := units.failures.get(unit)) is not None:
                found.error("", f"internal error: {failure!r}; the last good version stays")
        return _without_repetition(found)

    def shares(self, source: Source) -> set[str]:
        """The names of the Proxies that an object has a share in."""
        if source.kind in (VS, GW):
            return self._shares.get(source, set())
        users = self._findings.users.get(source, ())
        return set[str]().union(*(self._shares.get(user, ()) for user in users))

    def users(self, source: Source) -> set[Source]:
        """Who uses an object that does nothing by itself."""
        return self._findings.users.get(source, set()) if source.kind in (*OPTIONS, *MATCHABLES) else set()

    def _alone(self, source: Source, stored: Stored) -> Report:
        """What is wrong with how an object is to be used."""
        found = Report()
        if stored.message is None:
            return found
        if source.kind in (VHO, RO) and stored.message.target_refs:
            found.warn("targetRefs", "has no effect without Kubernetes; optionsConfigRefs refer to it")
        if source.kind in (LO, HLO):
            found.add(check_targets(source, stored.message))
            if not found.errors:
                found.add(missing_targets(source, stored.message, self.objects))
        if source.kind in MATCHABLES and not self._findings.users.get(source):
            found.warn("", "no gateway takes it up")
        return found

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
            if source.kind in self._seen and source.ref in self._seen[source.kind]:
                del self._seen[source.kind][source.ref]
                changed.add((all_of(source.kind), ALL))
        for source, stored in changes.put.items():
            before, self.objects[source] = self.objects.get(source), stored
            if before is not None and stored.same_spec(before):
                continue
            known = self._versions.get(source)
            current = stored.message
            if current is not None and source.kind in (LO, HLO) and check_targets(source, current).errors:
                current = None
            self._versions[source] = Version(current=current, good=known.good if known else None)
            changed.add((source.kind, source.ref))
            if source.kind in self._seen and self._look_at(source, current):
                changed.add((all_of(source.kind), ALL))
        return changed

    def _look_at(self, source: Source, message: Any) -> bool:
        """Note what selectors see of an object; whether that differs. They go on with what they saw of one
        that cannot be read."""
        seen = self._seen[source.kind]
        if message is None and (source.ref in seen or source.kind not in MATCHABLES):
            return False
        traits = _traits(source, message)
        differs = seen.get(source.ref) != traits
        seen[source.ref] = traits
        return differs

    def _get(self, key: Unit) -> object:
        kind, ref = key
        if isinstance(ref, Ref):
            return self._versions.get(Source(kind, ref))
        return self.rules if kind == RULES else self._seen[kind.removesuffix("s")]

    def _service(self, unit: Unit, read: Read) -> TranslatedService:
        ref = _ref(unit)
        rendering = self._rendered.setdefault(ref, Rendering())
        translated = translate_service(ref, read, rendering)
        rendering.end_round()
        return translated

    def _note(self, units: Iterable[Unit]) -> set[Source]:
        """Index what units found; the objects concerned, before or after."""
        found = set[Source]()
        for kind, ref in ((kind, _ref((kind, ref))) for kind, ref in units):
            values = self.services.values if kind == VS else self.gateways.values
            found |= self._findings.set(Source(kind, ref), values.get((kind, ref)))
        return found

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
            touched |= {source} | self._findings.used_by(source)
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
        """A gateway, with what stored Proxies hold of it where there is no last good version."""
        value = self.gateways.values[unit]
        stored = self._restored.heads.get(_ref(unit))
        if stored is None:
            return value
        value = replace(
            value, spare={section.key: section for section in stored.sections} | dict(value.spare)
        )
        if value.offered is not None and (kept := self._kept(value, stored)):
            order = {section.key: i for i, section in enumerate(stored.sections)}
            sections = sorted(
                (*value.offered.sections, *kept), key=lambda section: order.get(section.key, len(order))
            )
            value = replace(value, offered=replace(value.offered, sections=tuple(sections)))
        return value if value.held is not None else replace(value, held=stored)

    def _kept(self, value: TranslatedGateway, stored: Head) -> list[Section]:
        """The sections of a stored head that its gateway lacks now."""
        return [section for section in stored.sections if section.key in value.lacking]

    # Remembering

    def _promote(self, touched: Iterable[Source]) -> Steps[None]:
        """Remember the versions that can serve as they are written."""
        parts, heads = dict(self._restored.parts), dict(self._restored.heads)
        for source in touched:
            version = self._versions.get(source)
            good = self._good(source, version) if version is not None else None
            if version is not None and good is not None and version.good is not good:
                self._versions[source] = replace(version, good=good)
            if version is None or good is not None:
                parts.pop(source.ref, None) if source.kind == VS else None
                heads.pop(source.ref, None) if source.kind == GW else None
            yield
        self._restored = replace(self._restored, parts=parts, heads=heads)

    def _good(self, source: Source, version: Version[Any]) -> Any:
        """The version of an object to go back to from now on, None if there is no newer one."""
        if version.current is None or not self._serves(source):
            return None
        if not self.report(source).errors:
            return version.current
        value, planned = self.gateways.values.get((source.kind, source.ref)), self.plan.reports.get(source)
        return value.mended if value is not None and not (planned and planned.errors) else None

    def _serves(self, source: Source) -> bool:
        if source.kind == VS:
            value = self.services.values.get((VS, source.ref))
            return value is not None and value.offered is not None and value.offered.complete
        gateway, stored = self.gateways.values.get((source.kind, source.ref)), None
        if gateway is not None:
            stored = self._restored.heads.get(source.ref)
        return gateway is None or stored is None or not self._kept(gateway, stored)


class Findings:
    """What the translations of virtual services and gateways found, by the object it was found on."""

    def __init__(self) -> None:
        self.by_source: defaultdict[Source, dict[Source, Report]] = defaultdict(dict)
        self.users: defaultdict[Source, set[Source]] = defaultdict(set)
        self._told: dict[Source, TranslatedService | TranslatedGateway] = {}

    def used_by(self, user: Source) -> frozenset[Source]:
        value = self._told.get(user)
        return value.used if value is not None else frozenset()

    def set(self, user: Source, value: TranslatedService | TranslatedGateway | None) -> set[Source]:
        """Replace what *user*'s translation found; the objects that had or have a finding or a user."""
        touched = {user}
        if (old := self._told.pop(user, None)) is not None:
            for source in old.reports:
                self.by_source[source].pop(user, None)
                if not self.by_source[source]:
                    del self.by_source[source]
            for used in old.used:
                self.users[used].discard(user)
                if not self.users[used]:
                    del self.users[used]
            touched |= old.reports.keys() | old.used
        if value is not None:
            self._told[user] = value
            for source, report in value.reports.items():
                self.by_source[source][user] = report
            for used in value.used:
                self.users[used].add(user)
            touched |= value.reports.keys() | value.used
        return touched


def _ref(unit: Unit) -> Ref:
    return cast("Ref", unit[1])


def _traits(source: Source, message: Any) -> object:
    """What selectors see of an object; of one that was never read nothing but that it is there."""
    if message is None:
        return MatchableTraits(known=False)
    labels = labels_of(message.metadata)
    if source.kind == RT:
        return TableTraits(labels=labels, weight=message.weight or 0)
    if source.kind not in MATCHABLES:
        return targets_of(source, message)
    ssl = source.kind == MHG and message.matcher is not None and message.matcher.ssl_config is not None
    return MatchableTraits(labels=labels, ssl=ssl)


def _differing(before: Mapping[Source, object], after: Mapping[Source, object]) -> set[Source]:
    return {source for source in before.keys() | after.keys() if before.get(source) != after.get(source)}


def _without_repetition(report: Report) -> Report:
    """Several virtual services find the same in a route table they share."""
    return Report(list(dict.fromkeys(report.errors)), list(dict.fromkeys(report.warnings)))
