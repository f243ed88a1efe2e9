"""What translation gives is put to the real Envoy: it must take it, and warn of nothing deprecated."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.gloo.resources import Resource
from shared.codec.documents import to_document
from tests.services.gloo.translator.test_golden import CASES, name_of
from tests.support.golden import MESSAGES, translate_world
from tests.support.random_documents import random_case

ENVOY = Path(sys.executable).with_name("envoy")
# A large regular expression is allowed by a deprecated field only; everywhere else none is used.
LARGE = "match_large_regex"

World = dict[str, list[Resource]]


def golden_worlds() -> dict[str, World]:
    return {name_of(case): translate_world(yaml.safe_load(case.read_text()))[0] for case in CASES}


def random_worlds() -> Iterator[tuple[str, World]]:
    for seed in range(150):
        try:
            yield f"seed-{seed}", translate_world(random_case(seed))[0]
        except AssertionError:
            continue  # not decodable


@pytest.mark.filterwarnings("ignore:RegexMatcher")
def test_envoy_accepts_every_golden_result(tmp_path: Path) -> None:
    worlds = golden_worlds()
    large = {LARGE: worlds.pop(LARGE)}

    said = validate(worlds, tmp_path)

    assert said == ""
    assert "max_program_size" in validate(large, tmp_path)


@pytest.mark.filterwarnings("ignore:RegexMatcher")
def test_envoy_accepts_whatever_was_accepted_here(tmp_path: Path) -> None:
    said = validate(dict(random_worlds()), tmp_path)

    assert [line for line in said.splitlines() if "Deprecated field" not in line] == []


def validate(worlds: Mapping[str, World], folder: Path) -> str:
    """What Envoy says of *worlds*, put into one configuration; if it refuses it, of each by itself."""
    accepted, said = run_envoy(worlds, folder)
    if accepted or len(worlds) == 1:
        return said
    return "\n".join(f"{name}: {run_envoy({name: each}, folder)[1]}" for name, each in worlds.items())


def run_envoy(worlds: Mapping[str, World], folder: Path) -> tuple[bool, str]:
    config = folder / "envoy.json"
    config.write_text(json.dumps({"static_resources": joined(worlds)}))
    command = [str(ENVOY), "--mode", "validate", "--log-level", "warning", "--config-path", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    return done.returncode == 0, done.stderr


def joined(worlds: Mapping[str, World]) -> dict[str, Any]:
    """All worlds side by side as static resources, with names and ports of their own."""
    ports = count(1024)
    listeners, clusters = [], []
    for name, world in worlds.items():
        documents = {
            part: {each.name: to_document(MESSAGES[part].parse(each.body)) for each in members}
            for part, members in world.items()
        }
        for listener in documents["listeners"].values():
            place_routes(listener, documents["routes"])
            if socket := listener["address"].get("socketAddress"):
                socket["portValue"] = next(ports)
            listeners.append({**listener, "name": f"{name} {listener['name']}", "bindToPort": False})
        for cluster in documents["clusters"].values():
            own = f"{name} {cluster['name']}"
            if cluster.get("type") == "EDS":
                del cluster["edsClusterConfig"]
                cluster["type"] = "STATIC"
                cluster["loadAssignment"] = documents["endpoints"].get(cluster["name"], {})
            clusters.append(
                cluster | {"name": own, "loadAssignment": cluster["loadAssignment"] | {"clusterName": own}}
            )
    return {"listeners": listeners, "clusters": clusters}


def place_routes(listener: dict[str, Any], routes: Mapping[str, Any]) -> None:
    """Put the routes that would come over RDS into *listener* itself."""
    for chain in listener["filterChains"]:
        manager = chain["filters"][0]["typedConfig"]
        if rds := manager.pop("rds", None):
            manager["routeConfig"] = {**routes[rds["routeConfigName"]], "validateClusters": False}
