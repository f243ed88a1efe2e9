from __future__ import annotations

import pytest

from shared.errors import InvalidResource
from shared.ref import Ref
from shared.store.keys import UPSTREAM, key
from shared.store.store import ObjectChanged, ObjectExists, ObjectMissing, Store
from tests.support.watching import AnyKV

PETSTORE = Ref("gloo-system", "petstore")
DOCUMENT = {"static": {"hosts": [{"addr": "127.0.0.1", "port": 8090}]}}


@pytest.fixture
def store(kv: AnyKV) -> Store:
    return Store(kv, "gloo")


async def index_of(store: Store) -> int:
    stored = await store.get(UPSTREAM, PETSTORE)
    assert stored is not None
    return stored.index


async def test_what_was_created_is_read_back(store: Store) -> None:
    await store.create(UPSTREAM, PETSTORE, DOCUMENT)

    stored = await store.get(UPSTREAM, PETSTORE)

    assert stored is not None
    assert stored.message.static.hosts[0].port == 8090
    assert stored.document == {**DOCUMENT, "metadata": {"name": "petstore", "namespace": "gloo-system"}}
    assert stored.index > 0


async def test_there_is_no_object_where_none_was_written(store: Store) -> None:
    assert await store.get(UPSTREAM, PETSTORE) is None


async def test_what_exists_is_not_created_again(store: Store) -> None:
    await store.create(UPSTREAM, PETSTORE, DOCUMENT)

    with pytest.raises(ObjectExists, match=r"^Upstream gloo-system\.petstore exists already$"):
        await store.create(UPSTREAM, PETSTORE, {})


async def test_a_name_that_cannot_be_is_refused(store: Store) -> None:
    with pytest.raises(InvalidResource, match=r"^metadata\.name: 'Pet_Store'"):
        await store.create(UPSTREAM, Ref("gloo-system", "Pet_Store"), DOCUMENT)


async def test_an_object_is_replaced_as_it_was_read(store: Store) -> None:
    await store.create(UPSTREAM, PETSTORE, DOCUMENT)

    await store.replace(UPSTREAM, PETSTORE, {}, await index_of(store))

    stored = await store.get(UPSTREAM, PETSTORE)
    assert stored is not None
    assert stored.message.static is None


async def test_a_change_that_came_between_is_not_lost(store: Store) -> None:
    await store.create(UPSTREAM, PETSTORE, DOCUMENT)
    read = await index_of(store)
    await store.replace(UPSTREAM, PETSTORE, {}, read)

    with pytest.raises(ObjectChanged) as changed:
        await store.replace(UPSTREAM, PETSTORE, DOCUMENT, read)
    with pytest.raises(ObjectChanged):
        await store.delete(UPSTREAM, PETSTORE, read)

    assert changed.value.index == read


async def test_what_is_gone_cannot_be_replaced(store: Store) -> None:
    for index in (0, 7):
        with pytest.raises(ObjectMissing, match=r"^Upstream gloo-system\.petstore does not exist$"):
            await store.replace(UPSTREAM, PETSTORE, DOCUMENT, index)


async def test_deleting_is_done_once_and_may_be_asked_for_again(store: Store) -> None:
    await store.create(UPSTREAM, PETSTORE, DOCUMENT)

    await store.delete(UPSTREAM, PETSTORE, await index_of(store))
    await store.delete(UPSTREAM, PETSTORE, 7)
    await store.delete(UPSTREAM, PETSTORE)

    assert await store.get(UPSTREAM, PETSTORE) is None


async def test_a_value_that_cannot_be_read_is_still_an_object(store: Store, kv: AnyKV) -> None:
    await kv.put(key("gloo", UPSTREAM, PETSTORE), b"\xff")

    stored = await store.get(UPSTREAM, PETSTORE)

    assert stored is not None
    assert stored.document is None
    await store.replace(UPSTREAM, PETSTORE, DOCUMENT, stored.index)
