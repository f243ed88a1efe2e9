"""What holds for all objects and all edits, drawn from the contract: new fields are in it by themselves.

``make test`` draws some, ``make soak`` many more.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from shared.ref import Ref
from tests.services.gloo.translator.test_envoy_accepts import KNOWN, validate
from tests.support.random_documents import Case
from tests.support.random_system import NAMES, NAMESPACE, System, World, random_edits, random_world

SPARSE, USUAL, DENSE = 0.02, 0.08, 0.3
"""How often a field is set that need not be."""
EDITS = 30
SECRETS = [Ref(NAMESPACE, name) for name in NAMES]


async def test_any_objects_are_served_or_told_what_is_wrong_and_where(tmp_path: Path) -> None:
    await serve_or_tell(range(60), tmp_path)


@pytest.mark.soak
async def test_many_more_objects_are_served_or_told_what_is_wrong_and_where(tmp_path: Path) -> None:
    for block in range(1, 100):
        await serve_or_tell(range(block * 60, block * 60 + 60), tmp_path)


async def serve_or_tell(seeds: range, folder: Path) -> None:
    """Envoy takes what is served, and what is wrong has a path, but for what is of an object as a whole."""
    worlds = {}
    for seed in seeds:
        system = System()
        await system.apply(random_world(case(seed)))
        worlds |= {f"{seed}-{i}-": world for i, world in enumerate(system.worlds())}
        problems = [problem for report in system.reports().values() for problem in report.errors]
        assert [str(each) for each in problems if not each.path and "no " not in each.text] == []
    said = await asyncio.to_thread(validate, worlds, folder)
    assert [line for line in said.splitlines() if not any(words in line for words in KNOWN)] == []


@pytest.mark.parametrize("seed", range(30))
async def test_any_edits_come_to_what_a_start_would_make(seed: int) -> None:
    await edit_and_compare(seed)


@pytest.mark.soak
async def test_many_more_edits_come_to_what_a_start_would_make() -> None:
    for seed in range(30, 5_000):
        await edit_and_compare(seed)


async def edit_and_compare(seed: int) -> None:
    """Edits, right and wrong ones, and at last such that nothing is wrong: then history must not matter."""
    random = case(seed)
    world = random_world(random)
    edited = System()
    await edited.apply(world)
    for source, document in random_edits(random, EDITS):
        await edited.apply({source: document})
        await edited.lose(frozenset(ref for ref in SECRETS if random.random() < 0.2))
        if document is None:
            world.pop(source, None)
        else:
            world[source] = document
    await edited.lose(frozenset())
    right, fresh = await mended(world)
    await edited.apply(dict.fromkeys(world.keys() - right.keys()))

    assert edited.proxies == fresh.proxies
    assert edited.served() == fresh.served()
    assert edited.reports() == fresh.reports()


async def mended(world: World) -> tuple[World, System]:
    """*world* without the objects that have something wrong with them, and what a start makes of it."""
    while True:
        fresh = System()
        await fresh.apply(world, secrets=SECRETS)
        wrong = {source for source, report in fresh.reports().items() if report.errors}
        if not wrong:
            return world, fresh
        assert wrong & world.keys(), [str(each) for each in wrong]
        world = {source: document for source, document in world.items() if source not in wrong}


def case(seed: int) -> Case:
    return Case(seed, often=(SPARSE, USUAL, DENSE)[seed % 3])
