"""The gloo process: Consul's objects and endpoints in, xDS and statuses out.

The xDS server and what it serves live as long as the process. Everything that depends on the settings is a
session, begun anew when they change: Envoys keep what they have until the new session has read everything.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Set
from functools import partial
from typing import Any

from prometheus_client import Counter, Gauge

from protos import gloo
from services.gloo.endpoints.consul import ConsulEndpoints, EndpointOptions
from services.gloo.feedback import Feedback
from services.gloo.last_good import LastGood, State
from services.gloo.memory import Memory
from services.gloo.metrics import StaleMetric, XdsMetrics, show_snapshots
from services.gloo.pages import progress_page, roles_page, snapshot_page
from services.gloo.parts import WHOLE
from services.gloo.pipeline import Changes, Outcome, Pipeline, proxy_of, role_of
from services.gloo.plugin import Policy
from services.gloo.serving import Serving
from services.gloo.statuses import object_status, proxy_status
from services.gloo.xds.cache import Cache
from services.gloo.xds.options import Options
from services.gloo.xds.server import XdsServer
from shared.consul.blocking import WatchState
from shared.consul.client import Consul, ConsulConfig
from shared.consul.election import Election
from shared.consul.members import Members
from shared.consul.metrics import show_watches
from shared.consul.operations import CheckSession
from shared.ref import Source
from shared.report import Report
from shared.runtime.breath import Breath
from shared.runtime.identity import member_value
from shared.runtime.service import Context, run
from shared.runtime.settle import Settle
from shared.store.keys import DEFAULT_ROOT, PROXY, UPSTREAM, UPSTREAM_GROUP, Kind
from shared.store.objects import Stored
from shared.store.status import StatusWriter, same_status
from shared.store.watch import watch_objects

log = logging.getLogger(__name__)

KINDS = (PROXY, UPSTREAM, UPSTREAM_GROUP)
DRAIN_SECONDS = 5.0
MEMBER_TTL = 15.0  # seconds; membership here only tells people who is running
SETTINGS_USED = (
    "consul",
    "consulDiscovery.consistencyMode",
    "consulKvSource",
    "discovery",
    "discoveryNamespace",
    "watchNamespaces",
    "gateway",
    "gloo.xdsBindAddr",
    "gloo.xds",
    "gloo.circuitBreakers",
    "gloo.regexMaxProgramSize",
    "gloo.invalidConfigPolicy",
    "refreshRate",
)


def main() -> int:
    return run("gloo", serve, admin_addr="127.0.0.1:9091", settings_used=SETTINGS_USED, keeps_state=True)


async def serve(context: Context) -> None:
    """Serve xDS until told to stop; sessions come and go with the settings."""
    cache = Cache()
    roles: asyncio.Queue[str] = asyncio.Queue()
    feedback = Feedback(roles.put_nowait, cache, retry=Options.of(context.settings.value).refusal_retry)
    kept = LastGood(context.options.state_dir) if context.options.state_dir else None
    stale = StaleMetric(context.metrics)
    states: dict[str, State] = {}
    for role, state, written in kept.load() if kept else ():
        feedback.restore(role, state.snapshot, state.held)
        states[role] = state
        stale.since(role, written)
        log.warning(
            "serving the last good snapshot until Consul was read", extra={"role": role, "written": written}
        )
    served = XdsMetrics(context.metrics)
    serving = Serving(context.settings.value, cache, feedback, served.measure)
    await serving.start(context.tasks)
    server = serving.server
    context.admin.debug("xds", serving.state)
    context.admin.debug("roles", lambda: roles_page(server, feedback, stale))
    context.admin.debug_below("snapshot", lambda role: snapshot_page(cache.get(role)))
    served.count_clients(lambda: server.streams)
    show_snapshots(context.metrics, cache)
    held_back = context.metrics.gauge("held_back", "Parts of what is served that an Envoy refused")
    held_back.set_function(lambda: feedback.held_back)
    session: asyncio.Task[None] | None = None

    def begin(settings: gloo.Settings) -> None:
        nonlocal session
        if session is not None:
            session.cancel()
        serving.take_over(settings)
        run_session = partial(
            run_sessions, context, settings, cache, feedback, roles, kept, stale, server, states
        )
        session = context.tasks.start("session", run_session)

    context.tasks.start("quarantine", feedback.run)
    if kept is not None:
        context.tasks.start("last good", kept.run)
    begin(context.settings.value)
    context.settings.on_change(begin)
    await context.stopping.wait()
    await server.stop(DRAIN_SECONDS)
    if kept is not None:
        await kept.flush()
    await context.tasks.stop()


async def run_sessions(
    context: Context,
    settings: gloo.Settings,
    cache: Cache,
    feedback: Feedback,
    roles: asyncio.Queue[str],
    kept: LastGood | None,
    stale: StaleMetric,
    server: XdsServer,
    states: dict[str, State],
) -> None:
    async with Consul(ConsulConfig.of(settings, os.environ)) as consul:
        session = Session(context, settings, consul, cache, feedback, roles, kept, stale, server, states)
        await session.run()


def remembered(states: Mapping[str, State]) -> Memory:
    """What translation is to know of what was served before it."""
    return Memory(
        {proxy_of(role): state.snapshot for role, state in states.items()},
        {name: each for state in states.values() for name, each in state.following.items()},
        [(proxy_of(role), *host) for role, state in states.items() for host in state.partial],
    )


class Session:
    """One reading of everything under one set of settings."""

    def __init__(
        self,
        context: Context,
        settings: gloo.Settings,
        consul: Consul,
        cache: Cache,
        feedback: Feedback,
        roles: asyncio.Queue[str],
        kept: LastGood | None,
        stale: StaleMetric,
        server: XdsServer,
        states: dict[str, State],
    ) -> None:
        self._context = context
        self._kept = kept
        self._stale = stale
        self._server = server
        self._consul = consul
        self._cache = cache
        self._feedback = feedback
        self._roles = roles
        self._root = (settings.consul_kv_source.root_key if settings.consul_kv_source else "") or DEFAULT_ROOT
        self._namespace = settings.discovery_namespace or "gloo-system"
        watched = set(settings.watch_namespaces)
        everywhere = not watched or bool(watched & {"", "*"})
        self._namespaces = set() if everywhere else watched | {self._namespace}
        self._endpoints = ConsulEndpoints(consul, EndpointOptions.of(settings))
        self._states = states
        self._pipeline = Pipeline(
            self._endpoints.table,
            Policy.of(settings),
            memory=remembered(states),
            stand_ins=feedback.stand_ins,
        )
        feedback.trace = self._pipeline.trace
        self._changes = Changes()
        self._news = asyncio.Event()
        self._watches = {kind.name: WatchState(kind.name) for kind in KINDS}
        self._waiting: set[str] = {kind.name for kind in KINDS} | {"endpoints"}
        self._stored: dict[Source, Stored] = {}
        self._name = f"{socket.gethostname()}-{os.getpid()}"
        self._election = Election(consul, f"{self._root}/_leaders/gloo", self._name)
        self._members = Members(
            consul,
            f"{self._root}/_members/gloo/",
            self._name,
            value=member_value(context.admin),
            ttl=MEMBER_TTL,
        )
        self._writer = StatusWriter(
            consul.kv, self._root, namespace=self._namespace, fence=self._fence, observe=self._count_writes
        )
        self._writes: Counter = context.metrics.counter(
            "status_writes", "Statuses, by what became of them", ["result"]
        )

    async def run(self) -> None:
        """Follow everything until cancelled."""
        self._endpoints.subscribe(self._endpoints_changed)
        self._context.admin.debug("gloo", self.state)
        self._context.admin.debug_below("roles", self.progress)
        show_watches(self._context.metrics, self.watches)
        self._tell_readiness()
        async with asyncio.TaskGroup() as tasks:
            for kind in KINDS:
                tasks.create_task(self._watch(kind), name=f"watch {kind}")
            tasks.create_task(self._endpoints.run(), name="endpoints")
            tasks.create_task(self._translate(), name="translate")
            tasks.create_task(self._follow_refusals(), name="feedback")
            tasks.create_task(self._writer.run(), name="statuses")
            tasks.create_task(self._election.run(), name="election")
            tasks.create_task(self._follow_leadership(), name="leadership")
            tasks.create_task(self._members.run(), name="membership")

    def state(self) -> dict[str, Any]:
        """For ``/debug/gloo``."""
        served = self._pipeline.proxies.served
        return {
            "leader": self._election.holder,
            "leading": self._election.leader,
            "waiting_for": sorted(self._waiting),
            "last_good_since": dict(self._stale.written),
            "watches": self._watches,
            "endpoints": self._endpoints.state(),
            "virtual_hosts_translated": self._pipeline.proxies.computed,
            "clusters": len(self._pipeline.clusters.clusters.by_name),
            "proxies": {
                str(ref): {
                    "listeners": {name: each.version for name, each in one.listeners.by_name.items()},
                    "routes": {name: each.version for name, each in one.routes.by_name.items()},
                }
                for ref, one in served.items()
            },
        }

    def progress(self, path: str) -> dict[str, Any]:
        return progress_page(path, self._stored, self._server, self._feedback, self._stale)

    def watches(self) -> Iterator[WatchState]:
        yield from self._watches.values()
        yield from self._endpoints.watches()
        yield from (self._election.state, self._members.state)

    # -- what comes in

    async def _watch(self, kind: Kind) -> None:
        watching = watch_objects(
            self._consul.kv, self._root, kind, namespaces=self._namespaces, state=self._watches[kind.name]
        )
        async for change in watching:
            for ref in change.gone:
                self._writer.withdraw(kind, ref)
            self._changes.add(kind, change.put, change.gone)
            self._arrived(kind.name)

    def _endpoints_changed(self, services: Set[str]) -> None:
        self._changes.services.update(services)
        if self._endpoints.synced:
            self._arrived("endpoints")

    def _arrived(self, what: str) -> None:
        if what in self._waiting:
            self._waiting.discard(what)
            self._tell_readiness()
        self._news.set()

    def _tell_readiness(self) -> None:
        why = f"waiting for Consul: {', '.join(sorted(self._waiting))}"
        self._context.admin.ready(
            "snapshot", False, why if self._waiting else "translating for the first time"
        )

    # -- what becomes of it

    async def _translate(self) -> None:
        """Nothing is served before everything was read once: half of it could take routes away."""
        settle, ready = Settle(), False
        while True:
            await self._news.wait()
            if self._waiting:
                self._news.clear()
                continue
            async with settle:
                self._news.clear()
                changes, self._changes = self._changes, Changes()
                outcome = await self._pipeline.apply(changes)
                self._take_over(changes)
                await self._publish(outcome)
            if not ready:
                ready = True
                for role in self._stale.written:
                    log.warning(
                        "its Proxy is not in Consul; its Envoys keep the last good snapshot",
                        extra={"role": role},
                    )
                self._context.admin.ready("snapshot", True)

    def _take_over(self, changes: Changes) -> None:
        """Speak of these versions from now on: of a newer one, what is known of the older would be untrue."""
        for gone, refs in changes.gone.items():
            for ref in refs:
                self._stored.pop(Source(gone.name, ref), None)
        for put in changes.put.values():
            self._stored.update((stored.source, stored) for stored in put.values())

    async def _publish(self, outcome: Outcome) -> None:
        for role, snapshot in outcome.snapshots.items():
            self._feedback.publish(role, snapshot)
            self._stale.over(role)
            self._keep(role)
        await self._speak(outcome.reported)

    def _keep(self, role: str) -> None:
        """Have what is served kept for other settings and on disk, as long as no Envoy refuses part of it."""
        if not self._feedback.good(role):
            if self._kept is not None:
                self._kept.withhold(role)
            return
        snapshot, served = self._cache.get(role), self._pipeline.proxies.served.get(proxy_of(role))
        if snapshot is None:
            self._states.pop(role, None)
        elif served is not None:
            held, following = tuple(self._feedback.held(role)), dict(self._pipeline.clusters.following)
            self._states[role] = State(snapshot, held, following, served.partial)
        else:
            return
        if self._kept is not None:
            self._kept.keep(role, self._states.get(role))

    async def _follow_refusals(self) -> None:
        while True:
            role = await self._roles.get()
            self._news.set()  # what stands in for something held may need clusters of its own
            self._keep(role)
            refused = {source for each in self._feedback.refusals(role) for source in each.sources}
            upstreams = {source for source in self._pipeline.reports if source.kind == "Upstream"}
            await self._speak({Source("Proxy", proxy_of(role))} | upstreams & (refused | self._blamed))
            self._blamed = refused

    _blamed: Set[Source] = frozenset()

    async def _speak(self, sources: Iterable[Source]) -> None:
        """Have the statuses of these objects written where they differ from what stands there."""
        breath = Breath()
        for source in sources:
            await breath.take()
            stored = self._stored.get(source)
            if stored is None or stored.document is None:
                continue
            status = self._status_of(source, stored.fingerprint)
            if status is not None and not same_status(stored.status(self._namespace), status):
                self._writer.submit(stored, status)

    def _status_of(self, source: Source, about: str) -> dict[str, Any] | None:
        if source.kind == "Proxy":
            refusals = self._feedback.refusals(role_of(source.ref))
            found = self._pipeline.found_in(source.ref, refusals)
            others = [refusal for refusal in refusals if refusal.part == WHOLE]
            return proxy_status(found, others, source, about) if found else None
        report = self._pipeline.reports.get(source)
        if report is None:
            return None
        whole = Report()
        whole.add(report)
        for text in self._refused_of(source):
            whole.error("", text)
        return object_status(whole, about)

    def _refused_of(self, source: Source) -> list[str]:
        """Refusals of resources that come from this object alone."""
        return sorted(
            {
                str(refusal)
                for ref in self._pipeline.proxies.served
                for refusal in self._feedback.refusals(role_of(ref))
                if refusal.sources == {source}
            }
        )

    # -- leadership

    def _fence(self) -> CheckSession | None:
        return self._election.fence

    async def _follow_leadership(self) -> None:
        gauge: Gauge = self._context.metrics.gauge("leader", "1 while this process writes statuses")
        while True:
            leading = await self._election.wait_changed()
            gauge.set(leading)
            log.info("leading" if leading else "not leading", extra={"key": self._election.key})
            if leading:
                await self._speak(list(self._stored))
            self._writer.wake()

    def _count_writes(self, what: str, count: int) -> None:
        self._writes.labels(what).inc(count)
