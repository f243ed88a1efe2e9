"""The page that tells what came of every field is true, and no field is without a state or a test."""

from __future__ import annotations

import pytest

from tests.support.consul import REPOSITORY
from tests.support.coverage import page

PAGE = REPOSITORY / "docs" / "coverage.md"


def test_the_page_is_what_the_code_does(request: pytest.FixtureRequest) -> None:
    now = page()

    if request.config.getoption("--update-golden"):
        PAGE.write_text(now)
    assert now == PAGE.read_text(), "write it anew with --update-golden"
