"""From objects to snapshots: what changed goes in, the snapshots and reports that differ come out.

No I/O here: changes come from ``inputs``, snapshots go to the xDS cache, reports to ``statuses``. Long work
(the first snapshot of a large system) gives the event loop its turn every few milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from protos import gloo
from services.gloo.clusters import Clusters, Instances
from services.gloo.features import SCRIPTS
from services.gloo.features.aws_ec2 import FLEET, Fleet
from services.gloo.memory import Memory
from services.gloo.parts import WHOLE
from services.gloo.plugin import Policy
from services.gloo.proxies import Host, Proxies
from services.gloo.quarantine.held import Held
from services.gloo.refusals import Refusal, copy_of
from services.gloo.resources import (
    CLUSTER,
    EMPTY,
    ENDPOINTS,
    EXTENSION,
    LISTENER,
    ROUTES,
    SECRET,
    Resource,
    Resources,
    Snapshot,
    TypeUrl,
)
from services.gloo.secrets.source import Answer
from services.gloo.secrets.table import SecretTable
from services.gloo.translator.consul import ConsulSelection, destination_cluster_name
from services.gloo.translator.destination import translate_group
from services.gloo.translator.proxy import merge_reports
from services.gloo.translator.scripts import scripts_in
from services.gloo.translator.secret import names_asked_for, ref_of, signs
from services.gloo.translator.sources import Reports
from services.gloo.trials import trial_cluster
from services.gloo.xds.wire import mentions
from shared.incremental.units import Key, Units
from shared.ref import Ref, Source
from shared.report import Report
from shared.runtime.breath import Breath
from shared.store.keys import ARTIFACT, PROXY, UPSTREAM, UPSTREAM_GROUP, Kind
from shared.store.objects import Stored

SECRET_KIND = "Secret"
MOST_KNOWN = 10_000  # selections that are remembered at most


@dataclass(slots=True)
class Changes:
    """What is new since the last time: objects by kind, services whose endpoints differ, secrets."""

    put: dict[Kind, dict[Ref, Stored]] = field(default_factory=dict)
    gone: dict[Kind, set[Ref]] = field(default_factory=dict)
    services: set[str] = field(default_factory=set)
    secrets: dict[Ref, Answer] = field(default_factory=dict)
    fleets: dict[Ref, Fleet] = field(default_factory=dict)

    def add(self, kind: Kind, put: Mapping[Ref, Stored], gone: Set[Ref]) -> None:
        puts, gones = self.put.setdefault(kind, {}), self.gone.setdefault(kind, set())
        for ref in gone:
            puts.pop(ref, None)
        gones.difference_update(put)
        gones |= gone
        puts.update(put)

    def __bool__(self) -> bool:
        return (
            any(self.put.values())
            or any(self.gone.values())
            or bool(self.services or self.secrets or self.fleets)
        )


@dataclass(slots=True)
class Outcome:
    """What differs now: snapshots by role (None: the Proxy is gone), and the objects to speak about anew."""

    snapshots: dict[str, Snapshot | None] = field(default_factory=dict)
    reported: set[Source] = field(default_factory=set)

    def add(self, later: Outcome) -> None:
        self.snapshots |= later.snapshots
        self.reported |= later.reported


class Pipeline:
    """The state of translation; ``apply`` moves it."""

    def __init__(
        self,
        instances: Instances,
        policy: Policy,
        *,
        memory: Memory | None = None,
        stand_ins: Callable[[], Iterable[bytes]] = tuple,
        standing_in: Callable[[str], Iterable[bytes]] = lambda role: (),
        takes: Callable[[str, str], bool] = lambda role, secret: True,
    ) -> None:
        """*stand_ins* are virtual hosts served in place of newer ones; what they forward to is kept up.
        *standing_in* gives such listeners and clusters of a role; so are their secrets. *takes* says
        whether an Envoy of a role has taken a secret, so that listeners may come to name it."""
        self._memory = memory or Memory()
        self.clusters = Clusters(instances, policy, self._memory)
        self.secrets = SecretTable()
        self.secrets_wanted: frozenset[Ref] = frozenset()
        """The Secrets that objects refer to, and those that something served still needs."""
        self._named: dict[Ref, dict[TypeUrl, Resources]] = {}
        self._placed: dict[Ref, tuple[Any, ...]] = {}  # what those of a Proxy were chosen by
        self._looks: list[Iterable[Key]] = []
        self._stand_ins, self._standing_in = stand_ins, standing_in
        self._known = self._memory.known()  # the choices wanted so far, by cluster
        self._wanted: frozenset[ConsulSelection] = frozenset()  # of these, those wanted now
        self.proxies = Proxies(policy, self._memory, lambda ref, secret: takes(role_of(ref), secret))
        self.reports: dict[Source, Report] = {}
        self.artifacts_wanted = False  # whether something refers to one
        self._policy = policy
        self._read: dict[tuple[str, Ref], Any] = {}  # the messages that units may read
        self._groups: Units[Ref, Report] = Units(
            lambda ref, read: translate_group(self._read["UpstreamGroup", ref], read, policy)
        )
        self._undecodable: dict[Source, Report] = {}
        self._breath = Breath()

    def found_in(self, ref: Ref, refusals: Iterable[Refusal] = ()) -> Reports:
        """What was found in a Proxy and what Envoys say of its virtual hosts, by the object it belongs to."""
        served = self.proxies.served.get(ref)
        found: Reports = dict(served.reports) if served else {}
        for refusal in refusals:
            if served and refusal.held is not None and refusal.part != WHOLE:
                told = self._told(refusal.held, str(refusal))
                found |= {source: copy_of(found.get(source)) for source in told}
                merge_reports(found, told)
        if broken := self._undecodable.get(Source("Proxy", ref)):
            found[Source("Proxy", ref)] = broken
        return found

    def trace(self, held: Held) -> frozenset[Source]:
        """The objects that must change for something held to be tried again."""
        if held.place.type_url != ROUTES:
            return held.sources
        told = self._told(held, held.blame.text)
        return frozenset(source for source, report in told.items() if report.errors)

    async def apply(self, changes: Changes) -> Outcome:
        """Translate what changed, and nothing else."""
        self._breath, outcome = Breath(), Outcome()
        looked_at: set[Key] = {
            (SECRET_KIND, ref) for ref, answer in changes.secrets.items() if self.secrets.take(ref, answer)
        }
        self._take_artifacts(changes, looked_at)
        for ref, fleet in changes.fleets.items():
            if self._read.get((FLEET, ref)) != fleet:
                self._read[FLEET, ref] = fleet
                looked_at.add((FLEET, ref))
        put, drop = await self._take_upstreams(changes, looked_at, outcome)
        self._take_groups(changes, looked_at, outcome)
        built, removed = await self._take_proxies(changes, looked_at, outcome)
        for ref in removed:
            outcome.snapshots[role_of(ref)] = None
        new, old = self.clusters.select(self._selections())
        self._memory.forget_clusters()
        patching = self.clusters.patch([*put, *new], [*drop, *old], changes.services)
        shared_differs = await self._breath.between(patching)
        only_endpoints = changes.services and not (put or drop or built or removed or changes.secrets)
        renewed = set() if only_endpoints else self._place_named()
        for ref in self.proxies.served if shared_differs else built | renewed:
            outcome.snapshots[role_of(ref)] = self.snapshot(ref)
        return outcome

    @property
    def fleets_wanted(self) -> dict[Ref, gloo.AwsEc2UpstreamSpec]:
        """The Upstreams whose instances are to be asked for."""
        refs = [ref for kind, ref in self.clusters.looks if kind == FLEET and isinstance(ref, Ref)]
        found = ((ref, self._read.get((UPSTREAM.name, ref))) for ref in refs)
        return {ref: each.aws_ec2 for ref, each in found if each is not None and each.aws_ec2 is not None}

    def snapshot(self, ref: Ref) -> Snapshot:
        """All that a Proxy's Envoys are served now."""
        served = self.proxies.served[ref]
        clusters = self.clusters.clusters
        if served.tried:
            tried = [trial_cluster(name, sources) for name, sources in served.tried.items()]
            clusters = clusters.patched(put=tried)
        if served.clusters is not EMPTY:
            clusters = clusters.patched(put=served.clusters.by_name.values())
        return Snapshot(
            {
                CLUSTER: clusters,
                ENDPOINTS: self.clusters.endpoints,
                LISTENER: served.listeners.patched(put=self.clusters.tunnels.by_name.values()),
                ROUTES: served.routes,
                **self._named[ref],
            }
        )

    def _place_named(self) -> set[Ref]:
        """Give each Proxy the secrets and filters its listeners and clusters name, and no others; those that
        differ."""
        shared, differing = self.clusters.secrets, set()
        for ref in self._named.keys() - self.proxies.served.keys():
            del self._named[ref], self._placed[ref]
            differing.add(ref)
        for ref, served in self.proxies.served.items():
            kept = {name for body in self._standing_in(role_of(ref)) for name in names_asked_for(body)}
            scripts = served.scripts.union(*map(scripts_in, self._stand_ins()))
            inputs = (shared, kept, served.tried, served.secrets, scripts, self.secrets.changes)
            if self._placed.get(ref) == inputs:
                continue
            self._placed[ref] = inputs
            asked = {**dict.fromkeys(kept, frozenset[Source]()), **shared, **served.tried, **served.secrets}
            before, now = self._named.get(ref, {}), dict[TypeUrl, Resources]()
            filters = [each.used if name in scripts else each.unused for name, each in SCRIPTS.items()]
            for type_url, others in ((SECRET, ()), (EXTENSION, filters)):
                some = {name: each for name, each in asked.items() if signs(name) is (type_url == EXTENSION)}
                old = before.get(type_url, EMPTY)
                gone = old.by_name.keys() - some.keys() - SCRIPTS.keys()
                now[type_url] = old.patched(put=[*self.secrets.resources(some), *others], drop=gone)
                if now[type_url] is not old:
                    differing.add(ref)
            self._named[ref] = now
        self._want_secrets(again=bool(differing))
        return differing & self.proxies.served.keys()

    def _want_secrets(self, *, again: bool) -> None:
        """Bring ``secrets_wanted`` up to date, *again* or when something else is looked at than before."""
        looks = [self.clusters.looks, *self.proxies.looks]
        if not again and list(map(id, looks)) == list(map(id, self._looks)):
            return
        self._looks = looks
        looked = (ref for each in looks for kind, ref in each if kind == SECRET_KIND)
        sets = (each for both in self._named.values() for each in both.values())
        served = (ref_of(name) for each in sets for name in each.by_name)
        self.secrets_wanted = frozenset(ref for ref in (*served, *looked) if isinstance(ref, Ref))
        self.secrets.keep(self.secrets_wanted)

    async def _take_upstreams(
        self, changes: Changes, looked_at: set[Key], outcome: Outcome
    ) -> tuple[list[Resource], list[str]]:
        put: list[Resource] = []
        drop: list[str] = []
        for ref, stored in changes.put.get(UPSTREAM, {}).items():
            message = self._take(stored, looked_at, outcome)
            if isinstance(message, gloo.Upstream):
                made, gone = self.clusters.put_upstream(ref, message, self._get)
                put += made
                drop += gone
                outcome.reported.add(stored.source)
            elif stored.message is None and (UPSTREAM.name, ref) not in self._read:
                put += self.clusters.remembered(ref)
            await self._breath.take()
        for ref in self.clusters.looked_at(looked_at) - changes.gone.get(UPSTREAM, set()):
            made, gone = self.clusters.put_upstream(ref, self._read[UPSTREAM.name, ref], self._get)
            put += made
            drop += gone
            outcome.reported.add(Source(UPSTREAM.name, ref))
        for ref in changes.gone.get(UPSTREAM, ()):
            self._lose(UPSTREAM, ref, looked_at)
            drop += self.clusters.drop_upstream(ref)
        for source in [source for source in outcome.reported if source.kind == "Upstream"]:
            self._report(source, self.clusters.reports.get(source.ref), outcome)
        return put, drop

    def _take_artifacts(self, changes: Changes, looked_at: set[Key]) -> None:
        """Nothing is said of an Artifact itself; who refers to a broken one is told what is wrong with it."""
        for ref, stored in changes.put.get(ARTIFACT, {}).items():
            found = stored.message if stored.message is not None else str(stored.report.errors[0])
            if self._read.get((ARTIFACT.name, ref)) is not found:
                self._read[ARTIFACT.name, ref] = found
                looked_at.add((ARTIFACT.name, ref))
        for ref in changes.gone.get(ARTIFACT, ()):
            self._lose(ARTIFACT, ref, looked_at)

    def _take_groups(self, changes: Changes, looked_at: set[Key], outcome: Outcome) -> None:
        units = set()
        for ref, stored in changes.put.get(UPSTREAM_GROUP, {}).items():
            if self._take(stored, looked_at, outcome) is not None:
                units.add(ref)
        gone = changes.gone.get(UPSTREAM_GROUP, set())
        for ref in gone:
            self._lose(UPSTREAM_GROUP, ref, looked_at)
        differing = self._groups.update(looked_at, self._get, put=units, drop=gone)
        for ref in (differing | units) - gone:
            self._report(Source("UpstreamGroup", ref), self._groups.values.get(ref), outcome)

    async def _take_proxies(
        self, changes: Changes, looked_at: set[Key], outcome: Outcome
    ) -> tuple[set[Ref], set[Ref]]:
        """The Proxies that were built anew, and those that are gone."""
        units: list[Host] = []
        lost: list[Host] = []
        build: set[Ref] = set()
        for ref, stored in changes.put.get(PROXY, {}).items():
            message = self._take(stored, looked_at, outcome)
            if isinstance(message, gloo.Proxy):
                changed, gone = self.proxies.put(ref, message)
                units += changed
                lost += gone
                build.add(ref)
        removed = changes.gone.get(PROXY, set())
        for ref in removed:
            self._lose(PROXY, ref, looked_at)
            lost += self.proxies.drop(ref)
        build |= self.proxies.translate(self._get, drop=lost)
        for unit in {*units, *self.proxies.readers(looked_at)}:
            build |= self.proxies.translate(self._get, put=[unit])
            await self._breath.take()
        build |= self.proxies.looked_at(looked_at) | self.proxies.tried_out()
        build -= removed
        for ref in build:
            self.proxies.build(ref, self._get)
            outcome.reported.add(Source("Proxy", ref))
            await self._breath.take()
        return build, removed

    def _take(self, stored: Stored, looked_at: set[Key], outcome: Outcome) -> Any:
        """The object's message if it is new or another one; a broken object keeps its last good message."""
        key = (stored.kind.name, stored.ref)
        outcome.reported.add(stored.source)
        if stored.message is None:
            self._undecodable[stored.source] = stored.report
            self._report(stored.source, None, outcome)
            return None
        mended = self._undecodable.pop(stored.source, None) is not None
        if stored.message is self._read.get(key) and not mended:
            return None
        self._read[key] = stored.message
        looked_at.add(key)
        return stored.message

    def _lose(self, kind: Kind, ref: Ref, looked_at: set[Key]) -> None:
        source = Source(kind.name, ref)
        self._read.pop((kind.name, ref), None)
        self._read.pop((FLEET, ref), None)
        self._undecodable.pop(source, None)
        self.reports.pop(source, None)
        looked_at.add((kind.name, ref))

    def _report(self, source: Source, report: Report | None, outcome: Outcome) -> None:
        """What there is to say of an object: that it cannot be decoded goes before all else."""
        report = self._undecodable.get(source) or report
        if report is not None:
            self.reports[source] = report
            outcome.reported.add(source)

    def _get(self, key: Any) -> object:
        if key[0] == ARTIFACT.name:
            self.artifacts_wanted = True
        return self.secrets.known.get(key[1]) if key[0] == SECRET_KIND else self._read.get(key)

    def _told(self, held: Held, text: str) -> Reports:
        place = held.place
        return self.proxies.refused(proxy_of(place.role), place.name, held.part, text, held.good)

    def _selections(self) -> frozenset[ConsulSelection]:
        """What is wanted, and what only stand-ins want still."""
        wanted = frozenset[ConsulSelection]().union(*(one.selections for one in self.proxies.served.values()))
        for selection in wanted - self._wanted:
            self._known[destination_cluster_name(selection)] = selection
        self._wanted = wanted
        bodies = list(self._stand_ins())
        kept = [
            selection
            for name, selection in (self._known.items() if bodies else ())
            if any(mentions(body, [name.encode()]) for body in bodies)
        ]
        if len(self._known) > MOST_KNOWN:
            self._known = {destination_cluster_name(each): each for each in wanted.union(kept)}
        return wanted.union(kept)


def role_of(ref: Ref) -> str:
    """The role that the Envoys of a Proxy name in their bootstrap."""
    return f"{ref.namespace}~{ref.name}"


def proxy_of(role: str) -> Ref:
    namespace, _, name = role.partition("~")
    return Ref(namespace, name)
