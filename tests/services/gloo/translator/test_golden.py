"""Translation by golden pairs: what goes in, what Envoy gets and what its owners are told."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.support.golden import translate_case

HERE = Path(__file__).parents[1]
FOLDERS = [HERE / "translator" / "golden", HERE / "features" / "golden"]
CASES = sorted(path for folder in FOLDERS for path in folder.glob("*.in.yaml"))


def name_of(path: Path) -> str:
    return path.name.removesuffix(".in.yaml")


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_translates_to_the_golden_file(case: Path, request: pytest.FixtureRequest) -> None:
    given = yaml.safe_load(case.read_text())

    result = translate_case(given)

    got = yaml.safe_dump(result, sort_keys=True, width=100)
    golden = case.with_name(f"{name_of(case)}.out.yaml")
    if request.config.getoption("--update-golden"):
        golden.write_text(got)
    assert golden.exists(), "no golden file yet; write it with --update-golden"
    assert got == golden.read_text()


def test_no_golden_file_is_left_without_its_input() -> None:
    results = {path for folder in FOLDERS for path in folder.glob("*.out.yaml")}

    assert results == {case.with_name(f"{name_of(case)}.out.yaml") for case in CASES}
