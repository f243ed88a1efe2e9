"""The gloo process: Consul's objects and endpoints in, xDS and statuses out.

The xDS server and what it serves live as long as the process. Everything that depends on the settings is a
session, begun anew when they change: Envoys keep what they have until the new session has read everything.
"""

from __future__ import annotations

import asyncio
import os

from protos import gloo
from services.gloo.lasting import Lasting
from services.gloo.session import Session
from shared.consul.client import Consul, ConsulConfig
from shared.runtime.service import Context, run

SETTINGS_USED = (
    "consul",
    "consulDiscovery",
    "consulKvArtifactSource",
    "consulKvSource",
    "discovery",
    "discoveryNamespace",
    "watchNamespaces",
    "gateway",
    "gloo.awsOptions.ec2Endpoint",
    "gloo.awsOptions.enableCredentialsDiscovey",
    "gloo.awsOptions.fallbackToFirstFunction",
    "gloo.awsOptions.lambdaEndpoint",
    "gloo.awsOptions.propagateOriginalRouting",
    "gloo.xdsBindAddr",
    "gloo.xds",
    "gloo.circuitBreakers",
    "gloo.regexMaxProgramSize",
    "gloo.invalidConfigPolicy",
    "refreshRate",
    "vaultSecretSource",
    "directoryArtifactSource",
    "directorySecretSource",
    "secretOptions",
    "upstreamOptions",
    "extauth",
    "namedExtauth",
    "ratelimitServer",
)


def main() -> int:
    return run("gloo", serve, admin_addr="127.0.0.1:9091", settings_used=SETTINGS_USED, keeps_state=True)


async def serve(context: Context) -> None:
    """Serve xDS until told to stop; sessions come and go with the settings."""
    lasting = Lasting(context)
    try:
        await _serve(context, lasting)
    finally:
        lasting.server.abort()  # it was not stopped in order, and would take in new clients to the last


async def _serve(context: Context, lasting: Lasting) -> None:
    await lasting.start(context)
    session: asyncio.Task[None] | None = None

    def begin(settings: gloo.Settings) -> None:
        nonlocal session
        if session is not None:
            session.cancel()
        lasting.take_over(settings)
        session = context.tasks.start("session", lambda: run_session(context, settings, lasting))

    begin(context.settings.value)
    context.settings.on_change(begin)
    await context.stopping.wait()
    await lasting.stop()
    await context.tasks.stop()


async def run_session(context: Context, settings: gloo.Settings, lasting: Lasting) -> None:
    async with Consul(ConsulConfig.of(settings, os.environ)) as consul:
        await Session(context, settings, consul, lasting).run()
