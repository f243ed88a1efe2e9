from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from shared.errors import InvalidSettings
from shared.ref import Ref
from shared.telemetry import logs

KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """The stream that logging goes to; the process' own handlers come back afterwards."""
    root, asyncio_log = logging.getLogger(), logging.getLogger("asyncio")
    before = root.handlers[:], root.level, asyncio_log.level
    stream = io.StringIO()
    logs.configure("info", stream)
    yield stream
    logging.captureWarnings(False)
    root.handlers[:], asyncio_log.level = before[0], before[2]
    root.setLevel(before[1])


def test_a_record_is_one_json_object_with_its_fields(lines: io.StringIO) -> None:
    logging.getLogger("shared.x").info(
        "route %s", "rejected", extra={"ref": Ref("a", "b"), "indexes": {2, 1}}
    )

    line = json.loads(lines.getvalue())
    assert line.pop("ts").endswith("+00:00")
    assert line == {
        "level": "info",
        "logger": "shared.x",
        "message": "route rejected",
        "ref": "a.b",
        "indexes": [1, 2],
    }


def test_a_traceback_stays_on_the_line(lines: io.StringIO) -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger().exception("failed")

    (line,) = lines.getvalue().splitlines()
    assert "ValueError: broken" in json.loads(line)["traceback"]


@pytest.mark.parametrize("name", ["token", "vaultToken", "password", "private_key", "clientSecret"])
def test_secrets_are_hidden_by_name(lines: io.StringIO, name: str) -> None:
    logging.getLogger().warning("given", extra={name: "hush", "options": {name: ["hush"]}})

    assert "hush" not in lines.getvalue()


def test_the_name_of_a_secret_is_no_secret(lines: io.StringIO) -> None:
    logging.getLogger().warning("missing", extra={"secret_ref": Ref("a", "cert")})

    assert json.loads(lines.getvalue())["secret_ref"] == "a.cert"


def test_private_keys_are_cut_out_of_any_text(lines: io.StringIO) -> None:
    logging.getLogger().warning("got %s", KEY, extra={"body": f"x {KEY} y"})

    assert "MIIabc" not in lines.getvalue()
    assert json.loads(lines.getvalue())["body"] == "x (hidden) y"


def test_numbers_json_cannot_hold_do_not_lose_the_line(lines: io.StringIO) -> None:
    logging.getLogger().warning("big", extra={"n": 2**70})

    assert json.loads(lines.getvalue())["n"] == str(2**70)


def test_the_level_moves_while_running(lines: io.StringIO) -> None:
    logging.getLogger("a").debug("unseen")
    logs.set_level("debug")
    logging.getLogger("a").debug("seen")

    assert [json.loads(line)["message"] for line in lines.getvalue().splitlines()] == ["seen"]
    assert logs.get_level() == "debug"


def test_an_unknown_level_names_the_known_ones() -> None:
    with pytest.raises(
        InvalidSettings, match="no log level 'loud'; choose one of debug, info, warning, error"
    ):
        logs.parse_level("loud")
