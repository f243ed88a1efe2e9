"""Artifacts in files: what is read, and what is read again."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.gloo.artifacts import MOST_BYTES, ArtifactFiles
from shared.errors import InvalidSettings
from shared.ref import Ref

BOOKS = Ref("ns", "books")


def write(directory: Path, ref: Ref, text: str) -> None:
    path = directory / "artifacts" / ref.namespace / f"{ref.name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_files_are_read_when_they_differ_and_missed_when_they_go(tmp_path: Path) -> None:
    files = ArtifactFiles(str(tmp_path))
    assert files.look() == ({}, set())

    write(tmp_path, BOOKS, "data: {a: b}")
    write(tmp_path, Ref("ns", "films"), "data: {c: d}")
    put, gone = files.look()
    assert {ref: each.message.data for ref, each in put.items()} == {
        BOOKS: {"a": "b"},
        Ref("ns", "films"): {"c": "d"},
    }
    assert put[BOOKS].message.metadata.name == "books"
    assert files.look() == ({}, set())

    write(tmp_path, BOOKS, "data: {a: changed}")
    (tmp_path / "artifacts/ns/films.yaml").unlink()
    put, gone = files.look()
    assert (list(put), gone) == ([BOOKS], {Ref("ns", "films")})


def test_what_is_no_artifact_says_why(tmp_path: Path) -> None:
    for name, text in {"yaml": "data: [", "fields": "date: {}", "long": "#" * (MOST_BYTES + 1)}.items():
        write(tmp_path, Ref("ns", name), text)
    (tmp_path / "artifacts/ns/folder.yaml").mkdir()

    put, _ = ArtifactFiles(str(tmp_path)).look()

    said = {ref.name: str(each.report.errors[0]) for ref, each in put.items()}
    assert all(each.message is None for each in put.values())
    assert "cannot be read" in said["yaml"]
    assert "date: unknown field" in said["fields"]
    assert "is longer than" in said["long"]
    assert "cannot be read: Is a directory" in said["folder"]


def test_only_the_namespaces_that_may_be_read_are(tmp_path: Path) -> None:
    write(tmp_path, BOOKS, "data: {}")
    write(tmp_path, Ref("other", "books"), "data: {}")

    put, _ = ArtifactFiles(str(tmp_path), {"ns"}).look()

    assert list(put) == [BOOKS]


def test_a_directory_must_be_named() -> None:
    with pytest.raises(InvalidSettings, match=r"directoryArtifactSource\.directory: required"):
        ArtifactFiles("")
