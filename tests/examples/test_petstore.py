"""Petstore as a process, asked over HTTP."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.support.ports import free_port
from tests.support.processes import spawn
from tests.support.waiting import eventually

PETSTORE = Path(__file__).parents[2] / "examples" / "petstore"


@pytest.fixture
async def petstore(tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    port = free_port()
    process = spawn([sys.executable, PETSTORE / "petstore.py", "--port", str(port)], log=tmp_path / "log")
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

        async def alive() -> bool:
            async with session.get("/healthz") as answer:
                return answer.status == 200

        await eventually(alive)
        yield session
    assert await process.stop() == 0


async def get(session: aiohttp.ClientSession, path: str) -> tuple[int, object]:
    async with session.get(path) as answer:
        return answer.status, await answer.json()


async def test_pets_are_listed_and_found(petstore: aiohttp.ClientSession) -> None:
    dog = {"id": 1, "name": "Dog", "status": "available"}

    assert await get(petstore, "/api/pets") == (200, [dog, {"id": 2, "name": "Cat", "status": "pending"}])
    assert await get(petstore, "/api/pets?status=available") == (200, [dog])
    assert await get(petstore, "/api/pets/1") == (200, dog)
    assert await get(petstore, "/api/pets/7") == (404, {"error": "no pet 7"})
    assert await get(petstore, "/api/pets/dog") == (404, {"error": "no pet dog"})


async def test_a_pet_is_added(petstore: aiohttp.ClientSession) -> None:
    async with petstore.post("/api/pets", json={"id": 3, "name": "Owl"}) as answer:
        assert answer.status == 200

    assert await get(petstore, "/api/pets/3") == (200, {"id": 3, "name": "Owl"})


@pytest.mark.parametrize("body", ["{", "[]", '{"id": "x", "name": "Owl"}'])
async def test_what_is_no_pet_is_refused(petstore: aiohttp.ClientSession, body: str) -> None:
    async with petstore.post("/api/pets", data=body) as answer:
        assert answer.status == 400


async def test_every_path_of_its_description_is_served(petstore: aiohttp.ClientSession) -> None:
    async with petstore.get("/swagger.json") as answer:
        swagger = await answer.json()

    assert swagger["swagger"] == "2.0"
    for path in swagger["paths"]:
        assert (await get(petstore, swagger["basePath"] + path.replace("{id}", "2")))[0] == 200


def test_the_registrations_differ_in_the_address_alone() -> None:
    local = json.loads((PETSTORE / "petstore-service.json").read_text())
    compose = json.loads((PETSTORE / "petstore-compose.json").read_text())

    assert (local["Name"], local["Port"], local["Address"]) == ("petstore", 8090, "127.0.0.1")
    assert compose == local | {"Address": "petstore"}
