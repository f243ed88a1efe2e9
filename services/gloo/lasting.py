"""What outlives the settings: what is served, what Envoys make of it, and what is kept of it on disk."""

from __future__ import annotations

import asyncio
import logging
import secrets

from protos import gloo
from services.gloo.feedback import Feedback
from services.gloo.last_good import LastGood, State
from services.gloo.memory import Memory
from services.gloo.metrics import StaleMetric, XdsMetrics, show_snapshots
from services.gloo.pages import roles_page, snapshot_page
from services.gloo.pipeline import Pipeline, proxy_of
from services.gloo.resources import Snapshot
from services.gloo.serving import Serving
from services.gloo.xds.cache import Cache
from services.gloo.xds.options import Options
from shared.runtime.service import Context

log = logging.getLogger(__name__)

DRAIN_SECONDS = 5.0


class Lasting:
    """The xDS server with all that is served by it; begins with what the state directory has.

    ``roles`` names those whose refusals have changed; ``id`` tells this process from one of the same name.
    """

    def __init__(self, context: Context) -> None:
        settings, options = context.settings.value, context.options
        self.id = secrets.token_hex(4)
        self.cache = Cache()
        self.roles: asyncio.Queue[str] = asyncio.Queue()
        self.feedback = Feedback(self.roles.put_nowait, self.cache, retry=Options.of(settings).refusal_retry)
        self.stale = StaleMetric(context.metrics)
        measured = XdsMetrics(context.metrics)
        self.serving = Serving(settings, self.cache, self.feedback, measured.measure)
        self.server = self.serving.server
        self._kept = LastGood(options.state_dir) if options.state_dir else None
        self._states: dict[str, State] = {}
        measured.count_clients(lambda: self.server.streams)
        show_snapshots(context.metrics, self.cache)
        held_back = context.metrics.gauge("held_back", "Parts of what is served that an Envoy refused")
        held_back.set_function(lambda: self.feedback.held_back)
        context.admin.debug("xds", self.serving.state)
        context.admin.debug("roles", lambda: roles_page(self.server, self.feedback, self.stale))
        context.admin.debug_below("snapshot", lambda role: snapshot_page(self.cache.get(role)))

    async def start(self, context: Context) -> None:
        """Serve the last good snapshots, and listen."""
        kept = await asyncio.to_thread(list, self._kept.load()) if self._kept else ()
        for role, state, written in kept:
            self.feedback.restore(role, state.snapshot, state.held)
            self._states[role] = state
            self.stale.since(role, written)
            log.warning(
                "serving the last good snapshot until Consul was read",
                extra={"role": role, "written": written},
            )
        await self.serving.start(context.tasks)
        context.tasks.start("quarantine", self.feedback.run)
        if self._kept is not None:
            context.tasks.start("last good", self._kept.run)

    def take_over(self, settings: gloo.Settings) -> None:
        self.serving.take_over(settings)

    async def stop(self) -> None:
        """Let the Envoys go to another server, and write down what they were served."""
        await self.server.stop(DRAIN_SECONDS)
        if self._kept is not None:
            await self._kept.flush()

    @property
    def restored(self) -> bool:
        """Whether there is something that was served before."""
        return bool(self._states)

    def memory(self) -> Memory:
        """What translation is to know of what was served before it."""
        return Memory(
            {proxy_of(role): state.snapshot for role, state in self._states.items()},
            {name: each for state in self._states.values() for name, each in state.following.items()},
            [(proxy_of(role), *host) for role, state in self._states.items() for host in state.partial],
            {proxy_of(role): state.tls for role, state in self._states.items()},
        )

    def publish(self, role: str, snapshot: Snapshot | None, pipeline: Pipeline) -> None:
        """Serve *snapshot* to the role from now on."""
        self.feedback.publish(role, snapshot)
        self.stale.over(role)
        self.keep(role, pipeline)

    def keep(self, role: str, pipeline: Pipeline) -> None:
        """Have what is served kept for other settings and on disk, as long as no Envoy refuses part of it."""
        if not self.feedback.good(role):
            if self._kept is not None:
                self._kept.withhold(role)
            return
        snapshot, served = self.cache.get(role), pipeline.proxies.served.get(proxy_of(role))
        if snapshot is None:
            self._states.pop(role, None)
        elif served is not None:
            held, following = tuple(self.feedback.held(role)), dict(pipeline.clusters.following)
            tls = pipeline.proxies.tls(proxy_of(role))
            self._states[role] = State(snapshot, held, following, served.partial, tls)
        else:
            return
        if self._kept is not None:
            self._kept.keep(role, self._states.get(role))
