from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

import pytest

from shared.errors import ConsulUnavailable, InvalidSettings
from shared.runtime.backoff import Backoff
from shared.runtime.supervise import Supervisor, is_retryable, texts
from shared.telemetry.metrics import Metrics


def quick() -> Backoff:
    return Backoff(0.0, 0.001)


def restarts(metrics: Metrics, task: str, reason: str) -> float | None:
    return metrics.registry.get_sample_value("task_restarts_total", {"task": task, "reason": reason})


class Attempts:
    """A task that does what the script says, one entry a run, and then waits for ever."""

    def __init__(self, *script: BaseException | None) -> None:
        self.script = list(script)
        self.waiting = asyncio.Event()
        self.ended = False

    async def __call__(self) -> None:
        if self.script:
            if (error := self.script.pop(0)) is not None:
                raise error
            return
        self.waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True


async def test_a_retryable_error_is_a_warning_and_a_new_start(caplog: pytest.LogCaptureFixture) -> None:
    metrics, run = Metrics(), Attempts(ConsulUnavailable("kv list gloo/", "no answer"))

    async with Supervisor(metrics) as tasks:
        tasks.start("watch", run, backoff=quick())
        await run.waiting.wait()

    assert [(record.levelno, record.__dict__["error"]) for record in caplog.records] == [
        (logging.WARNING, "consul kv list gloo/: no answer")
    ]
    assert restarts(metrics, "watch", "retryable") == 1


async def test_an_unexpected_error_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    metrics, run = Metrics(), Attempts(KeyError("lost"))

    async with Supervisor(metrics) as tasks:
        tasks.start("watch", run, backoff=quick())
        await run.waiting.wait()

    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)
    assert restarts(metrics, "watch", "unexpected") == 1


async def test_a_task_that_returns_is_a_bug_and_is_started_again(caplog: pytest.LogCaptureFixture) -> None:
    metrics, run = Metrics(), Attempts(None)

    async with Supervisor(metrics) as tasks:
        tasks.start("watch", run, backoff=quick())
        await run.waiting.wait()

    assert "never end" in caplog.text
    assert restarts(metrics, "watch", "returned") == 1


async def test_a_task_that_returns_when_it_is_cancelled_stays_ended() -> None:
    began = asyncio.Event()

    async def swallow() -> None:
        began.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async with Supervisor(Metrics()) as tasks, asyncio.timeout(10):
        task = tasks.start("watch", swallow, backoff=quick())
        await began.wait()
        await tasks.stop()

    assert task.cancelled()


async def test_one_failing_task_does_not_disturb_another() -> None:
    failing, steady = Attempts(*(OSError("x") for _ in range(3))), Attempts()

    async with Supervisor(Metrics()) as tasks:
        tasks.start("steady", steady, backoff=quick())
        tasks.start("failing", failing, backoff=quick())
        await failing.waiting.wait()

        assert not steady.ended


async def test_a_bad_setting_on_the_first_run_ends_everything() -> None:
    steady = Attempts()

    async def supervise() -> None:
        async with Supervisor(Metrics()) as tasks:
            tasks.start("steady", steady)
            await steady.waiting.wait()
            tasks.start("xds", Attempts(InvalidSettings("gloo.xdsBindAddr: taken")))
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as caught:
        await supervise()

    assert caught.value.subgroup(InvalidSettings) is not None
    assert steady.ended


async def test_a_bad_setting_later_costs_only_its_task() -> None:
    run = Attempts(OSError("first"), InvalidSettings("changed for the worse"))

    async with Supervisor(Metrics()) as tasks:
        tasks.start("xds", run, backoff=quick())
        await run.waiting.wait()


async def test_stop_waits_until_all_tasks_have_ended() -> None:
    runs = [Attempts(), Attempts()]

    async with Supervisor(Metrics()) as tasks:
        for number, run in enumerate(runs):
            tasks.start(f"task-{number}", run)
            await run.waiting.wait()
        await tasks.stop()

        assert all(run.ended for run in runs)


async def test_a_failure_at_the_moment_of_stopping_does_not_keep_a_task_going() -> None:
    """A group of tasks that fails while it is cancelled tells of the failure alone."""
    running = asyncio.Event()

    async def fail_at_the_end() -> None:
        try:
            running.set()
            await asyncio.Event().wait()
        finally:
            raise ConsulUnavailable("goodbye")

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail_at_the_end())

    async with Supervisor(Metrics()) as tasks:
        task = tasks.start("failing", run, backoff=quick())
        await running.wait()
        async with asyncio.timeout(1.0):
            await tasks.stop()

    assert task.cancelled()


async def test_one_task_can_be_ended_alone() -> None:
    short, steady = Attempts(), Attempts()

    async with Supervisor(Metrics()) as tasks:
        tasks.start("steady", steady)
        task = tasks.start("short", short)
        await short.waiting.wait()
        task.cancel()
        await asyncio.wait([task])

        assert short.ended
        assert not steady.ended


def group(*errors: Exception) -> ExceptionGroup[Exception]:
    return ExceptionGroup("tasks", errors)


@pytest.mark.parametrize(
    ("make", "retryable"),
    [
        (lambda: ConsulUnavailable("get", "no answer"), True),
        (lambda: group(ConsulUnavailable("a", "x"), group(ConsulUnavailable("b", "y"))), True),
        (lambda: group(ConsulUnavailable("a", "x"), ValueError("y")), False),
        (lambda: ValueError("y"), False),
    ],
)
def test_a_group_is_retryable_when_all_its_members_are(
    make: Callable[[], Exception], retryable: bool
) -> None:
    assert is_retryable(make()) is retryable


def test_a_group_says_what_its_members_say() -> None:
    assert texts(group(OSError("a"), group(OSError("b")))) == "a; b"
