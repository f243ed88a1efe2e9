"""What a process goes on with although Consul has lost it: known to everybody, and released by anybody.

Consul that was wiped, or restored from an older snapshot, looks to a watch as if somebody had deleted things.
The key ``<root>/_holds/history`` tells the two apart: it is gone, or not what it was. What is held stands at
``<root>/_holds/<service>/<process>``, a note for people, for the processes that start meanwhile, and for the
way out: who answers it with ``{"released": id}`` has this process drop all that the note speaks of. While
nothing is held nobody reads or writes any of that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from shared.consul.blocking import watch_query
from shared.consul.client import Consul
from shared.consul.operations import Row
from shared.errors import ConsulDenied, ConsulError, ConsulRefused

log = logging.getLogger(__name__)

MOST_NAMES = 10_000
"""That a note has of each watch; a value in Consul ends at 512 KB."""
SETTLE = 0.2
AGAIN = 1.0
LAST_WORD = 1.0  # seconds that the end of a process may take to note what it holds
SWEEP_AFTER = 30.0


@dataclass(frozen=True, slots=True)
class Held:
    """What of one watch is held, and since when (Unix time)."""

    names: frozenset[str]
    since: float
    release: Callable[[], None]


@dataclass(frozen=True, slots=True)
class History:
    """A past of Consul: a name, and how many have signed it since."""

    name: str
    signed: int

    @classmethod
    def of(cls, row: Row | None) -> History | None:
        return cls.read(row.value) if row is not None else None

    @classmethod
    def read(cls, value: bytes) -> History | None:
        found = _document(value)
        name, signed = found.get("history"), found.get("signed")
        return cls(name, signed) if isinstance(name, str) and isinstance(signed, int) else None

    @classmethod
    def kept(cls, path: Path) -> History | None:
        """The one that was signed last; None when the file is not there, or is not ours."""
        try:
            return cls.read(path.read_bytes())
        except OSError:
            return None

    def goes_on_in(self, other: History | None) -> bool:
        return other is not None and other.name == self.name and other.signed >= self.signed


class Holds:
    """All that the watches of one process hold; ``limit`` is how long at most, in seconds.

    *changed* is called whenever something else is held than before. *signature* is a file that remembers
    Consul's history over a restart.
    """

    def __init__(
        self,
        consul: Consul,
        root: str,
        service: str,
        name: str,
        *,
        changed: Callable[[], None] = lambda: None,
        signature: Path | None = None,
    ) -> None:
        self.limit = consul.configuration.hold_lost
        self.history = 0
        self.held: dict[str, Held] = {}
        self._consul = consul
        self._root = root
        self._service = service
        self._name = name
        self._prefix = f"{root}/_holds/"
        self._key = f"{self._prefix}{service}/{name}"
        self._changed = changed
        self._signature = signature
        self._past = History.kept(signature) if signature is not None else None
        self._owed: dict[str, set[str]] = {}
        self._remembered: dict[str, set[str]] = {}
        self._read = self._joined = self._signed = False
        self._asking = asyncio.Lock()
        self._id = ""
        self._written = b""
        self._news = asyncio.Event()
        self._some = asyncio.Event()

    # -- what watches ask and tell

    async def look(self) -> int:
        """``history``, after having asked Consul whether it still has the past that we know of."""
        async with self._asking:
            row = await self._consul.kv.get(f"{self._prefix}history", consistent=True)
            found = History.of(row)
            if self._past is not None and not self._past.goes_on_in(found):
                self.history += 1
                self._written = b""
                self._news.set()
                if found is not None and found.name == self._past.name:
                    found = None  # restored from before our time: a past of its own from here on
                self._past = None
                log.warning(
                    "Consul has lost its history: it was wiped, or restored from an older snapshot; what "
                    "vanished with it is held",
                    extra={"root": self._root},
                )
            if self._past is None or not self._signed:
                await self._sign(row, found)
            self._joined = True
            return self.history

    async def owed(self, what: str) -> Collection[str]:
        """What those who ran before us still held of *what*, and Consul may not have."""
        async with self._asking:
            if not self._read:
                for note in await self.notes():
                    for name, held in note["held"].items():
                        self.owe(name, held["names"])
                self._read = True
        if not self._joined:
            await self.look()
        return self._owed.get(what, set()) | (self._remembered.get(what, set()) if self.history else set())

    def owe(self, what: str, names: Iterable[str], *, if_lost: bool = False) -> None:
        """Hold *names* of *what*, too, if the first look lacks them; to be said before that.

        *if_lost*: only if Consul has lost its history since our signature.
        """
        (self._remembered if if_lost else self._owed).setdefault(what, set()).update(names)

    def tell(self, what: str, names: Collection[str], release: Callable[[], None]) -> None:
        """All *names* of *what* that are held now; *release* gives them up."""
        fresh, before = frozenset(names), self.held.get(what)
        if fresh == (before.names if before else frozenset()):
            return
        if fresh:
            self.held[what] = Held(fresh, before.since if before else time.time(), release)
        else:
            del self.held[what]
        if before is None or fresh - before.names:
            self._id = secrets.token_hex(8)  # whoever releases has not seen this
        if before is None:
            log.warning(
                "objects vanished from Consul in a way that is hard to believe: going on with them until they"
                " are back; `glooctl release` gives them up",
                extra={"what": what, "count": len(fresh), "limit": self.limit},
            )
        elif not fresh:
            log.info("nothing is held here any more", extra={"what": what})
        if self.held:
            self._some.set()
        self._news.set()
        self._changed()

    def release(self) -> None:
        """Give up everything."""
        for held in list(self.held.values()):
            held.release()

    # -- what others are told

    async def notes(self) -> list[dict[str, Any]]:
        """What all processes hold, as their notes have it; released ones are none."""
        _, rows = await self._consul.kv.list(self._prefix)
        documents = (_document(Row.of(row).value) for row in rows)
        return [document for document in documents if "held" in document]

    def state(self) -> dict[str, Any]:
        """What is held, for ``/debug`` and for our note."""
        return {
            what: {
                "count": len(held.names),
                "since": held.since,
                "names": sorted(held.names)[:MOST_NAMES],
            }
            for what, held in sorted(self.held.items())
        }

    def in_words(self) -> list[str]:
        """A line for each watch that holds something."""
        return [
            f"{len(held.names)} of {what} since {_when(held.since)}"
            for what, held in sorted(self.held.items())
        ]

    async def run(self) -> None:
        """Keep our note, for those who come next too, and do what it is answered with; for ever."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._sweep(), name="old notes")
                while True:
                    await self._some.wait()
                    following = tasks.create_task(self._follow(), name="release")
                    await self._keep_note()
                    following.cancel()
        finally:
            if self.held:
                with contextlib.suppress(ConsulError, TimeoutError):
                    async with asyncio.timeout(LAST_WORD):
                        await self._write_note()

    async def _keep_note(self) -> None:
        """Write what is held until nothing is."""
        while True:
            self._news.clear()
            try:
                if not self.held:
                    await self._consul.kv.delete(self._key)
                    self._written = b""
                    self._some.clear()
                    return
                await self._write_note()
            except ConsulError as error:
                log.info("what is held cannot be noted in Consul", extra={"error": str(error)})
                await asyncio.sleep(AGAIN)
                continue
            await self._news.wait()
            await asyncio.sleep(SETTLE)

    async def _write_note(self) -> None:
        note = orjson.dumps(
            {"id": self._id, "service": self._service, "name": self._name, "held": self.state()}
        )
        if note != self._written:
            await self._consul.kv.put(self._key, note)
            self._written = note

    async def _follow(self) -> None:
        """Wait for an answer to our note."""
        async for _, body in watch_query(self._consul, f"/v1/kv/{self._key}"):
            answer = _document(Row.of(body[0]).value) if body else {}
            if "released" in answer or not body:
                self._written = b""  # not there any more
                self._news.set()
            if self._id and answer.get("released") == self._id:
                log.warning("what is held was released: dropping it", extra={"held": self.in_words()})
                self.release()

    async def _sweep(self) -> None:
        """Clear away the notes of processes that are no more: what is still missing stands in ours."""
        await asyncio.sleep(SWEEP_AFTER)
        kv, notes = self._consul.kv, f"{self._prefix}{self._service}/"
        try:
            members = set(await kv.keys(f"{self._root}/_members/{self._service}/"))
            for key in await kv.keys(notes):
                name = key.removeprefix(notes)
                alive = f"{self._root}/_members/{self._service}/{name}" in members
                if not alive or (name == self._name and not self.held):
                    await kv.delete(key)
        except ConsulError as error:
            log.info("old notes of what was held stay", extra={"error": str(error)})

    async def _sign(self, row: Row | None, found: History | None) -> None:
        """Have a history that goes on from here: a snapshot taken before it will lack our signature."""
        key = f"{self._prefix}history"
        try:
            for _ in range(100):
                ours = History(found.name, found.signed + 1) if found else History(secrets.token_hex(8), 1)
                value = orjson.dumps({"history": ours.name, "signed": ours.signed})
                if await self._consul.kv.cas(key, value, row.index if row is not None else 0):
                    self._past, self._signed = ours, True
                    self._keep_signature(value)
                    return
                row = await self._consul.kv.get(key, consistent=True)
                found = History.of(row)
        except (ConsulDenied, ConsulRefused) as error:
            log.warning("a loss of Consul's history will go unnoticed", extra={"error": str(error)})

    def _keep_signature(self, value: bytes) -> None:
        if self._signature is None:
            return
        scratch = self._signature.with_suffix(".new")
        try:
            self._signature.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_bytes(value)
            scratch.replace(self._signature)
        except OSError as error:
            log.warning("Consul's history is not remembered over a restart", extra={"error": str(error)})


def _when(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")


def _document(value: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}
