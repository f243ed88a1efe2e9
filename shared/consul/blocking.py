"""Long polls: what changed in Consul, told once, and never a loss that did not happen.

Consul answers early, late, with a smaller index after a restore, and a server that replays its log
answers "nothing there" with good conscience. The rules that keep such answers from becoming news:

* a first read, and the read after any failure, carries no index and is ``consistent``;
* a failed read publishes nothing, backs off, and forgets the index;
* a smaller index starts the watch afresh, and so does an answer before its time with the same one;
* keys that vanish while the index went back (a wiped or restored store), or by the dozen while it stood
  still, are held for a while before they are believed;
* reads pause in proportion to what the last one cost, and idle ones that bring nothing pause longer.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from shared.consul.http import Consistency, Params, parse
from shared.consul.kv import KV, Listing, RawRow, Row
from shared.errors import ConsulDenied, ConsulError, ConsulRefused, ConsulUnavailable

if TYPE_CHECKING:
    from shared.consul.client import Consul

log = logging.getLogger(__name__)

MANY = 10  # vanished objects, from which on an unmoved index is doubted
EARLY = 0.9  # of the wait


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOptions:
    """How a watch behaves, in seconds; *wait* defaults to the client's. *hold* 0 believes every loss."""

    wait: float | None = None
    hold: float = 30.0
    hold_pause: float = 0.5
    min_gap: float = 0.005
    max_gap: float = 1.0
    max_backoff: float = 10.0
    denied_pause: float = 10.0
    consistency: Consistency = "default"


DEFAULTS = WatchOptions()


@dataclass(slots=True)
class WatchState:
    """What a watch has seen, for metrics and ``/debug``; *problem* is empty while reads succeed."""

    name: str = ""
    synced: bool = False
    held: bool = False
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixChange:
    """What is new under a prefix: rows to put, keys to drop. The first one is *initial*, and may be empty."""

    changed: tuple[Row, ...] = ()
    gone: frozenset[str] = frozenset()
    index: int
    initial: bool = False


class Read(Protocol):
    """An answer as the loop needs it."""

    @property
    def index(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def spent(self) -> float: ...


R = TypeVar("R", bound=Read)


@dataclass(slots=True)
class _Pace:
    """What the taker of an answer tells the loop: how long it worked, and what it made of the answer."""

    worked: float = 0.0
    fruitless: bool = False
    held: bool = False


@dataclass(frozen=True, slots=True)
class QueryRead:
    index: int
    body: Any
    size: int
    spent: float


async def watch_prefix(
    kv: KV, prefix: str, *, options: WatchOptions = DEFAULTS, state: WatchState | None = None
) -> AsyncIterator[PrefixChange]:
    """Yield what is under *prefix* (it ends with ``/``), then every change; end only by cancellation."""
    if not prefix.endswith("/"):
        raise ValueError(f"the prefix {prefix!r} must end with /, or it takes in its neighbours")
    state = state if state is not None else WatchState(prefix)
    ledger = Ledger(hold=options.hold, name=prefix)

    async def read(index: int, consistency: Consistency) -> Listing:
        listing = await kv.read(
            prefix, index=index, wait=options.wait, consistency=consistency, watching=True
        )
        if not index and not listing.rows:
            # ACLs do not refuse a listing, they empty it; a single key tells "denied" from "nothing there".
            await kv.get(prefix)
        return listing

    pace = _Pace()
    async for listing in _reads(
        read, pace, options=options, state=state, wait=options.wait or kv.consul.configuration.wait
    ):
        began = time.monotonic()
        change = ledger.take(listing.index, listing.rows, began)
        state.held = pace.held = ledger.held
        state.held_reads += ledger.held
        state.objects = len(ledger.known)
        pace.fruitless = change is None
        pace.worked = time.monotonic() - began
        if change is not None:
            yield change


async def watch_query(
    consul: Consul,
    path: str,
    params: Params = (),
    *,
    options: WatchOptions = DEFAULTS,
    state: WatchState | None = None,
) -> AsyncIterator[tuple[int, Any]]:
    """Yield index and parsed body (None for a 404) of a blocking query now and whenever its index moves.

    An equal body is news too: a catalog listing wakes for changes that it does not show.
    """
    state = state if state is not None else WatchState(path)
    params = tuple(params)

    async def read(index: int, consistency: Consistency) -> QueryRead:
        answer = await consul.read(
            path, params, index=index, wait=options.wait, consistency=consistency, watching=True
        )
        return QueryRead(answer.index, parse(answer, f"GET {path}"), len(answer.body), answer.spent)

    pace, empty = _Pace(), False
    async for answer in _reads(
        read, pace, options=options, state=state, wait=options.wait or consul.configuration.wait
    ):
        pace.fruitless = empty and not answer.body
        empty = not answer.body
        if not pace.fruitless:
            yield answer.index, answer.body


@dataclass(slots=True)
class Ledger:
    """What a watch of a prefix knows: every key's ModifyIndex, and whether a loss is to be believed yet."""

    hold: float
    name: str = ""
    known: dict[str, int] = field(default_factory=dict)
    synced: bool = False
    max_index: int = 0
    doubtful_since: float | None = None

    @property
    def held(self) -> bool:
        return self.doubtful_since is not None

    def take(self, index: int, rows: Sequence[RawRow], now: float) -> PrefixChange | None:
        """The change an answer brings; None when it brings none, or a loss that is held."""
        known = self.known
        fresh = {row["Key"]: row["ModifyIndex"] for row in rows}
        gone = known.keys() - fresh.keys()
        if gone and self._doubts(index, len(gone)):
            if self.doubtful_since is None:
                self.doubtful_since = now
                log.warning(
                    "objects vanished although the index did not advance: holding them",
                    extra={"prefix": self.name, "vanished": len(gone), "index": index, "hold": self.hold},
                )
            if now - self.doubtful_since < self.hold:
                return None
            log.error(
                "the objects stay away: dropping them", extra={"prefix": self.name, "vanished": len(gone)}
            )
            self.max_index = index
        self.doubtful_since = None
        self.max_index = max(self.max_index, index)
        initial, self.synced = not self.synced, True
        changed = tuple(Row.of(row) for row in rows if known.get(row["Key"]) != row["ModifyIndex"])
        if not changed and not gone and not initial:
            return None
        self.known = fresh
        return PrefixChange(changed=changed, gone=frozenset(gone), index=index, initial=initial)

    def _doubts(self, index: int, vanished: int) -> bool:
        """Whether a lost history explains the loss better than a deletion does.

        Once doubted, an index that climbs again proves nothing: a wiped store is being written anew.
        """
        if self.hold <= 0:
            return False
        implausible = vanished > MANY and vanished * 2 > len(self.known)
        return self.held or index < self.max_index or (index == self.max_index and implausible)


async def _reads(
    read: Callable[[int, Consistency], Awaitable[R]],
    pace: _Pace,
    *,
    options: WatchOptions,
    state: WatchState,
    wait: float,
) -> AsyncIterator[R]:
    """Yield each answer whose index moved, for ever; *pace* is read when the taker comes back for more."""
    index, failures, fruitless = 0, 0, 0
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
            state.resets += answer.index < state.index
            index, state.index = (answer.index if answer.index > index else 0), answer.index
            yield answer
            state.wakeups += not pace.fruitless
            state.empty_wakeups += pace.fruitless
            fruitless = fruitless + 1 if pace.fruitless else 0
        if pace.held:
            index = 0
            await asyncio.sleep(options.hold_pause)
            continue
        gap = max(4 * (answer.spent + pace.worked), options.min_gap)
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
