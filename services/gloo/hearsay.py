"""Hearsay: what replicas tell each other of their Envoys' refusals, so that all serve and say the same.

Below ``<root>/_refusals/`` each refused version of a part of a resource is a record: what was refused, what
stands in for it, Envoy's words. Every replica that wants the very version holds it back; one that has seen an
Envoy accept it says so, and it is served again by all. A record has an owner, the one replica that tries it
again in time and takes it away when nobody wants the version any longer: first the one that was told, and
when that is gone, or has no Envoy of the role left, any that has one. What is refused without being held is
told by a key a replica, for the one that writes statuses.

A healthy system writes nothing here. What a hostile client makes us write is bounded in number and size.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b

from services.gloo.feedback import Feedback
from services.gloo.quarantine.held import Blame, Heard, Held, Place, Version
from services.gloo.records import (
    MOST_RECORDS,
    UNREADABLE,
    Record,
    carried,
    pack,
    pack_told,
    unpack,
    unpack_told,
)
from services.gloo.refusals import Told
from shared.consul.blocking import WatchState, watch_prefix
from shared.consul.client import Consul
from shared.consul.members import Members
from shared.consul.operations import Cas, DeleteCas, Op, Row
from shared.errors import ConsulConflict, ConsulError

log = logging.getLogger(__name__)

MOST_TOLD, MOST_TOLD_BYTES = 32, 64 * 1024  # of one replica
MOST_TOGETHER = 6  # records a transaction: with all their bytes they stay under what Consul takes
BURST, ANOTHER_AFTER = 20, 2.0  # writes at once, and seconds until there may be one more
GAP = 0.1  # seconds between two writes
CHECK = 5.0  # seconds between looks at who is still there
TOLD_AFTER = 1.0  # seconds; most of what is not held is over by then
LINGER = 15.0  # seconds that something gone still counts: others may know better, or be late


@dataclass(frozen=True, slots=True)
class Known:
    """A record, Consul's index of it, and when it was refused by our clock."""

    record: Record
    index: int
    at: float


class Allowance:
    """A few writes at once, then one now and then."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left, self._at = float(BURST), clock()

    def wait(self) -> float:
        """Seconds until the next write may be; it counts as made."""
        now = self._clock()
        self._left, self._at = min(BURST, self._left + (now - self._at) / ANOTHER_AFTER) - 1, now
        return max(GAP, -self._left * ANOTHER_AFTER)


class Hearsay:
    """Keeps *feedback* and Consul agreed while ``run`` runs; *me* is ``<member's name>:<this process>``.

    *synced* is called once what others know was read. ``settled`` is to be set when all objects were read and
    translated: what is not wanted from then on is over.
    """

    def __init__(
        self,
        consul: Consul,
        root: str,
        *,
        me: str,
        feedback: Feedback,
        members: Members,
        leading: Callable[[], bool],
        synced: Callable[[], None],
    ) -> None:
        self.prefix = f"{root}/_refusals/"
        self.state = WatchState("refusals")
        self.settled = False
        self._kv = consul.kv
        self._me = me
        self._feedback = feedback
        self._members = members
        self._leading = leading
        self._synced = synced
        self._records: dict[str, Known] = {}
        self._gone: dict[str, tuple[Known, float]] = {}  # records that are deleted, and until when they count
        self._strange: set[str] = set()  # keys that we cannot read, of a gloo of another version, say
        self._told: dict[str, tuple[tuple[Told, ...], int]] = {}
        self._first: dict[Told, float] = {}  # what Envoys here refuse, and since when
        self._absent: dict[str, float] = {}  # keys of replicas that are gone, and since when
        self._full = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(self._speak())

    # --- listening ----------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        async for change in watch_prefix(self._kv, self.prefix, state=self.state):
            for key in change.gone:
                if (known := self._records.pop(key, None)) is not None:
                    self._gone[key] = (known, time.monotonic() + LINGER)
                self._told.pop(key, None)
                self._strange.discard(key)
            for row in change.changed:
                self._take(row)
            self._hear()
            self._feedback.stirred.set()
            self._synced()

    def _take(self, row: Row) -> None:
        try:
            if row.key.startswith(f"{self.prefix}envoys/"):
                self._told[row.key] = (unpack_told(row.value), row.index)
                return
            record = unpack(row.value)
        except UNREADABLE as error:
            log.warning("not a refusal", extra={"key": row.key, "error": str(error)})
            self._records.pop(row.key, None)
            self._told.pop(row.key, None)
            self._strange.add(row.key)
            return
        self._gone.pop(row.key, None)
        self._strange.discard(row.key)
        ago = max(0.0, time.time() - record.since)
        self._records[row.key] = Known(record, row.index, time.monotonic() - ago)

    def _hear(self) -> None:
        now = time.monotonic()
        self._gone = {key: (known, until) for key, (known, until) in self._gone.items() if until > now}
        counting = [*self._records.values(), *(known for known, _ in self._gone.values())]
        told = [each for key, (listed, _) in self._told.items() if key != self._own_key for each in listed]
        self._feedback.hear({known.record.version: self._heard(known) for known in counting}, told)

    def _heard(self, known: Known) -> Heard:
        record = known.record
        held = Held(
            place=record.version.place,
            part=record.version.part,
            refused=record.version.digest,
            good=record.good,
            blame=Blame(client="", node=record.node, text=record.text),
            at=known.at,
            elsewhere=record.owner != self._me,
        )
        return Heard(held=held, accepted=record.accepted)

    # --- speaking -----------------------------------------------------------------------------------------

    async def _speak(self) -> None:
        allowance = Allowance(time.monotonic)
        while True:
            anything = self._records or self._gone or self._told or self._first
            pause = TOLD_AFTER if self._first else CHECK
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause if anything else None):
                    await self._feedback.stirred.wait()
            self._feedback.stirred.clear()
            if self._gone:
                self._hear()
            if ops := list(self._differing()):
                await self._write(ops[:MOST_TOGETHER])
                self._feedback.stirred.set()
                await asyncio.sleep(allowance.wait())
            elif anything:
                await asyncio.sleep(GAP)

    async def _write(self, ops: list[Op]) -> None:
        try:
            await self._kv.txn(ops)
        except ConsulConflict:
            pass  # somebody else was first; the watch tells
        except ConsulError as error:
            log.warning("refusals are not told to other replicas", extra={"error": str(error)})

    def _differing(self) -> Iterator[Op]:
        """What makes Consul say what we know."""
        held = {self._key(each.version): each for each in self._feedback.all_held}
        over = self._over()
        for key, stored in self._records.items():
            if key in over:
                yield DeleteCas(key, stored.index)
            elif (record := self._amended(stored.record, held.get(key))) != stored.record:
                yield Cas(key, pack(record), stored.index)
        known = self._records.keys() | self._strange
        fresh = [key for key, each in held.items() if key not in known and not each.elsewhere]
        room = max(0, MOST_RECORDS - len(self._records))
        if (full := len(fresh) > room) and not self._full:
            log.warning("more is refused than replicas tell each other", extra={"records": MOST_RECORDS})
        self._full = full
        yield from (Cas(key, pack(self._record(held[key])), 0) for key in fresh[:room])
        yield from self._telling()

    def _record(self, held: Held) -> Record:
        return Record(
            version=held.version,
            good=carried(held.good),
            node=held.blame.node,
            text=held.blame.text,
            since=time.time() - (time.monotonic() - held.at),
            owner=self._me,
        )

    def _amended(self, record: Record, held: Held | None) -> Record:
        """The record as we would have it."""
        if record.accepted or self._feedback.approves(record.version):
            return replace(record, accepted=True)
        mine, serving = record.owner == self._me, self._feedback.serves(record.version.place.role)
        if mine and not serving:
            return replace(record, owner="")
        if held is None:
            return record
        good = carried(held.good)
        if good is not None and good != record.good and (record.good is None or not good):
            record = replace(record, good=good)
        if mine and not held.elsewhere:
            record = replace(record, node=held.blame.node, text=held.blame.text)
        if serving and not self._alive(record.owner):
            return replace(record, owner=self._me, since=time.time())
        return record

    def _over(self) -> set[str]:
        """The records that it is for us to take away, because their version is not wanted any longer."""
        if not self.settled:
            return set()
        ours = {
            key: known.record.version
            for key, known in self._records.items()
            if known.record.owner == self._me or (self._leading() and not self._alive(known.record.owner))
        }
        wanted = self._feedback.wanted(ours.values()) if ours else ()
        return {key for key, version in ours.items() if version not in wanted}

    def _telling(self) -> Iterator[Op]:
        """What is refused and not held, if that lasts; and what replicas that are gone have left behind."""
        listed, index = self._told.get(self._own_key, ((), 0))
        now, first = time.monotonic(), self._first
        refused = self._feedback.unheld()
        told = {Told(Place(each.role, each.type_url, each.name), each.node, each.text) for each in refused}
        self._first = {each: first.get(each, now) for each in told}
        lasting = sorted(each for each, since in self._first.items() if now >= since + TOLD_AFTER)
        fresh = tuple(lasting[:MOST_TOLD])
        while len(pack_told(fresh)) > MOST_TOLD_BYTES:
            fresh = fresh[: len(fresh) // 2]
        if fresh and fresh != listed:
            yield Cas(self._own_key, pack_told(fresh), index)
        elif listed and not fresh:
            yield DeleteCas(self._own_key, index)
        others = self._told.keys() - {self._own_key}
        absent = {key for key in others if not self._alive(f"{key.rpartition('/')[2]}:")}
        self._absent = {key: self._absent.get(key, now) for key in absent}
        for key, since in self._absent.items():
            if self._leading() and now >= since + LINGER:
                yield DeleteCas(key, self._told[key][1])

    def _alive(self, owner: str) -> bool:
        """Whether the replica is there, as far as we know; nobody is not."""
        name, _, _ = owner.rpartition(":")
        if not owner or owner == self._me:
            return bool(owner)
        current = self._members.current
        if self._members.name not in current:
            return True  # we cannot know
        return name in current and name != self._members.name

    @property
    def _own_key(self) -> str:
        return f"{self.prefix}envoys/{self._members.name}"

    def _key(self, version: Version) -> str:
        text = "\0".join([*version.place, version.part, str(version.digest)])
        return f"{self.prefix}parts/{blake2b(text.encode(), digest_size=16).hexdigest()}"
