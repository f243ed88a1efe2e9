"""Run a service: flags, settings, logs, admin endpoints, signals; the rest is its ``serve``.

::

    async def serve(context: Context) -> None:
        async with Consul(...) as consul:
            context.tasks.start("watch", lambda: watch(consul))
            await context.until_stopped()     # SIGTERM came and all tasks have ended: close what they used

    def main() -> int:
        return run("gloo", serve, admin_addr="127.0.0.1:9091")

Ends with 0 after SIGTERM or SIGINT, with 2 and one line when settings, a flag or a port cannot be used,
with 1 when ``serve`` itself fails, or does not end though it was cut off.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvloop

from shared.errors import InvalidSettings
from shared.runtime.garbage import Garbage
from shared.runtime.settings import LiveSettings, SettingsFile
from shared.runtime.supervise import Supervisor
from shared.telemetry import logs
from shared.telemetry.admin import Admin
from shared.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
DRAIN_SECONDS = 20.0
CUT_OFF_SECONDS = 5.0  # that what was cut off may take to end
LEAVE_SECONDS = 2.0  # that threads may take when all else has ended
STDERR = 2
HEARTBEAT_SECONDS = 2.0
FAILED = 1
BAD_SETTINGS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The flags every service takes."""

    dir: Path
    namespace: str
    name: str
    admin_host: str
    admin_port: int
    state_dir: Path | None
    log_level: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a service is given to work with."""

    name: str
    options: Options
    settings: LiveSettings
    admin: Admin
    metrics: Metrics
    stopping: asyncio.Event
    tasks: Supervisor

    async def until_stopped(self) -> None:
        """Wait for the signal to stop, then end all tasks; close what they used after that."""
        await self.stopping.wait()
        await self.tasks.stop()


Serve = Callable[[Context], Awaitable[None]]


def run(
    name: str,
    serve: Serve,
    argv: Sequence[str] | None = None,
    *,
    admin_addr: str = "127.0.0.1:9091",
    settings_used: Collection[str] = (),
    keeps_state: bool = False,
) -> int:
    """Run service *name* until it is told to stop; the process' exit code.

    *keeps_state* gives it the flag ``--state-dir``.

    *settings_used* are the settings' paths that have an effect in this product (``consul``,
    ``gloo.xdsBindAddr``, or a whole section that is another role's business); set fields outside them
    are warned of by name.
    """
    signals = _Signals()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            options = parse(name, argv, os.environ, admin_addr, keeps_state=keeps_state)
            logs.configure(options.log_level)
            garbage = Garbage()
            file = SettingsFile(dir=options.dir, namespace=options.namespace, name=options.name)
            code = runner.run(_run(name, serve, options, file, settings_used, garbage, signals))
        except InvalidSettings as error:
            sys.stderr.write(f"{name}: {error}\n")
            code = BAD_SETTINGS
        except Exception:
            log.critical("the service failed", exc_info=True)
            code = FAILED
        signals.ignore()
        _leave_soon(code)
    return code


def parse(
    name: str,
    argv: Sequence[str] | None,
    environ: Mapping[str, str],
    admin_addr: str,
    *,
    keeps_state: bool = False,
) -> Options:
    """The options; flags go before the environment, the environment before defaults."""
    parser = argparse.ArgumentParser(prog=name, allow_abbrev=False)
    add = parser.add_argument
    add("--dir", type=Path, required=True, help="folder of the settings: DIR/<namespace>/<name>.yaml")
    add("--namespace", default=environ.get("POD_NAMESPACE") or "gloo-system", help="default: %(default)s")
    add("--name", default="default", help="name of the settings; default: %(default)s")
    add(
        "--admin-addr",
        default=environ.get("ADMIN_ADDR") or admin_addr,
        metavar="HOST:PORT",
        help="where /healthz, /readyz, /metrics and /debug are served; default: %(default)s",
    )
    if keeps_state:
        add("--state-dir", type=Path, help="folder for what should survive a restart")
    add("--log-level", default=environ.get("LOG_LEVEL") or "info", help="default: %(default)s")
    given = parser.parse_args(argv)
    host, port = split_address(given.admin_addr, "--admin-addr")
    logs.parse_level(given.log_level)
    return Options(
        dir=given.dir,
        namespace=given.namespace,
        name=given.name,
        admin_host=host,
        admin_port=port,
        state_dir=given.state_dir if keeps_state else None,
        log_level=given.log_level,
    )


def split_address(address: str, what: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``, ``:PORT`` or ``[V6]:PORT``; *what* names the setting in the error."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise InvalidSettings(f"{what}: {address!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)


async def _run(
    name: str,
    serve: Serve,
    options: Options,
    file: SettingsFile,
    settings_used: Collection[str],
    garbage: Garbage,
    signals: _Signals,
) -> int:
    metrics, stopping = Metrics(), signals.stopping
    admin = Admin(metrics, garbage.look)
    signals.tell(admin)
    if not stopping.is_set():
        settings = LiveSettings(file, settings_used)
        port = await admin.start(options.admin_host, options.admin_port)
        log.info(
            "starting",
            extra={"service": name, "admin": f"{options.admin_host}:{port}", "settings": str(file.path)},
        )
        try:
            async with Supervisor(metrics) as tasks:
                context = Context(
                    name=name,
                    options=options,
                    settings=settings,
                    admin=admin,
                    metrics=metrics,
                    stopping=stopping,
                    tasks=tasks,
                )
                tasks.start("heartbeat", partial(_beat, settings, admin, metrics, garbage))
                serving = asyncio.ensure_future(serve(context))
                signals.cut_off = partial(_cut_off, serving, tasks)
                await _until_done(serving, stopping)
        except BaseExceptionGroup as group:
            raise _settings_error(group) or group from None
        finally:
            await admin.close()
    log.info("stopped", extra={"service": name})
    return 0


class _Signals:
    """SIGTERM and SIGINT: the first asks to stop; a second one, or a while later, cuts off what serves.

    They are heeded from before there is an event loop until the process has ended: handlers of the loop's own
    end with it, and a signal that comes then would kill the process. One whose loop is stuck ends, too, and
    says where it was.
    """

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.cut_off: Callable[[], object] = lambda: None
        self._admin: Admin | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._came = 0
        for number in SIGNALS:
            signal.signal(number, self._come)

    def tell(self, admin: Admin) -> None:
        """From now on signals come to the running loop."""
        self._admin, self._loop = admin, asyncio.get_running_loop()

    def ignore(self) -> None:
        """All has ended but the process."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _come(self, number: int, frame: object) -> None:
        """At any point of the program."""
        self._came += 1
        if self._came <= 2:
            seconds = CUT_OFF_SECONDS if self._came == 2 else DRAIN_SECONDS + CUT_OFF_SECONDS
            faulthandler.dump_traceback_later(seconds, exit=True, file=STDERR)
        if self._loop is None:
            self.stopping.set()
        else:
            self._loop.call_soon_threadsafe(self._stop, signal.Signals(number))

    def _stop(self, number: signal.Signals) -> None:
        if self.stopping.is_set():
            self.cut_off()
            return
        log.info("stopping", extra={"signal": number.name})
        if self._admin is not None:
            self._admin.ready("process", False, "stopping")
        self.stopping.set()
        asyncio.get_running_loop().call_later(DRAIN_SECONDS, lambda: self.cut_off())


def _cut_off(serving: asyncio.Future[None], tasks: Supervisor) -> None:
    """The tasks first: once cut off, what serves closes what they use."""
    tasks.cancel()
    serving.cancel()


def _leave_soon(code: int) -> None:
    """End the process with *code* even if a thread does not, one that waits for a name server's answer, say;
    nothing that matters is left to do."""

    def leave() -> None:
        log.warning("did not wait for a thread to end")
        os._exit(code)

    timer = threading.Timer(LEAVE_SECONDS, leave)
    timer.daemon = True
    timer.start()


async def _until_done(serving: asyncio.Future[None], stopping: asyncio.Event) -> None:
    try:
        await serving
    except asyncio.CancelledError:  # either the tasks' group ends us, or the operator's patience did
        if not stopping.is_set():
            raise
        log.warning("did not finish in time and was cut off", extra={"seconds": DRAIN_SECONDS})
    else:
        if not stopping.is_set():
            log.error("the service returned without being told to stop")


async def _beat(settings: LiveSettings, admin: Admin, metrics: Metrics, garbage: Garbage) -> None:
    """The one timer of a process at rest: looks at settings and garbage, and tells how late the loop is."""
    lag = metrics.histogram("event_loop_lag_seconds", "How late a timer fired")
    clock = asyncio.get_running_loop().time
    while True:
        due = clock() + HEARTBEAT_SECONDS
        await asyncio.sleep(HEARTBEAT_SECONDS)
        lag.observe(max(clock() - due, 0.0))
        settings.check()
        garbage.look(not admin.waiting)


def _settings_error(error: BaseException) -> InvalidSettings | None:
    """The bad setting that a group of errors comes from, if one does."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(_settings_error, error.exceptions)), None)
    return error if isinstance(error, InvalidSettings) else None
