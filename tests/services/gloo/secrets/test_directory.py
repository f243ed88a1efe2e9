"""Secrets in files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from services.gloo.secrets.directory import MOST_BYTES, Directory
from services.gloo.secrets.source import Unavailable
from shared.ref import Ref
from tests.support.certificates import any_pair

PETS = Ref("ns", "pets")
CERTIFICATE, KEY, _ = any_pair()
DOCUMENT = yaml.safe_dump(
    {"metadata": {"name": "pets"}, "tls": {"certChain": CERTIFICATE, "privateKey": KEY}}
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the secret is to be."""
    found = tmp_path / "secrets" / "ns" / "pets.yaml"
    found.parent.mkdir(parents=True)
    return found


def write(path: Path, text: str) -> None:
    scratch = path.with_suffix(".new")
    scratch.write_text(text)
    scratch.replace(path)


async def test_a_file_is_read_when_it_was_written_again(tmp_path: Path, path: Path) -> None:
    source = Directory(str(tmp_path))
    await source.begin()
    absent = await source.read(PETS, "")
    assert absent is not None
    assert (absent.problem, absent.absent) == (f"{path} does not exist", True)

    write(path, DOCUMENT)
    first = await source.read(PETS, "")
    assert first is not None
    assert first.secret is not None
    assert await source.read(PETS, first.version) is None

    write(path, DOCUMENT + "\n")
    second = await source.read(PETS, first.version)
    assert second is not None
    assert second.version != first.version


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [hush", "is neither YAML nor JSON"),
        ("tls: hush", "cannot be decoded as a Secret: tls"),
        ("tls: {certChain: {hush: 1}}", "cannot be decoded as a Secret: tls.certChain"),
        ("- hush", "is neither YAML nor JSON"),
        ("tls: {privateKey: hush}", "certChain: required beside privateKey"),
        ("tls: {rootCa: hush}", "rootCa: no certificate in PEM"),
        ("tls: {}", "has neither certChain and privateKey nor rootCa"),
        ("aws: {accessKey: hush}\ntls: {rootCa: hush}", "cannot be decoded as a Secret"),
        ("x" * (MOST_BYTES + 1), f"is longer than {MOST_BYTES} bytes"),
    ],
)
async def test_what_is_wrong_is_told_and_not_shown(tmp_path: Path, path: Path, text: str, says: str) -> None:
    write(path, text)

    answer = await Directory(str(tmp_path)).read(PETS, "")

    assert answer is not None
    assert answer.secret is None
    assert says in answer.problem
    assert "hush" not in repr(answer)


async def test_a_directory_that_is_not_there_gives_no_answer(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="is no directory"):
        await Directory(str(tmp_path / "nowhere")).begin()


async def test_an_unreadable_file_is_told(tmp_path: Path, path: Path) -> None:
    os.mkdir(path)

    answer = await Directory(str(tmp_path)).read(PETS, "")

    assert answer is not None
    assert "cannot be read" in answer.problem
