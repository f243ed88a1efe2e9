"""Keep a process' tasks running.

Every long-lived task of a service is started here. A task that fails is started again after a growing
pause; one that returns is a bug, because such tasks are eternal, and is logged and started again too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from types import TracebackType

from shared.errors import ControlPlaneError, InvalidSettings
from shared.runtime.backoff import Backoff
from shared.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

LONG_ENOUGH = 30.0
"""A run of this many seconds was a success: the next failure starts the back-off anew."""


class Supervisor:
    """Runs named eternal tasks until ``stop``; an async context manager that stops on exit.

    ``InvalidSettings`` on a task's first run ends the process, since no restart mends a bad setting;
    every other error costs only its task.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._group = asyncio.TaskGroup()
        self._restarts = metrics.counter(
            "task_restarts", "Restarts of a task, by the reason it ended", ["task", "reason"]
        )

    def start(
        self, name: str, run: Callable[[], Awaitable[None]], *, backoff: Backoff | None = None
    ) -> asyncio.Task[None]:
        """Run *run* for ever; cancel the task that is given back to end it earlier than the others."""
        task = self._group.create_task(self._keep_running(name, run, backoff or Backoff()), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def stop(self) -> None:
        """Cancel all tasks and wait for them; call it before closing what they use."""
        tasks = self.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def cancel(self) -> Collection[asyncio.Task[None]]:
        """Cancel all tasks, without waiting for them."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        return tasks

    async def _keep_running(self, name: str, run: Callable[[], Awaitable[None]], backoff: Backoff) -> None:
        clock, first = asyncio.get_running_loop().time, True
        while True:
            started = clock()
            try:
                await run()
            except Exception as error:
                if first and isinstance(error, InvalidSettings):
                    raise
                heed_cancellation()
                reason = self._explain(name, error)
            else:
                heed_cancellation()
                reason = "returned"
                log.error("a task that should never end returned; starting it again", extra={"task": name})
            first = False
            if clock() - started >= LONG_ENOUGH:
                backoff.reset()
            self._restarts.labels(name, reason).inc()
            await asyncio.sleep(backoff.next())

    def _explain(self, name: str, error: Exception) -> str:
        if is_retryable(error):
            log.warning("task failed, trying again", extra={"task": name, "error": texts(error)})
            return "retryable"
        log.error("task failed unexpectedly, starting it again", extra={"task": name}, exc_info=error)
        return "unexpected"

    async def __aenter__(self) -> Supervisor:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()
        await self._group.__aexit__(kind, error, trace)


def heed_cancellation() -> None:
    """End here if the task was cancelled.

    A group of tasks that fails meanwhile tells only of the failure.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def is_retryable(error: BaseException) -> bool:
    """Whether waiting may mend *error*; a group is retryable when all its members are."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_retryable(member) for member in error.exceptions)
    return isinstance(error, ControlPlaneError) and error.retryable


def texts(error: BaseException) -> str:
    """What *error* says; a group says what its members say."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(texts(member) for member in error.exceptions)
    return str(error)
