"""The discovery service: every service in Consul is an Upstream for as long as it is there."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from protos import gloo
from services.discovery.inputs import Inputs
from services.discovery.shards import has_joined, is_mine, replicas
from services.discovery.upkeep import Upkeep
from services.discovery.upstreams.consul import Rules
from shared.consul.client import Consul
from shared.consul.config import ConsulConfig
from shared.consul.datacenters import CatalogOptions
from shared.consul.holds import Holds
from shared.consul.members import Members
from shared.consul.metrics import show_holds, show_watches
from shared.errors import InvalidSettings
from shared.runtime.identity import member_value
from shared.runtime.service import Context, run
from shared.runtime.settings import LiveSettings
from shared.store.keys import DEFAULT_ROOT, UPSTREAM, prefix

log = logging.getLogger(__name__)

PART = "discovery"

SETTINGS_USED = (
    "consul",
    "consulDiscovery.useTlsTagging",
    "consulDiscovery.tlsTagName",
    "consulDiscovery.rootCa",
    "consulDiscovery.splitTlsServices",
    "consulDiscovery.serviceTagsAllowlist",
    "consulDiscovery.consistencyMode",
    "consulKvSource",
    "discovery.udsOptions",
    "discoveryNamespace",
    "upstreamOptions.globalAnnotations",
    # other roles' business
    "consulKvArtifactSource",
    "directoryArtifactSource",
    "directorySecretSource",
    "gateway",
    "gloo",
    "refreshRate",
    "secretOptions",
    "upstreamOptions.sslParameters",
    "vaultSecretSource",
    "watchNamespaces",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the settings mean for us; while it is equal, a change of the settings is none of our business."""

    consul: ConsulConfig
    root: str
    rules: Rules
    catalog: CatalogOptions
    off: str = ""
    """Why there is nothing to discover; empty when there is."""

    @classmethod
    def of(cls, settings: gloo.Settings, environ: Mapping[str, str]) -> Plan:
        """Raises ``InvalidSettings``."""
        source = settings.consul_kv_source
        return cls(
            consul=ConsulConfig.of(settings, environ),
            root=(source.root_key if source else "") or DEFAULT_ROOT,
            rules=Rules.of(settings),
            catalog=CatalogOptions.of(settings),
            off=_why_off(settings),
        )


def main(argv: Sequence[str] | None = None) -> int:
    return run("discovery", serve, argv, admin_addr="127.0.0.1:9093", settings_used=SETTINGS_USED)


async def serve(context: Context) -> None:
    """Discover until told to stop."""
    context.admin.ready(PART, False, "starting")
    context.tasks.start("discover", partial(discover, context))
    await context.until_stopped()


async def discover(context: Context) -> None:
    """Carry out what the settings say, and start anew when they come to mean something else."""
    plan = Plan.of(context.settings.value, os.environ)
    while True:
        async with asyncio.TaskGroup() as tasks:
            work = tasks.create_task(carry_out(plan, context))
            plan = await _next_plan(context.settings, plan)
            log.info("starting anew with the new settings")
            work.cancel()


async def carry_out(plan: Plan, context: Context) -> None:
    """Discover as *plan* says, for ever."""
    if plan.off:
        log.info("no services are discovered", extra={"reason": plan.off})
        context.admin.ready(PART, True)
        context.admin.debug(PART, lambda: {"off": plan.off})
        await asyncio.Event().wait()
    async with Consul(plan.consul) as consul, asyncio.TaskGroup() as tasks:
        inputs, members = Inputs(), replicas(consul, plan.root, member_value(context.admin))
        show_watches(context.metrics, lambda: [*inputs.watches.values(), members.state])
        upstreams = prefix(plan.root, UPSTREAM)
        holds = Holds(
            consul,
            plan.root,
            "discovery",
            members.name,
            changed=lambda: inputs.take_lost(holds.held[upstreams].names if upstreams in holds.held else ()),
        )
        show_holds(context.metrics, context.admin, holds)
        upkeep = Upkeep(
            inputs,
            consul.kv,
            plan.root,
            plan.rules,
            partial(is_mine, members),
            context.metrics,
            holds=holds,
        )

        def ready(ok: bool, why: str) -> None:
            joined = has_joined(members)
            context.admin.ready(PART, ok and joined, why if not ok else "joining the other replicas")

        context.admin.debug(PART, lambda: {"members": members.current, "me": members.name, **upkeep.state()})
        tasks.create_task(members.run(), name="members")
        tasks.create_task(_follow_members(members, inputs), name="shares")
        tasks.create_task(inputs.follow_catalog(consul, plan.catalog), name="catalog")
        tasks.create_task(
            inputs.follow_upstreams(consul, plan.root, plan.rules.namespace, holds), name="stored upstreams"
        )
        tasks.create_task(upkeep.run(ready), name="upkeep")
        tasks.create_task(holds.run(), name="holds")


async def _follow_members(members: Members, inputs: Inputs) -> None:
    while True:
        await members.wait_changed()
        inputs.changed.set()


async def _next_plan(settings: LiveSettings, plan: Plan) -> Plan:
    """The first plan that differs; settings that make none leave things as they are."""
    seen = settings.value
    while True:
        seen = await settings.latest.next(seen)
        try:
            found = Plan.of(seen, os.environ)
        except InvalidSettings as error:
            log.error("settings not taken over, the last good ones stay", extra={"error": str(error)})
            continue
        if found != plan:
            return found


def _why_off(settings: gloo.Settings) -> str:
    if settings.consul is None or settings.consul.service_discovery is None:
        return "settings: consul.serviceDiscovery is not set"
    uds = settings.discovery.uds_options if settings.discovery else None
    if uds and uds.enabled is False:
        return "settings: discovery.udsOptions.enabled is false"
    return ""
