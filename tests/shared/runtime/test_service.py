"""Services as processes: a small one is started for real, asked, and stopped by signals."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from shared.errors import InvalidSettings
from shared.runtime.service import parse, split_address

ROOT = Path(__file__).parents[3]

SERVICE = """
import asyncio, os, signal, sys, time
from shared.errors import InvalidSettings
from shared.runtime.service import run

async def steady():
    await asyncio.Event().wait()

closed = asyncio.Event()

async def use():
    while not closed.is_set():
        await asyncio.sleep(0.001)
    raise RuntimeError("it is closed")

async def taken():
    raise InvalidSettings("gloo.xdsBindAddr: port 1 is taken")

async def serve(context):
    behaviour = sys.argv[1]
    if behaviour == "breaks":
        raise RuntimeError("a bug")
    context.tasks.start("steady", steady)
    if behaviour == "bad-setting":
        context.tasks.start("xds", taken)
    context.admin.ready("all", True)
    if behaviour == "hangs":
        context.tasks.start("use", use)
        try:
            await asyncio.Event().wait()
        finally:
            closed.set()
            await asyncio.sleep(0.1)
    if behaviour == "spins":
        while True:
            time.sleep(0.1)
    if behaviour == "leaves-a-thread":
        asyncio.get_running_loop().run_in_executor(None, time.sleep, 600)
    await context.until_stopped()

class Interrupted(list):
    def __iter__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        return super().__iter__()

argv = (Interrupted if sys.argv[1] == "is-told-early" else list)(sys.argv[2:])
sys.exit(run("small", serve, argv, admin_addr="127.0.0.1:0", settings_used={"consul"}))
"""


@dataclass(frozen=True, slots=True)
class Small:
    process: asyncio.subprocess.Process

    async def line(self, message: str) -> dict[str, object]:
        """The next log line with that message."""
        assert self.process.stderr is not None
        async for raw in self.process.stderr:
            line: dict[str, object] = json.loads(raw)
            if line["message"] == message:
                return line
        raise AssertionError(f"ended without saying {message!r}")

    async def rest(self) -> list[str]:
        assert self.process.stderr is not None
        return (await self.process.stderr.read()).decode().splitlines()


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    (tmp_path / "gloo-system").mkdir()
    (tmp_path / "gloo-system" / "default.yaml").write_text("consul: {}\ndevMode: true\n")
    return tmp_path


@asynccontextmanager
async def small(*argv: str | Path) -> AsyncIterator[Small]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVICE, *map(str, argv), cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield Small(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_serves_until_told_to_stop_and_ends_with_0(settings: Path, number: signal.Signals) -> None:
    async with small("serves", "--dir", settings) as service:
        assert (await service.line("settings.devMode: has no effect here"))["level"] == "warning"
        started = await service.line("starting")
        async with aiohttp.ClientSession(f"http://{started['admin']}") as session:
            await service.line("ready")
            async with session.get("/readyz") as answer:
                assert (answer.status, await answer.json()) == (200, {"ready": True, "waiting": {}})

        service.process.send_signal(number)

        assert await service.process.wait() == 0
        assert [json.loads(line)["message"] for line in await service.rest()][-3:] == [
            "stopping",
            "not ready",
            "stopped",
        ]


async def test_changed_settings_are_taken_over_while_running(settings: Path) -> None:
    async with small("serves", "--dir", settings) as service:
        await service.line("ready")

        (settings / "gloo-system" / "default.yaml").write_text("consul: {address: elsewhere:8500}\n")

        assert (await service.line("settings changed"))["level"] == "info"


async def test_a_service_that_does_not_drain_is_cut_off_by_a_second_signal(settings: Path) -> None:
    async with small("hangs", "--dir", settings) as service:
        await service.line("starting")
        service.process.terminate()
        await service.line("stopping")

        service.process.terminate()

        assert await service.process.wait() == 0
        lines = [json.loads(line) for line in await service.rest()]

    assert [line["message"] for line in lines if line["level"] != "info"] == [
        "did not finish in time and was cut off"
    ]


async def test_a_signal_before_the_service_begins_is_heeded(settings: Path) -> None:
    async with small("is-told-early", "--dir", settings) as service:
        assert await service.process.wait() == 0
        assert [json.loads(line)["message"] for line in await service.rest()] == ["stopped"]


async def test_signals_do_no_harm_to_a_service_that_has_stopped(settings: Path) -> None:
    async with small("leaves-a-thread", "--dir", settings) as service:
        await service.line("ready")
        service.process.terminate()
        await service.line("stopped")

        service.process.terminate()
        service.process.send_signal(signal.SIGINT)

        assert await service.process.wait() == 0


async def test_a_thread_that_does_not_end_is_not_waited_for(settings: Path) -> None:
    async with small("leaves-a-thread", "--dir", settings) as service, asyncio.timeout(60):
        await service.line("ready")

        service.process.terminate()

        assert await service.process.wait() == 0
        assert json.loads((await service.rest())[-1])["message"] == "did not wait for a thread to end"


async def test_a_service_that_is_stuck_is_ended_and_says_where_it_was(settings: Path) -> None:
    async with small("spins", "--dir", settings) as service, asyncio.timeout(60):
        await service.line("ready")

        service.process.terminate()
        service.process.send_signal(signal.SIGINT)

        assert await service.process.wait() == 1
        assert "in serve" in "".join(await service.rest())


async def test_a_missing_settings_file_is_one_line_and_2(tmp_path: Path) -> None:
    async with small("serves", "--dir", tmp_path) as service:
        assert await service.process.wait() == 2
        (line,) = await service.rest()

    assert line.startswith(f"small: no settings file {tmp_path}/gloo-system/default.yaml; ")


async def test_a_taken_admin_port_is_one_line_and_2(settings: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with small("serves", "--dir", settings, "--admin-addr", address) as service:
            assert await service.process.wait() == 2
            lines = await service.rest()

    assert [line for line in lines if line.startswith("small: ")] == [lines[-1]]
    assert f"{address}: another process listens there" in lines[-1]


async def test_a_setting_a_task_cannot_use_is_one_line_and_2(settings: Path) -> None:
    async with small("bad-setting", "--dir", settings) as service:
        assert await service.process.wait() == 2
        assert (await service.rest())[-1] == "small: gloo.xdsBindAddr: port 1 is taken"


async def test_a_bug_in_the_service_is_logged_and_ends_with_1(settings: Path) -> None:
    async with small("breaks", "--dir", settings) as service:
        assert await service.process.wait() == 1
        line = json.loads((await service.rest())[-1])

    assert line["message"] == "the service failed"
    assert "RuntimeError: a bug" in line["traceback"]


def test_flags_go_before_the_environment_and_that_before_defaults() -> None:
    environ = {"ADMIN_ADDR": "0.0.0.0:80", "POD_NAMESPACE": "edge"}

    given = parse("gloo", ["--dir", "/data", "--admin-addr", "127.0.0.1:81"], environ, "127.0.0.1:9091")
    inherited = parse("gloo", ["--dir", "/data"], environ, "127.0.0.1:9091")
    default = parse("gloo", ["--dir", "/data"], {}, "127.0.0.1:9091")

    assert (given.admin_host, given.admin_port, given.namespace) == ("127.0.0.1", 81, "edge")
    assert (inherited.admin_host, inherited.admin_port) == ("0.0.0.0", 80)
    assert (default.admin_port, default.namespace, default.log_level) == (9091, "gloo-system", "info")


@pytest.mark.parametrize("address", ["9091", "host:", "host:http", "host:70000"])
def test_an_address_without_a_port_is_refused(address: str) -> None:
    with pytest.raises(InvalidSettings, match=r"--admin-addr: .* is not HOST:PORT"):
        split_address(address, "--admin-addr")


@pytest.mark.parametrize(
    ("address", "split"),
    [("127.0.0.1:9", ("127.0.0.1", 9)), (":9", ("0.0.0.0", 9)), ("[::1]:9", ("::1", 9))],
)
def test_addresses_of_both_families_are_split(address: str, split: tuple[str, int]) -> None:
    assert split_address(address, "x") == split


def test_a_level_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="no log level"):
        parse("gloo", ["--dir", "/data", "--log-level", "loud"], {}, "127.0.0.1:9091")


@pytest.mark.parametrize("argv", [[], ["--dir", "/x", "--unknown"]])
def test_a_wrong_flag_ends_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("gloo", argv, {}, "127.0.0.1:9091")

    assert caught.value.code == 2
    assert "usage: gloo" in capsys.readouterr().err
