"""Golden pairs: objects in steps, and after each step the Proxies and what was found.

``pytest --update-golden`` writes the outputs; a new case is two files and no Python.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from services.gateway.translation import Translation
from services.gateway.translator.model import Rules
from tests.services.gateway.support import NAMESPACE, apply, documents, findings

HERE = Path(__file__).parent / "golden"
CASES = sorted(path.name.removesuffix(".in.yaml") for path in HERE.glob("*.in.yaml"))


@pytest.mark.parametrize("case", CASES)
def test_translates_to_the_golden_file(case: str, request: pytest.FixtureRequest) -> None:
    given = yaml.safe_load((HERE / f"{case}.in.yaml").read_text())
    translation = Translation(NAMESPACE, Rules(**given.get("rules", {})))

    steps = []
    for step in given["steps"]:
        apply(translation, step.get("put", ()), [tuple(pair) for pair in step.get("delete", ())])
        steps.append({"proxies": documents(translation), "findings": findings(translation)})

    got = yaml.dump({"steps": steps}, Dumper=_Dumper, sort_keys=True, width=120)
    golden = HERE / f"{case}.out.yaml"
    if request.config.getoption("--update-golden"):
        golden.write_text(got)
    assert got == golden.read_text()


def test_no_golden_file_is_left_without_its_input() -> None:
    assert {path.name.removesuffix(".out.yaml") for path in HERE.glob("*.out.yaml")} == set(CASES)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True
