"""The xDS server as the settings want it: where, with which limits, over TLS or in the clear."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import orjson

from protos import gloo
from services.gloo.proxyless import Proxyless
from services.gloo.xds import Cache, Observer, Options, XdsServer
from services.gloo.xds.client import Measure
from services.gloo.xds.tls import Files, Roles, follow
from shared.errors import InvalidSettings
from shared.runtime.breath import Breath
from shared.runtime.service import split_address
from shared.runtime.supervise import Supervisor

log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Serving:
    """Lives as long as the process. Who may ask for what follows the settings; the rest is the start's."""

    def __init__(self, settings: gloo.Settings, cache: Cache, observer: Observer, measure: Measure) -> None:
        self._address = xds_address(settings)
        self._lasting = _lasting(settings)
        self._roles = Roles()
        self._roles.allow(_clients(settings))
        self._files = Files.of(self._lasting.tls) if self._lasting.tls else None
        self.server = XdsServer(
            cache,
            Options.of(settings),
            Proxyless(cache, observer),
            measure=measure,
            admit=self._roles.admit,
        )

    async def start(self, tasks: Supervisor) -> None:
        """Listen; ``InvalidSettings`` when that cannot be. *tasks* look after the certificates."""
        host, port = self._address
        files, context = self._files, None
        if files is not None:
            seen = files.signature()
            context = files.load()
            tasks.start("certificates", lambda: follow(files, seen, self.server.renew))
        try:
            await self.server.start(host, port, context)
        except OSError as error:
            raise InvalidSettings(
                f"cannot serve xDS on {host}:{port}: {error.strerror or error}; see settings.gloo.xdsBindAddr"
            ) from error
        if files is None and host not in LOOPBACK:
            log.warning(
                "xDS is served without TLS: whoever reaches it can read it; see settings.gloo.xds.tls",
                extra={"address": f"{host}:{port}"},
            )
        elif files is not None and files.client_ca is None:
            log.warning(
                "xDS is served to clients without a certificate; see settings.gloo.xds.tls.clientCaFile",
                extra={"address": f"{host}:{port}"},
            )
        log.info("serving xDS", extra={"address": f"{host}:{self.server.port}", "tls": files is not None})

    def take_over(self, settings: gloo.Settings) -> None:
        """Let clients have what they now may, and no longer what they may not."""
        if xds_address(settings) != self._address or _lasting(settings) != self._lasting:
            log.error(
                "settings.gloo.xdsBindAddr and settings.gloo.xds take effect with the next start, but for "
                "tls.clients",
                extra={"serving": "{}:{}".format(*self._address)},
            )
        if self._roles.allow(_clients(settings)):
            self.server.readmit()

    async def state(self) -> dict[str, Any]:
        """For ``/debug/xds``; clients are thousands, so each is JSON already."""
        breath, clients = Breath(), list[orjson.Fragment]()
        for client in self.server.clients():
            clients.append(orjson.Fragment(orjson.dumps(client)))
            await breath.take()
        return {"clients": clients, "turned_away": self.server.refused()}


def xds_address(settings: gloo.Settings) -> tuple[str, int]:
    address = settings.gloo.xds_bind_addr if settings.gloo else ""
    return split_address(address or "0.0.0.0:9977", "settings.gloo.xdsBindAddr")


def _lasting(settings: gloo.Settings) -> gloo.XdsOptions:
    """What is settled at the start."""
    given = settings.gloo.xds if settings.gloo else None
    if given is None or given.tls is None:
        return given or gloo.XdsOptions()
    return replace(given, tls=replace(given.tls, clients=[]))


def _clients(settings: gloo.Settings) -> list[gloo.XdsClient]:
    given = settings.gloo.xds if settings.gloo else None
    return given.tls.clients if given and given.tls else []
