"""The admin endpoints of a process.

``GET /healthz`` (alive), ``GET /readyz`` (503 with reasons until everything is ready; and what is held),
``GET /metrics``, ``GET /debug`` (the list of debug pages), ``GET /debug/<page>``, ``GET`` and
``PUT /logging?level=``.
"""

from __future__ import annotations

import errno
import inspect
import logging
import os
import socket
from collections.abc import Callable, Sequence

import orjson
from aiohttp import web

from shared.errors import InvalidSettings
from shared.telemetry import logs
from shared.telemetry.metrics import CONTENT_TYPE, Metrics
from shared.telemetry.plain import plain

log = logging.getLogger(__name__)


class Admin:
    """What a process tells its operator; ``ready`` and ``debug`` fill it from anywhere in the process.

    ``address`` is where others find it, as ``HOST:PORT``; empty before the start. ``held`` says in a line
    each what is gone on with though Consul has lost it: no reason not to be ready, but one to look. *heed* is
    called when all comes to be ready, or is no longer.
    """

    def __init__(self, metrics: Metrics, heed: Callable[[bool], None] = lambda ready: None) -> None:
        self.address = ""
        self.held: Callable[[], Sequence[str]] = tuple
        self._metrics = metrics
        self._heed = heed
        self._waiting: dict[str, str] = {"start": "starting"}
        self._pages: dict[str, Callable[[], object]] = {}
        self._trees: dict[str, Callable[[str], object]] = {}
        self._runner: web.AppRunner | None = None
        self._gauge = metrics.gauge("ready", "1 when every part of the process is ready")

    def ready(self, name: str, ok: bool, why: str = "") -> None:
        """Part *name* is ready, or is not and *why*; the process is ready when no part is not."""
        was_ready = not self._waiting
        self._waiting.pop("start", None)
        if ok:
            self._waiting.pop(name, None)
        else:
            self._waiting[name] = why or "not ready"
        is_ready = not self._waiting
        if is_ready != was_ready:
            self._gauge.set(is_ready)
            self._heed(is_ready)
            log.info("ready" if is_ready else "not ready", extra={"waiting": self.waiting})

    @property
    def waiting(self) -> dict[str, str]:
        """The parts that are not ready, each with its reason."""
        return dict(self._waiting)

    def debug(self, path: str, page: Callable[[], object]) -> None:
        """Serve what *page* gives, or awaits to, as JSON at ``/debug/<path>``. One that has much to tell does
        so in steps, each part an ``orjson.Fragment``."""
        self._pages[path.removeprefix("/debug").strip("/")] = page

    def debug_below(self, path: str, page: Callable[[str], object]) -> None:
        """Serve what *page* makes of the rest of the path as JSON below ``/debug/<path>/``."""
        self._trees[path] = page

    async def start(self, host: str, port: int) -> int:
        """Listen; the port is given back (of use when *port* is 0)."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._serve_metrics),
                web.get("/debug", self._list_pages),
                web.get("/debug/{page:.+}", self._serve_page),
                web.get("/logging", self._get_level),
                web.put("/logging", self._put_level),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        try:
            await site.start()
        except OSError as error:
            await self.close()
            raise InvalidSettings(why_not_listening(host, port, error)) from error
        bound: int = self._runner.addresses[0][1]
        self.address = join_address(reachable(host), bound)
        return bound

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _healthz(self, request: web.Request) -> web.Response:
        return as_json({"alive": True})

    async def _readyz(self, request: web.Request) -> web.Response:
        answer = {"ready": not self._waiting, "waiting": self._waiting}
        if held := self.held():
            answer["held"] = held
        return as_json(answer, 503 if self._waiting else 200)

    async def _serve_metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def _list_pages(self, request: web.Request) -> web.Response:
        pages = [*self._pages, *(f"{path}/…" for path in self._trees)]
        return as_json({"pages": [f"/debug/{path}" for path in sorted(pages)]})

    async def _serve_page(self, request: web.Request) -> web.Response:
        path = request.match_info["page"].strip("/")
        top, _, rest = path.partition("/")
        if page := self._pages.get(path):
            shown = page()
        elif rest and (tree := self._trees.get(top)):
            shown = tree(rest)
        else:
            return as_json({"error": f"no page {request.path}; GET /debug lists them"}, 404)
        return as_json(await shown if inspect.isawaitable(shown) else shown)

    async def _get_level(self, request: web.Request) -> web.Response:
        return as_json({"level": logs.get_level()})

    async def _put_level(self, request: web.Request) -> web.Response:
        before = logs.get_level()
        try:
            logs.set_level(request.query.get("level", ""))
        except InvalidSettings as error:
            return as_json({"error": f"{error} (PUT /logging?level=debug)"}, 400)
        log.warning("log level changed", extra={"before": before, "now": logs.get_level()})
        return as_json({"level": logs.get_level()})


def reachable(host: str) -> str:
    """*host* as others call it: who listens everywhere is found by the machine's name."""
    return socket.gethostname() if host in ("", "0.0.0.0", "::") else host


def join_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def why_not_listening(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"cannot serve the admin endpoints on {host}:{port}: another process listens there; "
            "choose another address with --admin-addr or ADMIN_ADDR"
        )
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    return f"cannot serve the admin endpoints on {host}:{port}: {reason}; see --admin-addr or ADMIN_ADDR"


def as_json(value: object, status: int = 200) -> web.Response:
    body = orjson.dumps(plain(value), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE, default=str)
    return web.Response(body=body, status=status, content_type="application/json")
