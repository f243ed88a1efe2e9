"""The page that tells what comes of every field is up to date; no field is without a state and a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.consul import REPOSITORY
from tests.support.coverage import ABOVE, Row, State, contract, declared, page, table

PAGE = REPOSITORY / "docs" / "coverage.md"


def test_the_page_is_up_to_date(request: pytest.FixtureRequest) -> None:
    now = page()

    if request.config.getoption("--update-golden"):
        PAGE.write_text(now)
    up_to_date = now == PAGE.read_text()  # a diff would take long
    assert up_to_date, "write it anew with --update-golden"


def test_something_comes_of_every_field() -> None:
    assert [name for name, row in rows() if row.state is State.OPEN] == []


def test_a_test_shows_what_comes_of_every_field() -> None:
    """But for what is kept and not used, or only says whose an object is."""

    def does_something(row: Row) -> bool:
        return row.state in (State.WORKS, State.REJECTED) or row.words.endswith("rejected")

    assert [name for name, row in rows() if does_something(row) and row.test is None] == []
    assert all(field in case.read_text() for (_, field), case in ABOVE.items())


def test_comments_say_what_comes_of_a_field() -> None:
    """They call it rejected, or of no effect, if it is, and only then."""
    doing = {name: row for name, row in rows() if row.state is not State.BOOKKEEPING}
    silent = {
        f"{name}.{field}"
        for name, each in contract().items()
        for field in each.fields
        if not declared(each.comments[field])[0]
    }

    assert {
        name for name, row in doing.items() if (row.state is State.WORKS) is not (name in silent)
    } == set()


def rows() -> Iterator[tuple[str, Row]]:
    """Every row, by its message's full name and the field's."""
    return ((f"{name}.{row.field}", row) for name, several in table().items() for row in several)
