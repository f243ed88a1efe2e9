"""Last good snapshots: what is written comes back, and what is not ours is set aside."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from protos import gloo
from services.gloo.last_good import LastGood, Spelling, State, Unusable, pack, pieces, unpack
from services.gloo.memory import Following
from services.gloo.parts import WHOLE
from services.gloo.quarantine.held import Blame, Held, Place
from services.gloo.resources import CLUSTER, ROUTES, SECRET, Resources, Snapshot, resource
from services.gloo.translator.consul import ConsulSelection, SubsetKeys
from services.gloo.translator.sources import Origin
from shared.ref import Ref, Source
from tests.support.waiting import eventually

ROLE = "gloo-system~gateway-proxy"
SNAPSHOT = Snapshot(
    {
        CLUSTER: Resources.of(
            [resource("a", b"\x00\n\xff" * 9, [Source("Upstream", Ref("n", "a"))]), resource("b", b"")]
        ),
        ROUTES: Resources.of([resource("r", b"routes")]),
    }
)
STATE = State(SNAPSHOT)
FOLLOWING = Following(
    ConsulSelection(service="web", data_centers=("dc1",), instance_tags=("a",), exact_tags=("b", "c")),
    SubsetKeys(tags=("t",), data_centers=("dc1",)),
    (Source("Upstream", Ref("n", "a")),),
)


def test_a_snapshot_comes_back_with_names_bytes_sources_and_versions() -> None:
    assert unpack(pack(ROLE, STATE, 12.5)) == (ROLE, STATE, 12.5)


def test_what_is_held_and_what_is_followed_comes_back_with_it() -> None:
    blame = Blame(client="7", node="envoy", text="no such policy")
    sources = frozenset({Source("Upstream", Ref("n", "a"))})
    good = SNAPSHOT.of(CLUSTER).by_name["a"].body
    held = tuple(
        Held(
            place=Place(ROLE, CLUSTER, name),
            part=WHOLE,
            refused=2**63 + 5,
            good=stand_in,
            blame=blame,
            at=1.0,
            sources=sources,
        )
        for name, stand_in in (("a", good), ("new", None))
    )
    state = State(SNAPSHOT, held, {"web_n": FOLLOWING}, (("routes", "host"),))

    _, found, _ = unpack(pack(ROLE, state, 1.0))

    assert [(each.place, each.refused, each.good, each.sources) for each in found.held] == [
        (each.place, each.refused, each.good, each.sources) for each in held
    ]
    assert [each.blame for each in found.held] == [replace(blame, client="")] * 2
    assert found.following == {"web_n": FOLLOWING}
    assert found.partial == (("routes", "host"),)


def test_tls_configurations_come_back_and_secrets_are_left_out() -> None:
    origin = Origin(source=Source("VirtualService", Ref("n", "pets")), path="sslConfig")
    config = gloo.SslConfig(secret_ref=gloo.ResourceRef(name="pets", namespace="n"), sni_domains=["pets"])
    hush = resource("secret:n/pets", b"hush")
    state = State(SNAPSHOT.replaced({SECRET: Resources.of([hush])}), tls={"listener": {origin: config}})

    raw = pack(ROLE, state, 1.0)

    assert b"hush" not in raw
    assert unpack(raw)[1] == replace(state, snapshot=SNAPSHOT)


def test_what_was_spelt_before_makes_no_difference() -> None:
    spelling, routes = Spelling(), SNAPSHOT.of(ROUTES)
    edited = routes.patched(put=[resource("routes", b"edited", [Source("Proxy", Ref("n", "p"))])])
    states = [STATE, replace(STATE, snapshot=SNAPSHOT.replaced({ROUTES: edited})), State(Snapshot()), STATE]

    packed = [b"".join(pieces(ROLE, state, 1.0, spelling)) for state in states]

    assert packed == [pack(ROLE, state, 1.0) for state in states]
    assert len(set(packed)) == 3


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: raw[:-1],
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw.replace(b"routes", b"rout3s"),
        lambda raw: b"",
        lambda raw: b"something else altogether",
    ],
    ids=["shorter", "half", "altered", "empty", "foreign"],
)
def test_a_spoilt_file_is_not_usable(spoil) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Unusable):
        unpack(spoil(pack(ROLE, STATE, 1.0)))


async def test_the_newest_snapshot_is_loaded_and_a_gone_role_leaves_nothing(tmp_path: Path) -> None:
    kept = LastGood(tmp_path / "state")
    assert list(kept.load()) == []
    kept.keep(ROLE, State(Snapshot()))
    kept.keep(ROLE, STATE)
    kept.keep("other", STATE)
    await kept.flush()

    loaded = {role: state for role, state, _ in LastGood(tmp_path / "state").load()}
    assert loaded == {ROLE: STATE, "other": STATE}
    kept.keep("other", None)
    await kept.flush()
    assert [role for role, _, _ in LastGood(tmp_path / "state").load()] == [ROLE]


async def test_a_flush_has_written_what_another_was_writing(tmp_path: Path) -> None:
    """As at the end of the process, which ends the other one."""
    kept = LastGood(tmp_path)
    for role in (ROLE, "other"):
        kept.keep(role, STATE)
    other = asyncio.create_task(kept.flush())
    await asyncio.sleep(0)

    await kept.flush()

    assert {role for role, _, _ in kept.load()} == {ROLE, "other"}
    await other


async def test_a_withheld_snapshot_is_not_written(tmp_path: Path) -> None:
    kept = LastGood(tmp_path)
    kept.keep(ROLE, STATE)
    kept.withhold(ROLE)
    await kept.flush()

    assert list(kept.load()) == []


async def test_corrupt_files_are_set_aside_and_the_others_load(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = LastGood(tmp_path)
    kept.keep(ROLE, STATE)
    await kept.flush()
    (tmp_path / "0.snapshot").write_bytes(b"garbage")

    assert [role for role, _, _ in kept.load()] == [ROLE]
    assert "set aside" in caplog.text
    assert (tmp_path / "0.unusable").exists()


async def test_a_burst_is_written_once_it_is_quiet(tmp_path: Path) -> None:
    now = 0.0
    kept = LastGood(tmp_path, clock=lambda: now)
    kept.keep(ROLE, STATE)
    now = 5.0

    running = asyncio.create_task(kept.run())
    try:
        await eventually(lambda: list(kept.load()), within=5)
    finally:
        running.cancel()
