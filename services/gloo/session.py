"""A session: one reading of everything under one set of settings."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Set
from typing import Any

from protos import gloo
from services.gloo.artifacts import ArtifactFiles
from services.gloo.endpoints.consul import ConsulEndpoints, EndpointOptions
from services.gloo.endpoints.ec2 import Fleets
from services.gloo.features.aws_ec2 import Fleet
from services.gloo.hearsay import Hearsay
from services.gloo.lasting import Lasting
from services.gloo.pages import progress_page
from services.gloo.pipeline import Changes, Outcome, Pipeline, proxy_of
from services.gloo.plugin import Policy
from services.gloo.resources import SECRET
from services.gloo.secrets.feed import SecretFeed
from services.gloo.secrets.metrics import show_secrets
from services.gloo.secrets.options import secret_sources
from services.gloo.secrets.source import Answer
from services.gloo.speaker import Speaker
from shared.consul.blocking import WatchOptions, WatchState
from shared.consul.client import Consul
from shared.consul.holds import Holds
from shared.consul.members import Members
from shared.consul.metrics import show_holds, show_watches
from shared.ref import Ref, Source
from shared.runtime.identity import member_value
from shared.runtime.service import Context
from shared.runtime.settle import Settle
from shared.sigv4 import Key
from shared.store.keys import ARTIFACT, DEFAULT_ROOT, PROXY, UPSTREAM, UPSTREAM_GROUP, Kind, prefix
from shared.store.objects import Stored
from shared.store.watch import watch_objects

log = logging.getLogger(__name__)

KINDS = (PROXY, UPSTREAM, UPSTREAM_GROUP)
ARTIFACT_SECONDS = 5.0  # that the first reference to an Artifact may hold up what goes with it
SECRET_SECONDS = 5.0  # that new references to secrets may hold up what goes with them
FLEETS_SECONDS = 5.0  # the same of instances of EC2
FLEET_SECONDS = 60.0  # between two questions for them, unless settings say otherwise
FILES_SECONDS = 10.0
MEMBER_TTL = 15.0  # seconds; membership here tells people, and whom a refusal is left to


class Session:
    """Reads objects and endpoints, has them translated, and publishes what comes of it."""

    def __init__(self, context: Context, settings: gloo.Settings, consul: Consul, lasting: Lasting) -> None:
        self._context = context
        self._consul = consul
        self._lasting = lasting
        self._root = (settings.consul_kv_source.root_key if settings.consul_kv_source else "") or DEFAULT_ROOT
        artifacts = settings.consul_kv_artifact_source
        self._artifact_root = (artifacts.root_key if artifacts else "") or self._root
        directory = settings.directory_artifact_source
        namespace = settings.discovery_namespace or "gloo-system"
        watched = set(settings.watch_namespaces)
        everywhere = not watched or bool(watched & {"", "*"})
        self._namespaces = set() if everywhere else watched | {namespace}
        self._artifact_files = ArtifactFiles(directory.directory, self._namespaces) if directory else None
        name = f"{socket.gethostname()}-{os.getpid()}"
        state = context.options.state_dir
        self._holds = Holds(
            consul, self._root, "gloo", name, signature=state / "consul-history.json" if state else None
        )
        self._endpoints = ConsulEndpoints(consul, EndpointOptions.of(settings), self._holds)
        self._pipeline = Pipeline(
            self._endpoints.table,
            Policy.of(settings),
            memory=(memory := lasting.memory()),
            stand_ins=lasting.feedback.stand_ins,
            standing_in=lasting.feedback.standing_in,
            takes=lasting.feedback.takes,
        )
        self._secrets = SecretFeed(
            secret_sources(settings, os.environ), self._secrets_changed, namespaces=self._namespaces
        )
        refresh = settings.refresh_rate
        self._fleets = Fleets(
            self._fleets_changed,
            self._pipeline.secrets.key,
            own=Key.of(os.environ),
            endpoint=Policy.of(settings).aws.ec2_endpoint,
            period=max(refresh.total_seconds() if refresh is not None else FLEET_SECONDS, 1.0),
        )
        roles = lasting.stale.written
        self._holds.owe(prefix(self._root, PROXY), ("/".join(proxy_of(role)) for role in roles))
        self._holds.owe(prefix(self._root, UPSTREAM), map("/".join, memory.upstreams()), if_lost=True)
        lasting.feedback.trace = self._pipeline.trace
        self._changes = Changes()
        self._news = asyncio.Event()
        self._wants_artifacts, self._has_artifacts = asyncio.Event(), asyncio.Event()
        self._watches = {kind.name: WatchState(kind.name) for kind in KINDS}
        self._waiting: set[str] = {kind.name for kind in KINDS} | {"endpoints", "refusals"}
        self._blamed: Set[Source] = frozenset()
        self._speaker = Speaker(
            consul,
            self._root,
            name=name,
            namespace=namespace,
            pipeline=self._pipeline,
            feedback=lasting.feedback,
            metrics=context.metrics,
        )
        self._members = Members(
            consul,
            f"{self._root}/_members/gloo/",
            name,
            value=member_value(context.admin),
            ttl=MEMBER_TTL,
        )
        self._hearsay = Hearsay(
            consul,
            self._root,
            me=f"{name}:{lasting.id}",
            feedback=lasting.feedback,
            members=self._members,
            leading=lambda: self._speaker.election.leader,
            synced=lambda: self._arrived("refusals"),
        )

    async def run(self) -> None:
        """Follow everything until cancelled."""
        self._endpoints.subscribe(self._endpoints_changed)
        self._context.admin.debug("gloo", self.state)
        self._context.admin.debug_below("roles", self.progress)
        show_watches(self._context.metrics, self.watches)
        show_holds(self._context.metrics, self._context.admin, self._holds)
        show_secrets(self._context.metrics, self._context.admin, self._secrets)
        self._tell_readiness()
        async with asyncio.TaskGroup() as tasks:
            for kind in KINDS:
                tasks.create_task(self._watch(kind, self._root), name=f"watch {kind}")
            tasks.create_task(self._watch_artifacts(), name="watch Artifact")
            tasks.create_task(self._endpoints.run(), name="endpoints")
            tasks.create_task(self._secrets.run(), name="secrets")
            tasks.create_task(self._fleets.run(), name="instances of EC2")
            tasks.create_task(self._look_for_files(), name="files")
            tasks.create_task(self._translate(), name="translate")
            tasks.create_task(self._follow_refusals(), name="feedback")
            tasks.create_task(self._speaker.writer.run(), name="statuses")
            tasks.create_task(self._speaker.election.run(), name="election")
            tasks.create_task(self._speaker.follow_leadership(), name="leadership")
            tasks.create_task(self._members.run(), name="membership")
            tasks.create_task(self._holds.run(), name="holds")
            tasks.create_task(self._hearsay.run(), name="refusals")

    def state(self) -> dict[str, Any]:
        """For ``/debug/gloo``."""
        election, served = self._speaker.election, self._pipeline.proxies.served
        return {
            "leader": election.holder,
            "leading": election.leader,
            "waiting_for": sorted(self._waiting),
            "last_good_since": dict(self._lasting.stale.written),
            "watches": self._watches,
            "endpoints": self._endpoints.state(),
            "secrets": self._secrets.state(),
            "instances": self._fleets.state(),
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

    async def progress(self, path: str) -> dict[str, Any]:
        return await progress_page(
            path, self._speaker.stored, self._lasting.server, self._lasting.feedback, self._lasting.stale
        )

    def watches(self) -> Iterator[WatchState]:
        yield from self._watches.values()
        yield from self._endpoints.watches()
        yield from (self._speaker.election.state, self._members.state, self._hearsay.state)

    # -- what comes in

    async def _watch_artifacts(self) -> None:
        """Artifacts are read once something refers to one, and from then on."""
        await self._wants_artifacts.wait()
        if self._artifact_files is None:
            self._watches[ARTIFACT.name] = WatchState(ARTIFACT.name)
            await self._watch(ARTIFACT, self._artifact_root)
        else:
            async for put, gone in self._artifact_files.follow():
                self._artifacts_changed(put, gone)

    async def _watch(self, kind: Kind, root: str) -> None:
        watching = watch_objects(
            self._consul.kv,
            root,
            kind,
            namespaces=self._namespaces,
            options=WatchOptions(holds=self._holds),
            state=self._watches[kind.name],
        )
        async for change in watching:
            self._speaker.withdraw(kind, change.gone)
            if kind is ARTIFACT:
                self._artifacts_changed(change.put, change.gone)
                continue
            self._changes.add(kind, change.put, change.gone)
            self._arrived(kind.name)

    def _artifacts_changed(self, put: Mapping[Ref, Stored], gone: Set[Ref]) -> None:
        self._changes.add(ARTIFACT, put, gone)
        self._has_artifacts.set()
        self._news.set()

    def _endpoints_changed(self, services: Set[str]) -> None:
        self._changes.services.update(services)
        if self._endpoints.synced:
            self._arrived("endpoints")

    def _secrets_changed(self, answers: Mapping[Ref, Answer]) -> None:
        self._changes.secrets.update(answers)
        self._news.set()

    def _fleets_changed(self, fleets: Mapping[Ref, Fleet]) -> None:
        self._changes.fleets.update(fleets)
        self._news.set()

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
        settle, ready, outcome = Settle(), False, Outcome()
        while True:
            await self._news.wait()
            if self._waiting:
                self._news.clear()
                continue
            async with settle:
                self._news.clear()
                changes, self._changes = self._changes, Changes()
                outcome.add(await self._pipeline.apply(changes))
                self._speaker.take_over(changes)
                if await self._lacks_artifacts(outcome) and not ready and not self._lasting.restored:
                    self._context.admin.ready("snapshot", False, "waiting for Consul: Artifact")
                    continue
                if await self._lacks_secrets(outcome) and not ready and not self._lasting.restored:
                    self._context.admin.ready("snapshot", False, self._secrets.why_unread)
                    continue
                await self._ask_for_fleets(outcome)
                await self._publish(outcome)
                outcome = Outcome()
            if not ready:
                ready = self._hearsay.settled = True
                for role in self._lasting.stale.written:
                    log.warning(
                        "its Proxy is not in Consul; its Envoys keep the last good snapshot",
                        extra={"role": role},
                    )
                self._context.admin.ready("snapshot", True)

    async def _lacks_artifacts(self, outcome: Outcome) -> bool:
        """Once something refers to an Artifact, have them read before anybody hears of it; whether that has
        not succeeded yet. Only the first reference waits for it."""
        if not self._pipeline.artifacts_wanted or self._has_artifacts.is_set():
            return False
        if not self._wants_artifacts.is_set():
            self._wants_artifacts.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ARTIFACT_SECONDS):
                    await self._has_artifacts.wait()
            changes, self._changes = self._changes, Changes()
            outcome.add(await self._pipeline.apply(changes))
            self._speaker.take_over(changes)
        return not self._has_artifacts.is_set()

    async def _lacks_secrets(self, outcome: Outcome) -> bool:
        """Have what is newly referred to read before anybody hears of it; whether that did not succeed.

        The first time, without anything that was served before, all waits for it: to serve the rest would
        take the listeners away that Envoys have.
        """
        self._secrets.want(self._pipeline.secrets_wanted)
        if self._secrets.unread:
            await self._secrets.settled(SECRET_SECONDS)
        if found := self._changes.secrets:
            self._changes.secrets = {}
            outcome.add(await self._pipeline.apply(Changes(secrets=found)))
        return bool(self._secrets.unread)

    async def _ask_for_fleets(self, outcome: Outcome) -> None:
        """Have EC2 asked for what is new before anybody hears of it."""
        self._fleets.want(self._pipeline.fleets_wanted)
        await self._fleets.settled(FLEETS_SECONDS)
        if found := self._changes.fleets:
            self._changes.fleets = {}
            outcome.add(await self._pipeline.apply(Changes(fleets=found)))

    async def _publish(self, outcome: Outcome) -> None:
        for role, snapshot in outcome.snapshots.items():
            self._lasting.publish(role, snapshot, self._pipeline)
        await asyncio.sleep(0)  # the streams send it first
        await self._speaker.speak(outcome.reported)

    async def _look_for_files(self) -> None:
        """Have Envoys look again for files of certificates that they did not find."""
        feedback = self._lasting.feedback
        while True:
            await asyncio.sleep(FILES_SECONDS)
            refusals = (each for role in self._lasting.cache.roles() for each in feedback.refusals(role))
            if self._pipeline.secrets.try_again({each.name for each in refusals if each.type_url == SECRET}):
                self._news.set()

    async def _follow_refusals(self) -> None:
        """Have refusals told to those whose fault they are, and taken back when they are over."""
        feedback = self._lasting.feedback
        while True:
            role = await self._lasting.roles.get()
            self._pipeline.secrets.try_again(feedback.unsure())
            self._news.set()  # what stands in for something held may need clusters of its own
            self._lasting.keep(role, self._pipeline)
            refused = {source for each in feedback.refusals(role) for source in each.sources}
            upstreams = {source for source in self._pipeline.reports if source.kind == "Upstream"}
            await self._speaker.speak(
                {Source("Proxy", proxy_of(role))} | upstreams & (refused | self._blamed)
            )
            self._blamed = refused
