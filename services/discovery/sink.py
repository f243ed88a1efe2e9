"""Writes carried out in transactions, each at the version it was made for; a failure costs only itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from services.discovery.upstreams.reconcile import Create, Delete, Update, Write
from shared.consul.operations import Cas, DeleteCas, Op
from shared.errors import ConsulConflict, ConsulRefused, InvalidResource
from shared.ref import Ref
from shared.store.keys import UPSTREAM, check_ref, key
from shared.store.kv import KeyValues, batches


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of the writes: *conflicts* met a version that we had not seen, *failed* say why."""

    done: set[Ref] = field(default_factory=set)
    conflicts: set[Ref] = field(default_factory=set)
    failed: dict[Ref, str] = field(default_factory=dict)


async def write_upstreams(kv: KeyValues, root: str, writes: Iterable[Write]) -> Outcome:
    """Write what can be written; raises when Consul cannot be reached."""
    outcome = Outcome()
    fit: list[Write] = []
    for write in writes:
        try:
            check_ref(write.ref)
        except InvalidResource as invalid:
            outcome.failed[write.ref] = str(invalid)
        else:
            fit.append(write)
    for batch in batches((write, operation(root, write)) for write in fit):
        await _commit(kv, batch, outcome)
    return outcome


def operation(root: str, write: Write) -> Op:
    match write:
        case Create():
            return Cas(key(root, UPSTREAM, write.ref), write.value, 0)
        case Update():
            return Cas(write.key, write.value, write.index)
        case Delete():
            return DeleteCas(write.key, write.index)


async def _commit(kv: KeyValues, batch: list[tuple[Write, Op]], outcome: Outcome) -> None:
    """All of *batch* that can be: Consul takes a transaction whole or not at all, and names what is wrong."""
    while batch:
        try:
            await kv.txn([op for _, op in batch])
        except ConsulConflict as conflict:
            failed = set(conflict.failed) or set(range(len(batch)))
            outcome.conflicts.update(batch[index][0].ref for index in failed)
            batch = [member for index, member in enumerate(batch) if index not in failed]
        except ConsulRefused as refused:
            if len(batch) == 1:
                outcome.failed[batch[0][0].ref] = str(refused)
                return
            half = len(batch) // 2
            await _commit(kv, batch[:half], outcome)
            batch = batch[half:]
        else:
            outcome.done.update(write.ref for write, _ in batch)
            return
