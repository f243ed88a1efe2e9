"""The gateway service: what people write in Gateways, VirtualServices and RouteTables becomes Proxies."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from protos import gloo
from services.gateway.inputs import KINDS, Inputs
from services.gateway.pipeline import Pipeline
from services.gateway.sink import Sink
from services.gateway.translator.model import Rules
from shared.consul.client import Consul
from shared.consul.config import ConsulConfig
from shared.consul.election import Election
from shared.consul.holds import Holds
from shared.consul.members import Members
from shared.consul.metrics import show_holds, show_watches
from shared.consul.operations import CheckSession
from shared.errors import InvalidSettings
from shared.runtime.identity import member_value
from shared.runtime.service import Context, run
from shared.runtime.settings import LiveSettings
from shared.store.keys import DEFAULT_ROOT, GATEWAY, PROXY, prefix
from shared.store.status import StatusWriter
from shared.store.store import Store

log = logging.getLogger(__name__)

PART = "gateway"
DEFAULT_NAMESPACE = "gloo-system"
MEMBER_TTL = 15.0
"""Seconds; membership here only tells people who is running."""
LOOK_AGAIN = 5.0
ALL_MISSED = 15.0
"""Seconds after which every watch has looked at a Consul that came back: none waits longer between tries."""

SETTINGS_USED = (
    "consul",
    "consulKvSource",
    "discoveryNamespace",
    "watchNamespaces",
    "gateway.alwaysSortRouteTableRoutes",
    "gateway.disableAutoGenGateways",
    "gateway.isolateVirtualHostsBySslConfig",
    "gateway.persistProxySpec",
    "gateway.readGatewaysFromAllNamespaces",
    "gateway.virtualServiceOptions.oneWayTls",
    # other roles' business
    "consulDiscovery",
    "consulKvArtifactSource",
    "directoryArtifactSource",
    "directorySecretSource",
    "discovery",
    "gloo",
    "refreshRate",
    "secretOptions",
    "upstreamOptions",
    "vaultSecretSource",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the settings mean for us; while it is equal, a change of the settings is none of our business."""

    consul: ConsulConfig
    root: str
    namespace: str
    namespaces: frozenset[str]
    """Where objects are read from; empty for everywhere."""
    all_gateways: bool
    make_defaults: bool
    rules: Rules

    @classmethod
    def of(cls, settings: gloo.Settings, environ: Mapping[str, str]) -> Plan:
        """Raises ``InvalidSettings``."""
        source, options = settings.consul_kv_source, settings.gateway or gloo.GatewayOptions()
        namespace = settings.discovery_namespace or DEFAULT_NAMESPACE
        watched = frozenset(settings.watch_namespaces)
        services = options.virtual_service_options
        return cls(
            consul=ConsulConfig.of(settings, environ),
            root=(source.root_key if source is not None else "") or DEFAULT_ROOT,
            namespace=namespace,
            namespaces=frozenset() if not watched or watched & {"", "*"} else watched | {namespace},
            all_gateways=options.read_gateways_from_all_namespaces,
            make_defaults=not options.disable_auto_gen_gateways,
            rules=Rules(
                sort_tables=options.always_sort_route_table_routes,
                one_way_tls=services.one_way_tls if services is not None else None,
                isolate_by_tls=bool(options.isolate_virtual_hosts_by_ssl_config),
            ),
        )

    @property
    def gateway_namespaces(self) -> frozenset[str]:
        return self.namespaces if self.all_gateways else frozenset({self.namespace})


def main(argv: Sequence[str] | None = None) -> int:
    return run("gateway", serve, argv, admin_addr="127.0.0.1:9092", settings_used=SETTINGS_USED)


async def serve(context: Context) -> None:
    """Translate until told to stop; start anew when the settings come to mean something else."""
    plan: Plan | None = Plan.of(context.settings.value, os.environ)
    while plan is not None:
        context.admin.ready(PART, False, "starting")
        async with Consul(plan.consul) as consul:
            plan = await carry_out(plan, consul, context)


async def carry_out(plan: Plan, consul: Consul, context: Context) -> Plan | None:
    """Work as *plan* says until there is another one, which is given back, or until told to stop."""
    admin, metrics = context.admin, context.metrics
    name = f"{socket.gethostname()}:{os.getpid()}"
    election = Election(consul, f"{plan.root}/_leaders/gateway", name)

    def fence() -> CheckSession | None:
        return election.fence

    members = Members(
        consul, f"{plan.root}/_members/gateway/", name, value=member_value(admin), ttl=MEMBER_TTL
    )
    inputs = Inputs(plan.root, plan.namespace)
    holds = Holds(consul, plan.root, "gateway", name, changed=lambda: write_again_later(holds, plan))
    show_holds(metrics, admin, holds)
    show_watches(metrics, lambda: [*inputs.watches.values(), election.state, members.state])
    writes = metrics.counter("gateway_proxy_writes", "Writes of Proxies, by result", ["result"])
    told = metrics.counter("gateway_status_writes", "Writes of statuses, by result", ["result"])
    pipeline = Pipeline(
        inputs=inputs,
        election=election,
        sink=Sink(
            consul.kv,
            plan.root,
            plan.namespace,
            fence=fence,
            writes=writes,
            awaited=partial(held_by_others, holds, plan, inputs.work),
        ),
        statuses=(
            statuses := StatusWriter(
                consul.kv,
                plan.root,
                namespace=plan.namespace,
                fence=fence,
                linger=0,
                observe=lambda what, count: told.labels(what).inc(count),
            )
        ),
        store=Store(consul.kv, plan.root),
        namespace=plan.namespace,
        rules=plan.rules,
        make_defaults=plan.make_defaults,
        metrics=metrics,
        ready=partial(admin.ready, PART),
        holds=holds,
    )
    admin.debug(PART, pipeline.state)
    start = context.tasks.start
    tasks = [
        start("election", election.run),
        start("membership", members.run),
        start("proxies", partial(inputs.follow_proxies, consul, holds)),
        *(
            start(kind.plural, partial(inputs.follow_objects, consul, kind, namespaces, holds))
            for kind in KINDS
            for namespaces in (plan.gateway_namespaces if kind is GATEWAY else plan.namespaces,)
        ),
        start("leadership", pipeline.follow_leadership),
        start("translate", pipeline.translate),
        start("report", pipeline.report),
        start("statuses", statuses.run),
        start("chunks", pipeline.collect),
        start("holds", holds.run),
    ]
    following = await _next_plan(context, plan, pipeline)
    if following is None:
        await context.until_stopped()
        return None
    log.info("starting anew with the new settings")
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return following


def write_again_later(holds: Holds, plan: Plan) -> None:
    """Have lost Proxies written again, once all they are made of is there, and not just not missed yet.

    Not before: a gloo that starts meanwhile would take a Proxy, and miss the Upstreams that it routes to.
    """
    proxies = prefix(plan.root, PROXY, plan.namespace)

    def look() -> None:
        if holds.held.keys() == {proxies}:
            holds.held[proxies].release()

    asyncio.get_running_loop().call_later(ALL_MISSED, look)


async def held_by_others(holds: Holds, plan: Plan, work: asyncio.Event, name: str) -> bool:
    """Whether a gloo goes on with a Proxy that Consul has lost; if so *work* is set, to ask again.

    When a gateway before us has noted what it is made of and all of that is back, none needs to wait.
    """
    inputs = [prefix(plan.root, kind) for kind in KINDS]
    if any([await holds.owed(each) for each in inputs]) and not holds.held.keys() & set(inputs):
        return False
    proxies = prefix(plan.root, PROXY)
    held = [note["held"].get(proxies, {}).get("names", ()) for note in await holds.notes()]
    if not any(f"{plan.namespace}/{name}" in names for names in held):
        return False
    asyncio.get_running_loop().call_later(LOOK_AGAIN, work.set)
    return True


async def _next_plan(context: Context, plan: Plan, pipeline: Pipeline) -> Plan | None:
    """The first plan that asks for a new start, None on the signal to stop; new rules just come in force."""
    stopping = asyncio.ensure_future(context.stopping.wait())
    settings: LiveSettings = context.settings
    seen = settings.value
    try:
        while True:
            changed = asyncio.ensure_future(settings.latest.next(seen))
            await asyncio.wait([stopping, changed], return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                changed.cancel()
                return None
            seen = changed.result()
            try:
                found = Plan.of(seen, os.environ)
            except InvalidSettings as error:
                log.error("settings not taken over, the last good ones stay", extra={"error": str(error)})
                continue
            pipeline.use(found.rules)
            if replace(found, rules=plan.rules, make_defaults=plan.make_defaults) != plan:
                return found
    finally:
        stopping.cancel()
