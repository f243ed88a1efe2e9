"""Artifacts through the pipeline: an edit translates again what refers to it, and nothing else."""

from __future__ import annotations

from typing import Any

from services.gloo.resources import LISTENER, ROUTES
from shared.store.keys import ARTIFACT, PROXY, UPSTREAM
from tests.services.gloo.test_pipeline import PROXY_SOURCE, World, answer, forward, host, proxy
from tests.support.bookstore import BOOKSTORE, base64_of, bookstore

TRANSCODER = {
    "protoDescriptorConfigMap": {"configMapRef": {"name": "books", "namespace": "gloo-system"}},
    "services": [BOOKSTORE],
}
UPSTREAM_OF_BOOKS = {
    "useHttp2": True,
    "static": {
        "hosts": [{"addr": "127.0.0.1", "port": 1}],
        "serviceSpec": {"grpcJsonTranscoder": TRANSCODER},
    },
}
ANOTHER = bookstore().replace(b"SellBook", b"GiveBook")


def artifact(raw: bytes) -> dict[str, Any]:
    return {"data": {"books.pb": base64_of(raw)}}


def problems(world: World) -> list[str]:
    found = world.pipeline.found_in(PROXY_SOURCE.ref)
    return [problem.text for report in found.values() for problem in report.errors]


def body(world: World, type_url: Any) -> bytes:
    [found] = world.pipeline.snapshot(PROXY_SOURCE.ref).of(type_url).by_name.values()
    return found.body


async def test_nobody_asks_for_artifacts_until_something_refers_to_one() -> None:
    world = World()

    await world.put(PROXY, "gateway-proxy", proxy(host("a", answer("hello"))))
    assert not world.pipeline.artifacts_wanted
    await world.put(PROXY, "gateway-proxy", proxy(host("a", answer("hello")), grpcJsonTranscoder=TRANSCODER))

    assert world.pipeline.artifacts_wanted
    assert problems(world) == ["Artifact gloo-system.books: not found"]


async def test_a_listener_follows_its_artifact_and_outlives_a_broken_one() -> None:
    world = World()
    await world.put(PROXY, "gateway-proxy", proxy(host("a", answer("hello")), grpcJsonTranscoder=TRANSCODER))

    await world.put(ARTIFACT, "books", artifact(bookstore()))
    assert problems(world) == []
    assert bookstore() in body(world, LISTENER)
    outcome = await world.put(ARTIFACT, "other", artifact(ANOTHER))
    assert (outcome.snapshots, outcome.reported) == ({}, set())

    await world.put(ARTIFACT, "books", b"data: [")
    assert "cannot be read" in problems(world)[0]
    assert bookstore() in body(world, LISTENER)
    await world.put(ARTIFACT, "books", {"data": {"books.pb": "no base64!"}})
    assert problems(world) == ["Artifact gloo-system.books, books.pb: no base64"]
    assert bookstore() in body(world, LISTENER)
    await world.delete(ARTIFACT, "books")
    assert problems(world) == ["Artifact gloo-system.books: not found"]
    assert bookstore() in body(world, LISTENER)

    await world.put(ARTIFACT, "books", artifact(ANOTHER))
    assert problems(world) == []
    assert ANOTHER in body(world, LISTENER)


async def test_an_edit_translates_only_the_hosts_whose_upstream_refers_to_the_artifact() -> None:
    world = World()
    await world.put(ARTIFACT, "books", artifact(bookstore()))
    await world.put(UPSTREAM, "books", UPSTREAM_OF_BOOKS)
    await world.put(PROXY, "gateway-proxy", proxy(host("a", forward("books")), host("b", answer("hello"))))
    assert bookstore() in body(world, ROUTES)
    listener, before = body(world, LISTENER), world.pipeline.proxies.computed

    outcome = await world.put(ARTIFACT, "books", artifact(ANOTHER))

    assert world.pipeline.proxies.computed == before + 1
    assert ANOTHER in body(world, ROUTES)
    assert body(world, LISTENER) == listener
    assert not any(source.kind == ARTIFACT.name for source in outcome.reported)
