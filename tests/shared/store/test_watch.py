from __future__ import annotations

import logging

import orjson
import pytest

from shared.consul.ledger import LOST
from shared.ref import Ref
from shared.store.keys import GATEWAY, PROXY, UPSTREAM, key, prefix
from shared.store.large import Part, ProxyWriter
from tests.support.watching import AnyKV, Seen, Watch

A, B = Ref("gloo-system", "a"), Ref("gloo-system", "b")
AT_A, AT_B = key("gloo", UPSTREAM, A), key("gloo", UPSTREAM, B)
GOOD = b"static: {hosts: [{addr: a, port: %d}]}"


def problems(caplog: pytest.LogCaptureFixture, at: str) -> list[str]:
    return [record.message for record in caplog.records if getattr(record, "key", None) == at]


async def test_what_is_there_comes_first_and_then_every_change(kv: AnyKV, watch: Watch) -> None:
    await kv.put(AT_A, GOOD % 1)
    seen = watch(UPSTREAM)
    await seen.until(lambda seen: seen.changes)

    await kv.put(AT_B, GOOD % 2)
    await seen.until(lambda seen: B in seen.objects)
    await kv.put(AT_A, GOOD % 3)
    await seen.until(lambda seen: seen.objects[A].message.static.hosts[0].port == 3)
    await kv.delete(AT_B)
    await seen.until(lambda seen: B not in seen.objects)

    assert [change.initial for change in seen.changes] == [True, False, False, False]
    assert [set(change.put) for change in seen.changes] == [{A}, {B}, {A}, set()]
    assert seen.changes[-1].gone == {B}


async def test_nothing_at_all_is_told_too(watch: Watch) -> None:
    seen = watch(UPSTREAM)

    await seen.until(lambda seen: seen.changes)

    assert seen.changes[0].initial
    assert seen.objects == {}


async def test_one_bad_value_costs_only_itself(
    kv: AnyKV, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    await kv.put(AT_A, b"\xff\xfe garbage")
    await kv.put(AT_B, GOOD % 1)

    seen = watch(UPSTREAM)
    await seen.until(lambda seen: seen.changes)

    assert seen.objects[A].message is None
    assert "UTF-8" in str(seen.objects[A].report.errors[0])
    assert seen.objects[B].report.clean
    assert problems(caplog, AT_A) == ["a value cannot be read"]


async def test_what_stands_for_a_lost_value_is_no_bad_value(
    kv: AnyKV, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    await kv.put(AT_A, LOST)

    seen = watch(UPSTREAM)
    await seen.until(lambda seen: seen.changes)

    assert seen.objects[A].message is None
    assert problems(caplog, AT_A) == []


async def test_a_good_value_that_turns_bad_says_so_and_recovers(kv: AnyKV, watch: Watch) -> None:
    await kv.put(AT_A, GOOD % 1)
    seen = watch(UPSTREAM)
    await seen.until(lambda seen: seen.changes)

    await kv.put(AT_A, b"statik: {}")
    await seen.until(lambda seen: seen.objects[A].message is None)
    assert [str(error) for error in seen.objects[A].report.errors] == [
        "statik: unknown field, did you mean static?"
    ]

    await kv.put(AT_A, GOOD % 1)
    await seen.until(lambda seen: seen.objects[A].message is not None)


async def test_a_status_alone_is_told_apart(kv: AnyKV, watch: Watch) -> None:
    await kv.put(AT_A, GOOD % 1)
    seen = watch(UPSTREAM)
    await seen.until(lambda seen: seen.changes)
    before = seen.objects[A]

    await kv.put(AT_A, GOOD % 1 + b"\nstatus: {state: Accepted}")
    await seen.until(lambda seen: len(seen.changes) == 2)

    assert seen.objects[A].same_spec(before)
    assert seen.objects[A].message is before.message
    assert seen.objects[A].index > before.index


async def test_only_the_wanted_namespaces_are_told(kv: AnyKV, watch: Watch) -> None:
    mine, other = Ref("mine", "a"), Ref("mine2", "a")
    await kv.put(key("gloo", UPSTREAM, other), GOOD % 1)
    seen = watch(UPSTREAM, namespaces=["mine"])
    await seen.until(lambda seen: seen.changes)

    await kv.put(key("gloo", UPSTREAM, other), GOOD % 2)
    await kv.put(key("gloo", UPSTREAM, mine), GOOD % 3)
    await seen.until(lambda seen: mine in seen.objects)

    assert set(seen.objects) == {mine}
    assert [set(change.put) for change in seen.changes] == [set(), {mine}]


async def test_a_key_without_a_name_is_taken_by_the_value_s(kv: AnyKV, watch: Watch) -> None:
    nameless, ref = prefix("gloo", GATEWAY) + "gloo-system", Ref("gloo-system", "gateway-proxy")
    await kv.put(nameless, b"metadata: {name: gateway-proxy}\nbindPort: 1")
    seen = watch(GATEWAY)
    await seen.until(lambda seen: ref in seen.objects)

    await kv.put(key("gloo", GATEWAY, ref), b"bindPort: 2")
    await seen.until(lambda seen: seen.objects[ref].message.bind_port == 2)
    await kv.delete(key("gloo", GATEWAY, ref))
    await seen.until(lambda seen: seen.objects[ref].message.bind_port == 1)
    await kv.put(nameless, b"metadata: {name: renamed}")
    await seen.until(lambda seen: set(seen.objects) == {Ref("gloo-system", "renamed")})


async def test_a_key_of_no_object_is_logged_once(
    kv: AnyKV, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    stray = AT_A + "/too/deep"
    await kv.put(stray, GOOD % 1)
    seen = watch(UPSTREAM)
    await seen.until(lambda seen: seen.changes)

    await kv.put(AT_B, GOOD % 1)
    await seen.until(lambda seen: B in seen.objects)
    assert problems(caplog, stray) == ["this key holds no object and is ignored"]

    await kv.put(stray, GOOD % 2)
    await kv.put(AT_B, GOOD % 2)
    await seen.until(lambda seen: seen.objects[B].message.static.hosts[0].port == 2)
    await seen.until(lambda seen: len(problems(caplog, stray)) == 2)


async def test_the_folders_of_consul_s_web_page_are_no_mistake(
    kv: AnyKV, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    await kv.put(prefix("gloo", UPSTREAM, "gloo-system"), b"")
    await kv.put(AT_A, GOOD % 1)

    with caplog.at_level(logging.DEBUG):
        seen = watch(UPSTREAM)
        await seen.until(lambda seen: A in seen.objects)

    assert problems(caplog, prefix("gloo", UPSTREAM, "gloo-system")) == []


async def test_a_long_value_is_read_like_any_other(kv: AnyKV, watch: Watch) -> None:
    hosts = ", ".join(f"{{addr: host-{i}, port: 80}}" for i in range(3000))
    await kv.put(AT_A, f"static: {{hosts: [{hosts}]}}".encode())

    seen = watch(UPSTREAM)
    await seen.until(lambda seen: A in seen.objects)

    assert len(seen.objects[A].message.static.hosts) == 3000


LISTS = "listeners[0].httpListener.virtualHosts"
SKELETON = {"listeners": [{"name": "l", "bindPort": 8080, "httpListener": {}}]}


def hosts(count: int, *, edited: int = -1) -> list[Part]:
    documents = [{"name": f"vh{i}", "domains": [f"{i}.test"]} for i in range(count)]
    if edited >= 0:
        documents[edited]["domains"] = ["edited.test"]
    return [Part(LISTS, orjson.dumps(document)) for document in documents]


def virtual_hosts(seen: Seen, ref: Ref) -> list[object]:
    found: list[object] = seen.objects[ref].message.listeners[0].http_listener.virtual_hosts
    return found


async def test_a_large_proxy_comes_whole_and_an_edit_costs_one_virtual_host(kv: AnyKV, watch: Watch) -> None:
    writer = ProxyWriter(kv, "gloo")
    written = await writer.write(A, SKELETON, hosts(8000), 0)
    assert written is not None
    seen = watch(PROXY)
    await seen.until(lambda seen: A in seen.objects)
    before = virtual_hosts(seen, A)
    assert len(before) == 8000

    await writer.write(A, SKELETON, hosts(8000, edited=4000), written.index)
    await seen.until(lambda seen: len(seen.changes) == 2)

    after = virtual_hosts(seen, A)
    assert [i for i, (old, new) in enumerate(zip(before, after, strict=True)) if old is not new] == [4000]
    assert seen.objects[A].report.clean
