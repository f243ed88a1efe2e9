"""The loop under every watch: when to ask Consul again, and which answers to look at.

Consul answers early, late, with a smaller index after a restore, and a server that replays its log
answers "nothing there" with good conscience. Hence:

* a first read, and the read after any failure, carries no index and is ``consistent``;
* a failed read backs off and forgets the index; it never becomes an answer;
* a smaller index starts the watch afresh, and so does an answer before its time with the same one;
* reads pause in proportion to what the last one cost, and idle ones that bring nothing pause longer.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Protocol, TypeVar

from shared.consul.http import Consistency
from shared.errors import ConsulDenied, ConsulError, ConsulRefused, ConsulUnavailable

log = logging.getLogger(__name__)

EARLY = 0.9  # of the wait
SECONDS_A_BYTE = 1e-8  # of a processor, that an answer takes Consul to make and us to read
MOST_FOR_OTHERS = 0.1  # seconds that one part of a watch pauses so that all parts take no more time than one


class Holding(Protocol):
    """Who is told what watches hold; knows whether Consul still has the past that we know of."""

    @property
    def limit(self) -> float:
        """Seconds that what a lost history took is held at most; 0 believes every loss."""

    @property
    def history(self) -> int:
        """One number for each past of Consul that was seen."""

    async def look(self) -> int:
        """``history``, after having asked Consul."""

    async def owed(self, what: str) -> Collection[str]:
        """What those who ran before us still held of *what*."""

    def tell(self, what: str, names: Collection[str], release: Callable[[], None]) -> None:
        """All *names* of *what* that are held now; *release* gives them up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOptions:
    """How a watch behaves, in seconds; *wait* defaults to the client's. *hold* 0 believes every loss.

    *hold* is for losses that are merely implausible. What was lost with Consul's history is held for
    as long as *holds* says, without that as long as *hold*.

    A prefix whose listing takes more than *split_above* bytes is watched in at most *most_parts* parts, until
    all together are below *join_below*.
    """

    wait: float | None = None
    hold: float = 30.0
    holds: Holding | None = None
    hold_pause: float = 0.5
    min_gap: float = 0.005
    max_gap: float = 1.0
    max_backoff: float = 10.0
    denied_pause: float = 10.0
    consistency: Consistency = "default"
    split_above: int = 500_000
    join_below: int = 256_000
    most_parts: int = 28


DEFAULTS = WatchOptions()


@dataclass(slots=True)
class WatchState:
    """What a watch has seen, for metrics and ``/debug``; *problem* is empty while reads succeed."""

    name: str = ""
    synced: bool = False
    held: int = 0
    index: int = 0
    objects: int = 0
    last_success: float = 0.0
    problem: str = ""
    polls: int = 0
    wakeups: int = 0
    empty_wakeups: int = 0
    errors: int = 0
    resets: int = 0
    held_reads: int = 0
    bytes: int = 0


class Read(Protocol):
    """An answer as the loop needs it."""

    @property
    def index(self) -> int: ...
    @property
    def size(self) -> int: ...


R = TypeVar("R", bound=Read)


@dataclass(slots=True)
class Pace:
    """What the taker of an answer tells the loop: the processor time it took, what it made of the answer, and
    how many parts the watch has."""

    worked: float = 0.0
    parts: int = 1
    fruitless: bool = False
    doubtful: bool = False


async def reads(
    read: Callable[[int, Consistency], Awaitable[R]],
    pace: Pace,
    *,
    options: WatchOptions,
    state: WatchState,
    wait: float,
) -> AsyncGenerator[R, None]:
    """Yield each answer whose index moved, for ever; *pace* is read when the taker comes back for more."""
    index, last, failures, fruitless = 0, 0, 0, 0
    while True:
        asked = time.monotonic()
        try:
            answer = await read(index, options.consistency if index else "consistent")
            if not answer.index:
                raise ConsulUnavailable(state.name, "the answer carries no index")
        except ConsulError as error:
            _note_failure(state, error)
            index, failures = 0, failures + 1
            await asyncio.sleep(_backoff(error, failures, options))
            continue
        _note_success(state, answer)
        failures = 0
        done = time.monotonic()
        if answer.index == index:
            if done - asked >= wait * EARLY:
                fruitless = 0
            else:
                # A parked read that a snapshot restore wakes answers early, with the old index and the old
                # body; to ask again with that index would park beyond the restored store's own.
                index, fruitless = 0, fruitless + 1
        else:
            state.resets += answer.index < last
            index = answer.index if answer.index > index else 0
            last = state.index = answer.index
            yield answer
            state.wakeups += not pace.fruitless
            state.empty_wakeups += pace.fruitless
            fruitless = fruitless + 1 if pace.fruitless else 0
        if pace.doubtful:
            index = 0
            await asyncio.sleep(options.hold_pause)
            continue
        gap = 4 * (answer.size * SECONDS_A_BYTE + pace.worked)
        gap = max(gap, min(gap * pace.parts, MOST_FOR_OTHERS), options.min_gap)
        if fruitless:
            gap = max(gap, options.min_gap * 2.0 ** min(fruitless, 20))
        await asyncio.sleep(max(0.0, done + min(gap, options.max_gap) - time.monotonic()))


def _note_failure(state: WatchState, error: ConsulError) -> None:
    state.polls += 1
    state.errors += 1
    if not state.problem:
        log.warning("watch failed, keeping the last view", extra={"watch": state.name, "error": str(error)})
    state.problem = str(error)


def _note_success(state: WatchState, answer: Read) -> None:
    if state.problem:
        log.info("watch reads again", extra={"watch": state.name})
    state.problem = ""
    state.polls += 1
    state.bytes += answer.size
    state.synced = True
    state.last_success = time.time()


def _backoff(error: ConsulError, failures: int, options: WatchOptions) -> float:
    if isinstance(error, ConsulDenied | ConsulRefused):
        return options.denied_pause * random.uniform(1.0, 1.25)
    return random.uniform(0.5, 1.0) * min(options.max_backoff, 0.1 * 2.0 ** min(failures, 10))
