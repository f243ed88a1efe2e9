"""What translation gives is put to the real Envoy: it must take it, and warn of nothing deprecated."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

import pytest
import yaml

from tests.services.gloo.translator.test_golden import CASES, name_of
from tests.support.bookstore import bookstore
from tests.support.fields import load
from tests.support.golden import World, static_resources, translate_world
from tests.support.random_documents import edged_case, random_case, random_hybrid_case, random_tls_case

ENVOY = Path(sys.executable).with_name("envoy")
# These can be had by a field only that Envoy warns of, as deprecated or unfinished; else none is used.
WARNED = {
    "match_large_regex": "max_program_size",
    "gzip_content_type": "content_type",
    "access_logs_open_telemetry": "common_config",
    "header_validation": "allow_custom_methods",
    "udp": "matcher",
}
FILES = {"grpc_json_in_a_file"}  # of Envoy's; whether an edge goes with what is in them, only Envoy knows
KNOWN = ("Deprecated field", "work-in-progress", "Unknown retry_on policy token")  # of the last we warn, too


def golden_worlds() -> dict[str, World]:
    return {name_of(case): translate_world(yaml.safe_load(case.read_text()))[0] for case in CASES}


def random_worlds(seeds: range) -> Iterator[tuple[str, World]]:
    golden = [load(case) for case in CASES if name_of(case) not in FILES]
    kinds = {
        "case": random_case,
        "tls": random_tls_case,
        "hybrid": random_hybrid_case,
        "edge": lambda seed: edged_case(seed, golden),
    }
    for (name, kind), seed in product(kinds.items(), seeds):
        try:
            yield f"{name}-{seed}-", translate_world(kind(seed))[0]
        except AssertionError:
            continue  # not decodable


def test_envoy_accepts_every_golden_result(tmp_path: Path) -> None:
    worlds = golden_worlds()
    warned = {name: worlds.pop(name) for name in WARNED}

    said = validate(worlds, tmp_path)

    assert said == ""
    for name, field in WARNED.items():
        accepted, said = run_envoy({name: warned[name]}, tmp_path)
        assert accepted, said
        assert field in said


def test_envoy_accepts_whatever_was_accepted_here(tmp_path: Path) -> None:
    accept(range(80), tmp_path)


@pytest.mark.soak
def test_envoy_accepts_much_more_that_was_accepted_here(tmp_path: Path) -> None:
    for block in range(1, 100):
        accept(range(block * 80, block * 80 + 80), tmp_path)


def accept(seeds: range, folder: Path) -> None:
    said = validate(dict(random_worlds(seeds)), folder)
    assert [line for line in said.splitlines() if not any(words in line for words in KNOWN)] == []


def validate(worlds: Mapping[str, World], folder: Path) -> str:
    """What Envoy says of *worlds*, put into one configuration; if it refuses it, of those that it refuses."""
    accepted, said = run_envoy(worlds, folder)
    if accepted or len(worlds) == 1:
        return (
            said
            if accepted
            else "".join(f"{name}: {line}" for name in worlds for line in said.splitlines(True))
        )
    names = list(worlds)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    return "".join(validate({name: worlds[name] for name in half}, folder) for half in halves)


def run_envoy(worlds: Mapping[str, World], folder: Path) -> tuple[bool, str]:
    config = folder / "envoy.json"
    node = {"id": "envoy", "cluster": "gateway"}
    (folder / "books.pb").write_bytes(bookstore())  # what listeners find in a file
    config.write_text(json.dumps({"node": node, "static_resources": static_resources(worlds)}))
    command = [str(ENVOY), "--mode", "validate", "--log-level", "warning", "--config-path", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100, cwd=folder)
    return done.returncode == 0, done.stderr
