from __future__ import annotations

import os
from base64 import b64encode
from typing import Any

import orjson
import pytest

from shared.errors import InvalidResource
from shared.ref import Ref
from shared.store import chunks
from shared.store.chunks import ANNOTATION, ChunkReader, MissingChunk, cut, is_manifest, join, names
from shared.store.memory import MemoryKV

REF = Ref("gloo-system", "gateway-proxy")
LAST = "httpListener.virtualHosts"
LISTS = f"listeners[0].{LAST}"
SKELETON = {"listeners": [{"name": "l", "httpListener": {"options": {}}}]}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "PAUSES", (0.0, 0.0, 0.0))


def stored(*bodies: bytes) -> tuple[MemoryKV, dict[str, Any]]:
    """A KV holding *bodies* as chunks, and the manifest that lists them."""
    kv, entries = MemoryKV(), []
    for body in bodies:
        entry, pieces = cut(body)
        entries.append(entry)
        for name, piece in pieces.items():
            kv.rows.update(MemoryKV({f"gloo/_chunks/Proxy/{name}": piece}).rows)
    return kv, manifest({"encoding": "zlib", "lists": {LISTS: " ".join(entries)}})


def manifest(listed: object) -> dict[str, Any]:
    annotation = listed if isinstance(listed, str) else orjson.dumps(listed).decode()
    return {**SKELETON, "metadata": {"name": "p", "annotations": {ANNOTATION: annotation, "mine": "kept"}}}


def test_lists_are_put_where_they_belong_and_the_skeleton_is_left_alone() -> None:
    whole = join(SKELETON, {LISTS: [1, 2]})

    assert whole["listeners"][0]["httpListener"] == {"options": {}, "virtualHosts": [1, 2]}
    assert SKELETON["listeners"][0]["httpListener"] == {"options": {}}


@pytest.mark.parametrize(
    "path",
    [
        "listeners[1].httpListener.virtualHosts",
        "listeners.virtualHosts",
        "listeners[0].x.y",
        "a[0.b",
        "listeners[0].name.x",
    ],
)
def test_a_place_that_does_not_exist_is_an_error_at_its_path(path: str) -> None:
    with pytest.raises(InvalidResource) as invalid:
        join(SKELETON, {path: []})

    assert invalid.value.path == path


def test_the_same_body_has_the_same_name_and_another_another() -> None:
    assert cut(b"a") == cut(b"a")
    assert cut(b"a")[0] != cut(b"b")[0]


def test_a_body_that_stays_long_is_cut_in_pieces() -> None:
    entry, pieces = cut(os.urandom(700_000))

    assert tuple(pieces) == names(entry)
    assert len(pieces) == 3
    assert max(map(len, pieces.values())) <= chunks.PIECE_BYTES


async def test_a_manifest_becomes_the_whole_proxy_again() -> None:
    noise = orjson.dumps(os.urandom(600_000).hex())
    kv, document = stored(b'{"name":"a"}', noise, b'{"name":"a"}')

    whole = await ChunkReader(kv, "gloo").read(REF, document)

    hosts = whole["listeners"][0]["httpListener"]["virtualHosts"]
    assert hosts == [{"name": "a"}, orjson.loads(noise), {"name": "a"}]
    assert whole["metadata"] == {"name": "p", "annotations": {"mine": "kept"}}
    assert not is_manifest(whole)


async def test_what_was_read_before_is_not_read_again() -> None:
    kv, document = stored(b'{"name":"a"}', b'{"name":"b"}')
    reader = ChunkReader(kv, "gloo")
    first = await reader.read(REF, document)
    kv.rows.clear()

    second = await reader.read(REF, document)

    for old, new in zip(hosts_of(first), hosts_of(second), strict=True):
        assert old is new
    reader.forget(REF)
    with pytest.raises(MissingChunk, match="is not there"):
        await reader.read(REF, document)


def hosts_of(whole: dict[str, Any]) -> list[Any]:
    found: list[Any] = whole["listeners"][0]["httpListener"]["virtualHosts"]
    return found


async def test_a_chunk_that_comes_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    kv, document = stored(b'{"name":"a"}')
    late = MemoryKV()

    async def meanwhile(seconds: float) -> None:
        late.rows.update(kv.rows)

    monkeypatch.setattr("shared.store.chunks.asyncio.sleep", meanwhile)

    assert hosts_of(await ChunkReader(late, "gloo").read(REF, document)) == [{"name": "a"}]


async def test_a_chunk_that_is_not_what_its_name_says_is_refused() -> None:
    kv, document = stored(b'{"name":"a"}')
    (at,) = kv.rows
    await kv.put(at, cut(b'{"name":"b"}')[1].popitem()[1])

    with pytest.raises(MissingChunk, match="not what its name says"):
        await ChunkReader(kv, "gloo").read(REF, document)


async def test_a_chunk_that_is_no_zip_is_refused() -> None:
    kv, document = stored(b'{"name":"a"}')
    (at,) = kv.rows
    await kv.put(at, b"garbage")

    with pytest.raises(MissingChunk, match="cannot be unpacked"):
        await ChunkReader(kv, "gloo").read(REF, document)


async def test_a_bomb_is_not_unpacked() -> None:
    kv, document = stored(b" " * (chunks.MOST_BYTES + 1))

    with pytest.raises(MissingChunk, match="more than 32 MB"):
        await ChunkReader(kv, "gloo").read(REF, document)


async def test_a_chunk_that_is_no_json_is_refused() -> None:
    kv, document = stored(b"{")

    with pytest.raises(MissingChunk, match="is not JSON"):
        await ChunkReader(kv, "gloo").read(REF, document)


@pytest.mark.parametrize(
    ("fresh", "problem"),
    [("!", "not base64"), ("AAAA", "cannot be unpacked"), (5, "cannot be unpacked"), ("other", "not what")],
)
async def test_what_a_manifest_brings_along_is_examined_like_a_chunk(fresh: object, problem: str) -> None:
    entry, _ = cut(b'{"name":"a"}')
    (other,) = cut(b'{"name":"b"}')[1].values()
    text = b64encode(other).decode() if fresh == "other" else fresh
    listing = {"encoding": "zlib", "lists": {LISTS: entry}, "fresh": {entry: text}}

    with pytest.raises(MissingChunk, match=problem):
        await ChunkReader(MemoryKV(), "gloo").read(REF, manifest(listing))


@pytest.mark.parametrize(
    "listed",
    [
        "",
        "no JSON",
        "5",
        "[]",
        "{}",
        {"encoding": "lz4", "lists": {}},
        {"encoding": "zlib", "lists": []},
        {"encoding": "zlib", "fresh": 1},
    ],
)
async def test_a_list_that_makes_no_sense_is_the_document_s_mistake(listed: object) -> None:
    with pytest.raises(InvalidResource, match=r"^metadata\.annotations\[gloo\.consul/chunks\]: "):
        await ChunkReader(MemoryKV(), "gloo").read(REF, manifest(listed))


@pytest.mark.parametrize("entry", ["../../secret", "short", "a" * 23, "a" * 22 + ":x"])
async def test_a_name_that_is_no_chunk_s_is_never_read(entry: str) -> None:
    with pytest.raises(MissingChunk, match="no name of a chunk"):
        await ChunkReader(MemoryKV(), "gloo").read(
            REF, manifest({"encoding": "zlib", "lists": {LISTS: entry}})
        )


def test_only_a_document_with_the_annotation_is_a_manifest() -> None:
    assert is_manifest(manifest({}))
    for document in ({}, {"metadata": 5}, {"metadata": {"annotations": [ANNOTATION, 1]}}, SKELETON):
        assert not is_manifest(document)
