from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from shared.consul.client import Consul
from shared.consul.operations import CheckSession, Op
from shared.ref import Ref
from shared.store.chunks import ChunkReader
from shared.store.keys import PROXY, chunk_prefix, key
from shared.store.large import KEPT_MANIFESTS, KEPT_SECONDS, Part, ProxyWriter, render
from shared.store.objects import Stored
from shared.store.status import StatusWriter
from shared.store.store import Store
from tests.support.consul import ConsulServer
from tests.support.watching import AnyKV

REF = Ref("gloo-system", "gateway-proxy")
AT = key("gloo", PROXY, REF)
LISTS = "listeners[0].httpListener.virtualHosts"
SKELETON = {
    "metadata": {"labels": {"created_by": "gateway"}},
    "listeners": [{"name": "l", "httpListener": {}}],
}


def host(name: str, size: int = 300) -> Part:
    return Part(LISTS, orjson.dumps({"name": name, "domains": [name + "." + "x" * size]}))


def hosts(count: int, prefix: str = "h") -> list[Part]:
    return [host(f"{prefix}{i:04}") for i in range(count)]


async def chunks(kv: AnyKV) -> set[str]:
    return set(await kv.keys(chunk_prefix("gloo", PROXY)))


async def read(kv: AnyKV) -> Stored:
    stored = await Store(kv, "gloo").get(PROXY, REF)
    assert stored is not None
    return stored


async def manifest(kv: AnyKV) -> dict[str, Any]:
    row = await kv.get(AT)
    assert row is not None
    document: dict[str, Any] = orjson.loads(row.value)
    return document


async def names(kv: AnyKV) -> list[str]:
    stored = await read(kv)
    assert stored.report.clean
    return [host.name for host in stored.message.listeners[0].http_listener.virtual_hosts]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def write(writer: ProxyWriter, parts: Sequence[Part], index: int) -> int:
    written = await writer.write(REF, SKELETON, parts, index)
    assert written is not None
    return written.index


def test_a_small_proxy_is_one_document_for_people_to_read() -> None:
    text = render(SKELETON, [host("a"), host("b")])

    assert text is not None
    assert text.startswith(b'{\n  "metadata": {\n')
    assert [h["name"] for h in orjson.loads(text)["listeners"][0]["httpListener"]["virtualHosts"]] == [
        "a",
        "b",
    ]


def test_a_large_proxy_is_no_single_document() -> None:
    assert render(SKELETON, hosts(1000)) is None


async def test_a_small_proxy_has_no_chunks(kv: AnyKV) -> None:
    index = await write(ProxyWriter(kv, "gloo"), hosts(3), 0)

    assert await names(kv) == ["h0000", "h0001", "h0002"]
    assert (await read(kv)).index == index
    assert await chunks(kv) == set()


async def test_a_large_proxy_is_read_back_whole(kv: AnyKV) -> None:
    index = await write(ProxyWriter(kv, "gloo"), hosts(1000), 0)

    assert await names(kv) == [f"h{i:04}" for i in range(1000)]
    assert (await read(kv)).index == index
    assert len(await chunks(kv)) == 1000


async def test_the_manifest_is_a_valid_proxy_that_says_what_it_is(kv: AnyKV) -> None:
    await write(ProxyWriter(kv, "gloo"), hosts(1000), 0)

    row = await kv.get(AT)
    assert row is not None
    document = orjson.loads(row.value)
    assert len(row.value) < 30_000
    assert document["listeners"] == SKELETON["listeners"]
    assert document["metadata"]["labels"] == {"created_by": "gateway"}
    assert document["metadata"]["annotations"].keys() == {"gloo.consul/chunks"}


async def test_changing_one_virtual_host_writes_one_chunk(kv: AnyKV) -> None:
    writer, parts = ProxyWriter(kv, "gloo"), hosts(1000)
    index = await write(writer, parts, 0)
    before = await chunks(kv)

    parts[500] = host("edited")
    await write(writer, parts, index)

    assert len(await chunks(kv) - before) == 1
    assert (await names(kv))[500] == "edited"


async def test_a_change_is_one_transaction_and_can_be_read_without_its_chunks(kv: AnyKV) -> None:
    writer, reader, parts = ProxyWriter(kv, "gloo"), ChunkReader(kv, "gloo"), hosts(1000)
    index = await write(writer, parts, 0)
    await reader.read(REF, await manifest(kv))
    before = await chunks(kv)

    parts[500] = host("edited")
    index = await write(writer, parts, index)

    (fresh,) = await chunks(kv) - before
    row = await kv.get(fresh)
    assert row is not None
    assert row.index == index
    await kv.delete(fresh)
    whole = await reader.read(REF, await manifest(kv))
    assert whole["listeners"][0]["httpListener"]["virtualHosts"][500]["name"] == "edited"


async def test_much_that_is_new_is_not_brought_along(kv: AnyKV) -> None:
    writer = ProxyWriter(kv, "gloo")
    index = await write(writer, hosts(1000), 0)
    before = await kv.get(AT)

    await write(writer, [*hosts(1000), *hosts(200, "new")], index)

    after = await kv.get(AT)
    assert before is not None
    assert after is not None
    assert len(after.value) - len(before.value) < 200 * 30


async def test_a_change_of_a_long_list_is_one_transaction_too(kv: AnyKV) -> None:
    writer, parts = ProxyWriter(kv, "gloo"), hosts(4000)
    index = await write(writer, parts, 0)
    before = await chunks(kv)

    index = await write(writer, [*parts, host("new")], index)

    rows = [await kv.get(name) for name in await chunks(kv) - before]
    assert [row.index for row in rows if row is not None] == [index, index]


async def test_a_manifest_too_long_for_a_transaction_is_written_alone(kv: AnyKV) -> None:
    long = {**SKELETON, "metadata": {"annotations": {"long": "x" * 400_000}}}
    writer = ProxyWriter(kv, "gloo")

    written = await writer.write(REF, long, hosts(1000), 0)

    stored = await read(kv)
    assert written is not None
    assert stored.index == written.index
    assert len(await names(kv)) == 1000
    assert await writer.write(REF, long, hosts(1001), 0) is None


async def test_another_process_writes_only_what_is_not_there(kv: AnyKV) -> None:
    index = await write(ProxyWriter(kv, "gloo"), hosts(1000), 0)
    before = await chunks(kv)

    await write(ProxyWriter(kv, "gloo"), [*hosts(1000), host("new")], index)

    assert len(await chunks(kv) - before) == 1
    assert len(await names(kv)) == 1001


async def test_a_lost_race_writes_no_manifest(kv: AnyKV) -> None:
    writer = ProxyWriter(kv, "gloo")
    index = await write(writer, hosts(1000), 0)
    await write(writer, hosts(1000, "other"), index)

    assert await writer.write(REF, SKELETON, hosts(1000, "late"), index) is None
    assert await writer.write(REF, SKELETON, hosts(3, "late"), index) is None
    assert await writer.write(REF, SKELETON, hosts(1000, "late"), 0) is None
    assert (await names(kv))[0] == "other0000"


async def test_a_virtual_host_may_be_huge(kv: AnyKV) -> None:
    routes = [
        {"matchers": [{"prefix": f"/{i * 7919 % 10**6}"}], "directResponseAction": {"status": i}}
        for i in range(30_000)
    ]
    body = orjson.dumps({"name": "huge", "routes": routes})
    assert len(body) > 1_500_000

    await write(ProxyWriter(kv, "gloo"), [Part(LISTS, body), host("b")], 0)

    stored = await read(kv)
    assert len(stored.message.listeners[0].http_listener.virtual_hosts[0].routes) == 30_000


async def test_a_list_too_long_for_the_manifest_is_written_in_groups(kv: AnyKV) -> None:
    clock = Clock()
    writer, parts = ProxyWriter(kv, "gloo", clock=clock), hosts(4000)
    index = await write(writer, parts, 0)
    row, before = await kv.get(AT), await chunks(kv)
    assert row is not None
    assert len(row.value) < 5000
    assert len(before) > 4000

    index = await write(writer, [*parts[:1000], host("new"), *parts[1000:]], index)

    assert len(await chunks(kv) - before) == 2, "the new virtual host and the group that lists it"
    assert (await names(kv))[999:1002] == ["h0999", "new", "h1000"]
    clock.now = KEPT_SECONDS + 1
    assert await writer.collect() == 0
    assert await ProxyWriter(kv, "gloo").write(REF, SKELETON, parts, index) is not None
    assert len(await names(kv)) == 4000


async def test_a_wiped_store_gets_all_its_chunks_again(kv: AnyKV) -> None:
    writer = ProxyWriter(kv, "gloo")
    await write(writer, hosts(1000), 0)
    for at in [AT, *await chunks(kv)]:
        await kv.delete(at)

    await write(writer, hosts(1000), 0)

    assert len(await names(kv)) == 1000


async def test_a_status_is_written_into_a_manifest_and_changes_nothing_else(kv: AnyKV) -> None:
    await write(ProxyWriter(kv, "gloo"), hosts(1000), 0)
    before = await read(kv)
    statuses = StatusWriter(kv, "gloo", namespace="gloo-system")

    statuses.submit(before, {"state": "Accepted", "reportedBy": "gloo"})
    await statuses.drain()

    after = await read(kv)
    assert after.status("gloo-system") == {"state": "Accepted", "reportedBy": "gloo"}
    assert after.same_spec(before)
    assert len(await names(kv)) == 1000


async def test_chunks_go_when_long_unused_and_three_manifests_old(kv: AnyKV) -> None:
    clock = Clock()
    writer = ProxyWriter(kv, "gloo", clock=clock)
    index = await write(writer, hosts(1000, "old"), 0)
    for i in range(KEPT_MANIFESTS):
        clock.now += KEPT_SECONDS + 1
        assert await writer.collect() == 0
        index = await write(writer, hosts(1000, f"new{i}-"), index)

    assert await writer.collect() == 0, "the oldest has only just gone out of use"
    clock.now += KEPT_SECONDS + 1
    assert await writer.collect() == 1000

    assert len(await chunks(kv)) == KEPT_MANIFESTS * 1000
    assert (await names(kv))[0] == "new2-0000"


async def test_a_deleted_proxy_leaves_nothing_behind(kv: AnyKV) -> None:
    clock = Clock()
    writer = ProxyWriter(kv, "gloo", clock=clock)
    await write(writer, hosts(1000), 0)
    await kv.delete(AT)

    assert await writer.collect() == 0
    clock.now += KEPT_SECONDS + 1

    assert await writer.collect() == 1000
    assert await chunks(kv) == set()


async def test_after_a_restart_nothing_goes_before_its_time_and_nothing_in_use(kv: AnyKV) -> None:
    index = await write(ProxyWriter(kv, "gloo"), hosts(1000, "old"), 0)
    await write(ProxyWriter(kv, "gloo"), hosts(1000, "new"), index)
    clock = Clock()
    writer = ProxyWriter(kv, "gloo", clock=clock)

    assert await writer.collect() == 0
    clock.now += KEPT_SECONDS + 1
    assert await writer.collect() == 1000

    assert (await names(kv))[0] == "new0000"


async def test_while_a_list_cannot_be_read_no_chunk_goes(kv: AnyKV, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    writer = ProxyWriter(kv, "gloo", clock=clock)
    await write(writer, hosts(1000), 0)
    await kv.put(AT, b'{"metadata": {"annotations": {"gloo.consul/chunks": "garbled"}}}')
    await kv.put(key("gloo", PROXY, Ref("gloo-system", "garbage")), b"\xff")
    restarted = ProxyWriter(kv, "gloo", clock=clock)
    await restarted.collect()
    clock.now += KEPT_SECONDS + 1

    assert await restarted.collect() == 0
    assert len(await chunks(kv)) == 1000
    assert "cannot be read" in caplog.text


async def test_who_does_not_lead_writes_nothing(kv: AnyKV) -> None:
    writer = ProxyWriter(kv, "gloo", fence=lambda: None)

    assert await writer.write(REF, SKELETON, hosts(3), 0) is None
    assert await writer.write(REF, SKELETON, hosts(1000), 0) is None
    assert await kv.keys("gloo/") == []


@pytest.mark.consul
async def test_a_leader_whose_session_ended_writes_nothing(consul_server: ConsulServer) -> None:
    async with Consul(consul_server.config) as consul:
        session = await consul.session.create()
        await consul.kv.acquire("gloo/_leaders/gateway", b"", session)
        fence: Op = CheckSession("gloo/_leaders/gateway", session)
        writer = ProxyWriter(consul.kv, "gloo", fence=lambda: fence)
        index = await write(writer, hosts(1000), 0)

        await consul.session.destroy(session)

        assert await writer.write(REF, SKELETON, hosts(3), index) is None
        assert await writer.write(REF, SKELETON, hosts(1000, "late"), index) is None
        assert (await names(consul.kv))[0] == "h0000"
