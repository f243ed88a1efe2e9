from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import orjson
import pytest

from shared.consul.client import Consul
from shared.consul.kv import KV
from shared.consul.operations import CheckSession, Op, Row
from shared.ref import Ref
from shared.report import Report
from shared.store.keys import UPSTREAM, VIRTUAL_SERVICE, key, status_key
from shared.store.kv import Fence
from shared.store.memory import MemoryKV
from shared.store.objects import Stored, decode_value
from shared.store.status import (
    LONGEST_TEXT,
    MOST_TEXTS,
    State,
    Status,
    StatusWriter,
    Storage,
    build_status,
    parse_state,
    same_status,
    watch_statuses,
)
from tests.support.consul import ConsulServer
from tests.support.waiting import eventually
from tests.support.watching import AnyKV

A = Ref("gloo-system", "a")
AT = key("gloo", UPSTREAM, A)
ACCEPTED = {"state": "Accepted", "reportedBy": "gloo"}
REJECTED = {"state": "Rejected", "reportedBy": "gloo", "reason": "static: no hosts"}
TEXT = b"# petstore, of the shop team\nstatic:\n  hosts:\n  - {addr: a, port: 1}   # blue\n"


# Building and comparing


def report(errors: int = 0, warnings: int = 0) -> Report:
    found = Report()
    for i in range(errors):
        found.error(f"routes[{i}]", "no action")
    for i in range(warnings):
        found.warn(f"routes[{i}]", "old name")
    return found


def test_nothing_wrong_is_accepted() -> None:
    assert build_status(report(), reported_by="gloo") == ACCEPTED


def test_one_error_is_the_reason() -> None:
    status = build_status(report(errors=1), reported_by="gateway")

    assert status == {"state": "Rejected", "reportedBy": "gateway", "reason": "routes[0]: no action"}


def test_warnings_warn_and_come_after_errors() -> None:
    assert build_status(report(warnings=1), reported_by="g")["state"] == "Warning"
    assert build_status(report(2, 1), reported_by="g") == {
        "state": "Rejected",
        "reportedBy": "g",
        "reason": "routes[0]: no action\nroutes[1]: no action\nwarning: routes[0]: old name",
    }


def test_a_flood_of_findings_is_cut_short() -> None:
    found = report(errors=MOST_TEXTS + 7)
    found.errors[0] = type(found.errors[0])("p", "x" * 5000)

    lines = build_status(found, reported_by="g")["reason"].splitlines()

    assert len(lines) == MOST_TEXTS + 1
    assert lines[-1] == "and 7 more"
    assert len(lines[0]) == LONGEST_TEXT + 1


def test_the_same_finding_is_said_once() -> None:
    twice = report(errors=1)
    twice.add(report(errors=1))

    assert build_status(twice, reported_by="g")["reason"] == "routes[0]: no action"


def test_sub_statuses_and_details_are_part_of_it() -> None:
    subresources = {"*v1.Proxy.ns.b": ACCEPTED, "*v1.Proxy.ns.a": REJECTED}

    status = build_status(report(), reported_by="g", subresources=subresources, details={"reports": [1]})

    assert list(status["subresourceStatuses"]) == ["*v1.Proxy.ns.a", "*v1.Proxy.ns.b"]
    assert status["details"] == {"reports": [1]}


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("Accepted", State.ACCEPTED),
        (2, State.REJECTED),
        (0, State.PENDING),
        (None, State.PENDING),
        ("?", State.PENDING),
        ([], State.PENDING),
    ],
)
def test_a_state_is_read_by_name_or_number(said: object, state: State) -> None:
    assert parse_state({"state": said}) is state


def test_the_same_status_may_be_spelt_in_several_ways() -> None:
    assert same_status({}, {"state": "Pending", "reason": "", "subresourceStatuses": {}})
    assert same_status({"state": 1, "reported_by": "g"}, {"state": "Accepted", "reportedBy": "g"})
    old = {"subresource_statuses": {"p": {"state": 2}}}
    assert same_status(old, {"subresourceStatuses": {"p": {"state": "Rejected"}}})
    assert not same_status(ACCEPTED, REJECTED)
    assert not same_status(ACCEPTED, {**ACCEPTED, "details": {"a": 1}})
    assert not same_status({"subresourceStatuses": {"p": ACCEPTED}}, {"subresourceStatuses": {"p": REJECTED}})


@pytest.mark.parametrize(
    "odd", [{"subresourceStatuses": 5}, {"subresourceStatuses": {"p": "x"}}, {"reason": 5}, {"details": []}]
)
def test_an_odd_status_differs_and_breaks_nothing(odd: dict[str, object]) -> None:
    assert not same_status(odd, ACCEPTED)


# Writing


class Metrics(Counter[str]):
    def __call__(self, what: str, count: int) -> None:
        self[what] += count


async def stored(kv: AnyKV, at: str = AT) -> Stored:
    row = await kv.get(at, consistent=True)
    assert row is not None
    decoded = decode_value("gloo", at, row.value, row.index)
    assert decoded is not None
    return decoded


async def put(kv: AnyKV, text: bytes, at: str = AT) -> Stored:
    await kv.put(at, text)
    return await stored(kv, at)


def writer(
    kv: AnyKV,
    observe: Metrics | None = None,
    *,
    fence: Fence | None = None,
    storage: Storage = "object",
    linger: float = 0.0,
) -> StatusWriter:
    return StatusWriter(
        kv,
        "gloo",
        namespace="gloo-system",
        fence=fence,
        storage=storage,
        linger=linger,
        observe=Metrics() if observe is None else observe,
    )


async def test_a_status_is_written_and_the_author_s_text_stays(kv: AnyKV) -> None:
    statuses = writer(kv)

    statuses.submit(await put(kv, TEXT), ACCEPTED)
    await statuses.drain()

    assert (await stored(kv)).raw.startswith(TEXT)
    assert (await stored(kv)).status("gloo-system") == ACCEPTED
    assert statuses.waiting == 0


async def test_an_equal_status_is_not_written(kv: AnyKV) -> None:
    metrics = Metrics()
    statuses = writer(kv, metrics)
    before = await put(kv, b'{"status": {"state": 1, "reported_by": "gloo"}}')

    statuses.submit(before, ACCEPTED)
    await statuses.drain()

    assert (await stored(kv)).index == before.index
    assert metrics == {}


async def test_of_several_for_one_object_the_last_counts(kv: AnyKV) -> None:
    metrics = Metrics()
    statuses = writer(kv, metrics)
    before = await put(kv, TEXT)

    for status in (ACCEPTED, REJECTED, ACCEPTED, REJECTED):
        statuses.submit(before, status)
    await statuses.drain()

    assert (await stored(kv)).status("") == REJECTED
    assert metrics == {"written": 1}


async def test_a_document_with_namespaced_statuses_keeps_that_form(kv: AnyKV) -> None:
    other = {"state": "Rejected", "reportedBy": "another"}
    before = b"namespacedStatuses: {statuses: {elsewhere: {state: Rejected, reportedBy: another}}}"
    text = b"# ours\n" + before + b"\nstatic: {}\n"
    statuses = writer(kv)

    statuses.submit(await put(kv, text), ACCEPTED)
    await statuses.drain()

    after = await stored(kv)
    assert after.raw.startswith(b"# ours\n")
    assert "status" not in (after.document or {})
    assert (after.status("gloo-system"), after.status("elsewhere")) == (ACCEPTED, other)


async def test_what_breaks_the_schema_gets_its_status(kv: AnyKV) -> None:
    broken = await put(kv, b"statik: {}\n")
    statuses = writer(kv)

    statuses.submit(broken, build_status(broken.report, reported_by="gloo"))
    await statuses.drain()

    assert (await stored(kv)).status("")["reason"] == "statik: unknown field, did you mean static?"


async def test_garbage_is_never_touched(kv: AnyKV) -> None:
    statuses = writer(kv)

    statuses.submit(await put(kv, b"\xff garbage"), REJECTED)
    await statuses.drain()

    assert (await stored(kv)).raw == b"\xff garbage"
    assert statuses.waiting == 0


async def test_a_status_meets_a_newer_status_and_is_written_all_the_same(kv: AnyKV) -> None:
    metrics = Metrics()
    statuses = writer(kv, metrics)
    before = await put(kv, TEXT)
    await kv.put(AT, TEXT + b"status: {state: Pending, reason: other}\n")

    statuses.submit(before, ACCEPTED)
    await statuses.drain()

    assert (await stored(kv)).status("") == ACCEPTED
    assert metrics == {"conflict": 1, "written": 1}


async def test_a_status_of_an_outdated_spec_is_dropped(kv: AnyKV) -> None:
    statuses = writer(kv)
    before = await put(kv, TEXT)
    edited = await put(kv, TEXT.replace(b"port: 1", b"port: 2"))

    statuses.submit(before, REJECTED)
    await statuses.drain()

    assert (await stored(kv)).raw == edited.raw
    assert statuses.waiting == 0


async def test_the_object_may_be_gone(kv: AnyKV) -> None:
    statuses = writer(kv)
    before = await put(kv, TEXT)
    await kv.delete(AT)

    statuses.submit(before, ACCEPTED)
    await statuses.drain()

    assert await kv.get(AT) is None
    assert statuses.waiting == 0


async def test_one_conflict_does_not_hold_up_the_others(kv: AnyKV) -> None:
    metrics = Metrics()
    statuses = writer(kv, metrics)
    places = [key("gloo", UPSTREAM, Ref("gloo-system", f"u{i:03}")) for i in range(200)]
    for at in places:
        statuses.submit(await put(kv, TEXT, at), ACCEPTED)
    await kv.put(places[7], TEXT + b"status: {reason: other}\n")
    await kv.put(places[8], b"static: {}\n")

    await statuses.drain()

    written = [(await stored(kv, at)).status("") == ACCEPTED for at in places]
    assert [i for i, was in enumerate(written) if not was] == [8]
    assert metrics == {"conflict": 2, "written": 199}


async def test_what_the_submitter_saw_before_our_own_write_is_not_trusted(kv: AnyKV) -> None:
    statuses = writer(kv)
    accepted = await put(kv, TEXT + b"status: {state: Accepted, reportedBy: gloo}\n")
    statuses.submit(accepted, REJECTED)
    await statuses.drain()

    for _ in range(2):
        statuses.submit(accepted, ACCEPTED)  # it still seems to be so
        await statuses.drain()

        assert (await stored(kv)).status("") == ACCEPTED


async def test_a_long_text_is_written_though_no_transaction_carries_it(kv: AnyKV) -> None:
    text = b"# " + b"x" * 400_000 + b"\n" + TEXT
    statuses = writer(kv)

    statuses.submit(await put(kv, text), ACCEPTED)
    await statuses.drain()
    statuses.submit(await stored(kv), REJECTED)
    outdated = await stored(kv)
    await kv.put(AT, outdated.raw.replace(b"Accepted", b"Warning"))
    await statuses.drain()

    after = await stored(kv)
    assert after.raw.startswith(text)
    assert after.status("") == REJECTED


async def test_details_give_way_where_there_is_no_room(kv: AnyKV, caplog: pytest.LogCaptureFixture) -> None:
    text = b"# " + b"x" * 510_000 + b"\n" + TEXT
    statuses = writer(kv)

    statuses.submit(await put(kv, text), {**ACCEPTED, "details": {"reports": ["x" * 50_000]}})
    await statuses.drain()
    assert (await stored(kv)).status("") == ACCEPTED

    statuses.submit(await stored(kv), {**REJECTED, "reason": "x" * 50_000})
    await statuses.drain()
    assert (await stored(kv)).status("") == ACCEPTED
    assert statuses.waiting == 0
    assert "no room for a status" in caplog.text


# Leading


async def test_who_does_not_lead_waits_and_writes_when_it_does(kv: AnyKV) -> None:
    leading: list[Op] = []
    statuses = writer(kv, fence=lambda: leading[0] if leading else None)
    before = await put(kv, TEXT)

    statuses.submit(before, ACCEPTED)
    await statuses.drain()
    assert (await stored(kv)).index == before.index
    assert statuses.waiting == 1

    leading.append(await lock(kv))
    await statuses.drain()
    assert (await stored(kv)).status("") == ACCEPTED


async def lock(kv: AnyKV) -> CheckSession:
    at = "gloo/_leaders/gloo"
    if isinstance(kv, MemoryKV):
        kv.locks[at] = session = "session"
    else:
        session = await kv.consul.session.create(lock_delay=0)
        assert await kv.acquire(at, b"", session)
    return CheckSession(at, session)


async def unlock(kv: AnyKV, fence: CheckSession) -> None:
    if isinstance(kv, MemoryKV):
        kv.locks.clear()
    else:
        await kv.consul.session.destroy(fence.session)


async def test_a_leader_whose_session_ended_writes_nothing_and_forgets_nothing(kv: AnyKV) -> None:
    fence = await lock(kv)
    statuses = writer(kv, fence=lambda: fence)
    small, long = await put(kv, TEXT), await put(kv, b"# " + b"x" * 400_000 + b"\n" + TEXT, AT + "-long")
    await unlock(kv, fence)

    statuses.submit(small, ACCEPTED)
    statuses.submit(long, ACCEPTED)
    await statuses.drain()
    assert (await stored(kv)).status("") == {}
    assert (await stored(kv, AT + "-long")).status("") == {}
    assert statuses.waiting == 2

    fence = await lock(kv)
    await statuses.drain()
    assert (await stored(kv)).status("") == ACCEPTED
    assert (await stored(kv, AT + "-long")).status("") == ACCEPTED


# Running


@pytest.fixture
async def running(kv: AnyKV) -> AsyncIterator[StatusWriter]:
    statuses = writer(kv, linger=0.001)
    task = asyncio.get_running_loop().create_task(statuses.run())
    yield statuses
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_running_writer_writes_by_itself(kv: AnyKV, running: StatusWriter) -> None:
    async def said() -> Status:
        return (await stored(kv)).status("")

    for status in (ACCEPTED, REJECTED, ACCEPTED):
        running.submit(await put(kv, TEXT), status)
        await eventually(said, until=status.__eq__)


class Failing(MemoryKV):
    """Consul, away for a moment."""

    async def txn(self, ops: object) -> dict[str, Row]:
        raise ConnectionError


async def test_what_a_failure_left_is_written_by_the_next_run() -> None:
    kv = Failing()
    statuses = writer(kv, linger=0.0)
    statuses.submit(await put(kv, TEXT), ACCEPTED)
    with pytest.raises(ConnectionError):
        await statuses.run()
    kv.__class__ = MemoryKV  # type: ignore[assignment]

    task = asyncio.get_running_loop().create_task(statuses.run())
    await eventually(lambda: statuses.waiting == 0)
    task.cancel()

    assert (await stored(kv)).status("") == ACCEPTED


# Keys of their own


async def test_a_status_in_a_key_of_its_own_leaves_the_document_alone(kv: AnyKV) -> None:
    metrics = Metrics()
    statuses = writer(kv, metrics, storage="key")
    before = await put(kv, TEXT)

    for status in (ACCEPTED, ACCEPTED, REJECTED):
        statuses.submit(before, status)
        await statuses.drain()

    row = await kv.get(status_key("gloo", UPSTREAM, A))
    assert row is not None
    assert orjson.loads(row.value) == REJECTED
    assert (await stored(kv)).index == before.index
    assert metrics == {"written": 2}


async def test_what_stands_in_the_status_key_already_is_not_written_again(kv: AnyKV) -> None:
    metrics = Metrics()
    await kv.put(status_key("gloo", UPSTREAM, A), orjson.dumps(ACCEPTED))
    statuses = writer(kv, metrics, storage="key")

    statuses.submit(await put(kv, TEXT), ACCEPTED)
    await statuses.drain()

    assert metrics == {}


async def test_even_garbage_gets_a_status_in_a_key_of_its_own(kv: AnyKV) -> None:
    statuses = writer(kv, storage="key")

    statuses.submit(await put(kv, b"\xff"), REJECTED)
    await statuses.drain()

    assert await kv.get(status_key("gloo", UPSTREAM, A)) is not None


async def test_the_status_key_goes_with_its_object(kv: AnyKV) -> None:
    statuses = writer(kv, storage="key")
    statuses.submit(await put(kv, TEXT), ACCEPTED)
    await statuses.drain()

    statuses.withdraw(UPSTREAM, A)
    await statuses.drain()
    assert await kv.get(status_key("gloo", UPSTREAM, A)) is None

    statuses.submit(await stored(kv), ACCEPTED)
    await statuses.drain()
    assert await kv.get(status_key("gloo", UPSTREAM, A)) is not None


async def test_a_withdrawn_status_is_not_written_any_more(kv: AnyKV) -> None:
    statuses = writer(kv)
    before = await put(kv, TEXT)

    statuses.submit(before, ACCEPTED)
    statuses.withdraw(UPSTREAM, A)
    await statuses.drain()

    assert (await stored(kv)).index == before.index


@pytest.mark.consul
async def test_statuses_in_keys_are_watched(consul_server: ConsulServer) -> None:
    async with Consul(consul_server.config) as consul:
        kv: KV = consul.kv
        at = status_key("gloo", VIRTUAL_SERVICE, A)
        await kv.put(at, orjson.dumps(ACCEPTED))
        async with asyncio.timeout(10):
            changes = watch_statuses(kv, "gloo", VIRTUAL_SERVICE)

            first = await anext(changes)
            await kv.put(at, b"garbage: [")
            second = await anext(changes)
            await kv.delete(at)
            third = await anext(changes)

        assert (first.initial, first.put) == (True, {A: ACCEPTED})
        assert second.put == {A: {}}
        assert third.gone == {A}
