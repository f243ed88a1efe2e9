"""Every golden result is put to the real Envoy: it must take it, and warn of nothing deprecated."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.gloo.resources import Resource
from shared.codec.documents import to_document
from tests.services.gloo.translator.test_golden import CASES, name_of
from tests.support.golden import MESSAGES, translate_world

ENVOY = Path(sys.executable).with_name("envoy")
# A large regular expression is allowed by a deprecated field only; everywhere else none is used.
MAY_WARN = {"match_large_regex"}


@pytest.mark.filterwarnings("ignore:RegexMatcher")
def test_envoy_accepts_all_golden_results(tmp_path: Path) -> None:
    refused = {}
    for case in CASES:
        resources, _ = translate_world(yaml.safe_load(case.read_text()))
        config = tmp_path / f"{name_of(case)}.json"
        config.write_text(json.dumps(bootstrap(resources)))
        command = [str(ENVOY), "--mode", "validate", "--log-level", "warning", "--config-path", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        warned = "Deprecated" in done.stderr and name_of(case) not in MAY_WARN
        if done.returncode or warned:
            refused[name_of(case)] = done.stderr[-2000:]

    assert refused == {}


def bootstrap(resources: dict[str, list[Resource]]) -> dict[str, Any]:
    """The resources as a static configuration; what would come over ADS is put in its place."""
    documents = {
        part: {each.name: to_document(MESSAGES[part].parse(each.body)) for each in members}
        for part, members in resources.items()
    }
    for cluster in documents["clusters"].values():
        if cluster.get("type") == "EDS":
            del cluster["edsClusterConfig"]
            empty = {"clusterName": cluster["name"]}
            cluster |= {
                "type": "STATIC",
                "loadAssignment": documents["endpoints"].get(cluster["name"], empty),
            }
    for listener in documents["listeners"].values():
        for chain in listener["filterChains"]:
            manager = chain["filters"][0]["typedConfig"]
            if rds := manager.pop("rds", None):
                routes = documents["routes"][rds["routeConfigName"]]
                manager["routeConfig"] = {**routes, "validateClusters": False}
    listeners = [{**each, "bindToPort": False} for each in documents["listeners"].values()]
    return {"static_resources": {"listeners": listeners, "clusters": [*documents["clusters"].values()]}}
