"""Statuses: what our processes say about an object, and the writer that says it in Consul.

A status is written only when it differs, only about the version of the object it speaks of, only by the
leader, and never over the author's text: in the object's own document just the status changes. Kept in
keys of their own (``storage="key"``), statuses leave documents alone that others manage.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Literal, TypeAlias

from shared.codec.text import parse, render_json, set_status
from shared.consul.blocking import DEFAULTS, WatchOptions, WatchState, watch_prefix
from shared.consul.kv import KV
from shared.consul.operations import Cas, Delete, Op, Put
from shared.errors import ConsulConflict, ConsulRefused, InvalidDocument
from shared.ref import Ref
from shared.report import Problem, Report
from shared.runtime.breath import Breath
from shared.runtime.settle import Settle
from shared.store.keys import Kind, status_key, status_prefix
from shared.store.kv import MOST_BYTES, MOST_VALUE_BYTES, Fence, KeyValues, batches, body_bytes
from shared.store.objects import Stored, aside, read_value
from shared.store.spec import OBSERVED, observed

log = logging.getLogger(__name__)

Status: TypeAlias = Mapping[str, Any]
"""A status as a document: ``state``, ``reason``, ``reportedBy``, ``subresourceStatuses``, ``details``."""

Storage: TypeAlias = Literal["object", "key"]
Observe: TypeAlias = Callable[[Literal["written", "conflict", "refused"], int], None]

MOST_TEXTS: Final = 50
LONGEST_TEXT: Final = 1000
MOST_ROUNDS: Final = 10


class State(StrEnum):
    PENDING = "Pending"
    ACCEPTED = "Accepted"
    REJECTED = "Rejected"
    WARNING = "Warning"


_STATES: Final[Mapping[str | int, State]] = {
    **dict(enumerate(State)),
    **{state.value: state for state in State},
}


# Building and comparing


def build_status(
    report: Report,
    *,
    reported_by: str,
    subresources: Mapping[str, Status] | None = None,
    details: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The status that *report* amounts to; empty parts are left out, as everywhere in documents."""
    status: dict[str, Any] = {"state": state_of(report).value, "reportedBy": reported_by}
    if reason := reason_of(report):
        status["reason"] = reason
    if subresources:
        status["subresourceStatuses"] = {name: dict(subresources[name]) for name in sorted(subresources)}
    if details:
        status["details"] = dict(details)
    return status


def state_of(report: Report) -> State:
    if report.errors:
        return State.REJECTED
    return State.WARNING if report.warnings else State.ACCEPTED


def reason_of(report: Report) -> str:
    """One finding a line, the errors first; warnings say that they are."""
    texts = [_shortened(problem) for problem in report.errors]
    texts += [f"warning: {_shortened(problem)}" for problem in report.warnings]
    texts = list(dict.fromkeys(texts))
    more = len(texts) - MOST_TEXTS
    return "\n".join([*texts[:MOST_TEXTS], f"and {more} more"] if more > 0 else texts)


def _shortened(problem: Problem) -> str:
    text = str(problem).strip()
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


def parse_state(status: Status) -> State:
    """The state in *status*, by name or number; one that says nothing is pending."""
    state = status.get("state")
    return _STATES.get(state, State.PENDING) if isinstance(state, str | int) else State.PENDING


def same_status(one: Status, other: Status) -> bool:
    """Whether both say the same, however it is spelt."""
    return _normal(one) == _normal(other)


def _normal(status: object) -> dict[str, Any]:
    if not isinstance(status, Mapping):
        status = {}
    subresources = status.get("subresourceStatuses", status.get("subresource_statuses"))
    if not isinstance(subresources, Mapping):
        subresources = {}
    return {
        "state": parse_state(status),
        "reason": status.get("reason") or "",
        "reportedBy": status.get("reportedBy", status.get("reported_by")) or "",
        "subresourceStatuses": {name: _normal(sub) for name, sub in subresources.items()},
        "details": status.get("details") or {},
        "messages": status.get("messages") or [],
    }


# Writing


@dataclass(frozen=True, slots=True, eq=False)
class _Submission:
    """A status for the object as it was; *status* None takes away one that has a key of its own."""

    kind: Kind
    ref: Ref
    stored: Stored | None
    status: Status | None

    @property
    def name(self) -> _Name:
        return self.kind.name, self.ref


_Name: TypeAlias = tuple[str, Ref]
_Prepared: TypeAlias = tuple[_Submission, Op]


class StatusWriter:
    """Writes submitted statuses in batches; of several for one object the last counts.

    While *fence* gives None this process does not lead: submissions wait, and ``wake`` after a change of
    leadership has them looked at again. *namespace* is ours in documents with namespaced statuses. *linger*
    seconds are left for more to be submitted; between two rounds of writing there are *pause* at least, since
    each wakes all who watch these objects.
    """

    def __init__(
        self,
        kv: KeyValues,
        root: str,
        *,
        namespace: str,
        fence: Fence | None = None,
        storage: Storage = "object",
        linger: float = 0.02,
        pause: float = 0.1,
        observe: Observe = lambda what, count: None,
    ) -> None:
        self._kv = kv
        self._root = root
        self._namespace = namespace
        self._fence = fence
        self._storage = storage
        self._linger = linger
        self._pause = pause
        self._observe = observe
        self._pending: dict[_Name, _Submission] = {}
        self._outdated: dict[_Name, int] = {}
        """An object seen at this index or before does not show what we know or wrote since."""
        self._kept: dict[str, Status] = {}
        self._wake = asyncio.Event()
        self._busy = asyncio.Lock()

    def submit(self, stored: Stored, status: Status) -> None:
        """Have *status* written to *stored*, unless its author changes it before or it stands there."""
        item = _Submission(stored.kind, stored.ref, stored, status)
        current = self._storage == "object" and stored.index > self._outdated.get(item.name, 0)
        if current and same_status(stored.status(self._namespace), status):
            self._pending.pop(item.name, None)
            return
        self._pending[item.name] = item
        self._wake.set()

    def withdraw(self, kind: Kind, ref: Ref) -> None:
        """The object is gone: nothing is to be written to it, and a status key of its own goes too."""
        item = _Submission(kind, ref, None, None)
        self._outdated.pop(item.name, None)
        self._pending.pop(item.name, None)
        if self._storage == "key":
            self._pending[item.name] = item
            self._wake.set()

    def wake(self) -> None:
        """Leadership has changed."""
        self._kept.clear()
        self._wake.set()

    @property
    def waiting(self) -> int:
        """How many submissions are not dealt with yet."""
        return len(self._pending)

    async def run(self) -> None:
        """Write for ever. What a failure leaves unwritten is tried again by the next run."""
        settle = Settle(least=self._pause)
        if self._pending:
            self._wake.set()
        while True:
            await self._wake.wait()
            await asyncio.sleep(self._linger)
            async with settle:
                self._wake.clear()
                await self.drain()

    async def drain(self) -> None:
        """Write what is pending, now; a process that does not lead has nothing to write."""
        async with self._busy:
            for _ in range(MOST_ROUNDS):
                items = list(self._pending.values())
                if not items or not self._leads():
                    return
                prepared = [pair async for pair in self._prepared(items)]
                for group in batches(prepared):
                    if not await self._write(group):
                        return
            self._wake.set()  # others write the same objects all the time: let them, and come back

    def _leads(self) -> bool:
        return self._fence is None or self._fence() is not None

    async def _prepared(self, items: Iterable[_Submission]) -> AsyncIterator[_Prepared]:
        breath = Breath()
        for item in items:
            if (pair := await self._prepare(item)) is not None:
                yield pair
            await breath.take()

    async def _prepare(self, item: _Submission) -> _Prepared | None:
        """What is to be written for *item*; None when there is nothing to write, or not for this item."""
        if self._storage == "key":
            op = await self._key_op(item)
        elif item.stored is None or item.stored.document is None:
            op = None  # its text is no document that a status could be written into
        elif item.stored.index <= self._outdated.get(item.name, 0):
            # The submitter had not yet seen what we wrote last, so what it saw says nothing.
            fresh = await self._refresh(item)
            return None if fresh is None else await self._prepare(fresh)
        else:
            op = await self._object_op(item.stored, item.status or {})
        if op is None:
            self._done(item)
            return None
        return item, op

    async def _object_op(self, stored: Stored, status: Status) -> Op | None:
        if same_status(stored.status(self._namespace), status):
            return None
        text = await aside(stored.raw, with_status, stored, status, self._namespace)
        if len(text) > MOST_VALUE_BYTES:
            brief = {name: value for name, value in status.items() if name != "details"}
            brief |= {"details": {OBSERVED: about}} if (about := observed(status)) else {}
            text = await aside(stored.raw, with_status, stored, brief, self._namespace)
        if len(text) > MOST_VALUE_BYTES:
            log.error("no room for a status in the value", extra={"key": stored.key, "bytes": len(text)})
            self._observe("refused", 1)
            return None
        return Cas(stored.key, text, stored.index)

    async def _key_op(self, item: _Submission) -> Op | None:
        key = status_key(self._root, item.kind, item.ref)
        if item.status is None:
            return Delete(key)
        if key not in self._kept:
            row = await self._kv.get(key, consistent=True)
            self._kept[key] = read_status(row.value) if row is not None else {}
        return None if same_status(self._kept[key], item.status) else Put(key, render_json(item.status))

    async def _write(self, group: Sequence[_Prepared]) -> bool:
        """Write *group*, or find out whose version has passed; False when we do not lead any more."""
        proof = [op for op in (self._fence() if self._fence else None,) if op is not None]
        if self._fence and not proof:
            return False
        ops = [op for _, op in group]
        try:
            if body_bytes(ops[0]) > MOST_BYTES:
                await self._write_alone(proof, ops[0])
            else:
                await self._kv.txn([*proof, *ops])
        except ConsulConflict as conflict:
            failed = [index - len(proof) for index in conflict.failed]
            if -1 in failed:
                return False
            self._observe("conflict", len(failed))
            for index in failed:
                await self._refresh(group[index][0])
        except ConsulRefused as refused:
            return await self._write_singly(group, refused)
        else:
            self._observe("written", len(group))
            for item, op in group:
                self._written(item, op)
        return True

    async def _write_alone(self, proof: list[Op], op: Op) -> None:
        """A value too long for a transaction, in which it would be base64."""
        if proof:
            await self._kv.txn(proof)
        if not isinstance(op, Cas) or not await self._kv.cas(op.key, op.value, op.index):
            raise ConsulConflict(f"kv cas {op.key}", "the key has changed", failed=[len(proof)])

    async def _write_singly(self, group: Sequence[_Prepared], refused: ConsulRefused) -> bool:
        """Find the one that Consul refuses, so that it does not hold up the others."""
        if len(group) == 1:
            log.error("a status was refused", extra={"key": group[0][1].key, "error": str(refused)})
            self._observe("refused", 1)
            self._done(group[0][0])
            return True
        for one in group:
            if not await self._write([one]):
                return False
        return True

    async def _refresh(self, item: _Submission) -> _Submission | None:
        """*item* about the object as it stands now; None when its author has changed it meanwhile."""
        fresh = None
        if item.stored is not None:
            row = await self._kv.get(item.stored.key, consistent=True)
            fresh = row and read_value(self._root, row.key, row.value, row.index)
        if self._pending.get(item.name) is not item:
            return None
        if not fresh or item.stored is None or not item.stored.same_spec(fresh):
            self._done(item)
            return None
        self._outdated[item.name] = fresh.index - 1
        self._pending[item.name] = current = replace(item, stored=fresh)
        return current

    def _written(self, item: _Submission, op: Op) -> None:
        if item.status is None:
            self._kept.pop(op.key, None)
        elif self._storage == "key":
            self._kept[op.key] = item.status
        elif item.stored is not None:
            self._outdated[item.name] = item.stored.index
        self._done(item)

    def _done(self, item: _Submission) -> None:
        if self._pending.get(item.name) is item:
            del self._pending[item.name]


def with_status(stored: Stored, status: Status, namespace: str) -> bytes:
    """The object's text with *status*, in the field where the document keeps such."""
    document = stored.document or {}
    for field in ("namespacedStatuses", "namespaced_statuses"):
        if field in document:
            namespaced = document[field] if isinstance(document[field], Mapping) else {}
            statuses = {**(namespaced.get("statuses") or {}), namespace: dict(status)}
            return set_status(stored.raw, {**namespaced, "statuses": statuses}, field=field)
    return set_status(stored.raw, status)


# Statuses in keys of their own


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusesChange:
    put: Mapping[Ref, Status]
    gone: frozenset[Ref]
    initial: bool = False


async def watch_statuses(
    kv: KV, root: str, kind: Kind, *, options: WatchOptions = DEFAULTS, state: WatchState | None = None
) -> AsyncIterator[StatusesChange]:
    """Yield the statuses that are kept in keys of their own, then every change."""
    start = status_prefix(root, kind)

    def ref_of(key: str) -> Ref:
        namespace, _, name = key.removeprefix(start).partition("/")
        return Ref(namespace, name)

    async for change in watch_prefix(kv, start, options=options, state=state):
        yield StatusesChange(
            put={ref_of(row.key): read_status(row.value) for row in change.changed},
            gone=frozenset(ref_of(key) for key in change.gone),
            initial=change.initial,
        )


def read_status(value: bytes) -> Status:
    """The status in *value*; garbage says nothing, like no status at all."""
    try:
        return parse(value)
    except InvalidDocument:
        return {}
