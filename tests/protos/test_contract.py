"""The contract: all of Gloo's fields, and documents as both of its releases have them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import betterproto2
import pytest
import yaml

from protos import gateway, gloo
from protos._generated.schema import MESSAGES
from shared.codec.decode import check, decode
from shared.codec.documents import to_document
from shared.codec.schema import full_name
from shared.report import Report

HERE = Path(__file__).parent
DOCUMENTS = sorted((HERE / "documents").glob("*/*.yaml"))
KINDS = {
    "Gateway",
    "VirtualService",
    "RouteTable",
    "Proxy",
    "Upstream",
    "UpstreamGroup",
    "Settings",
    "Secret",
    "Artifact",
}


def wanted_fields() -> Iterator[tuple[str, list[str]]]:
    """The lines of fields.txt; a long one goes on, indented, in the next."""
    text = (HERE / "fields.txt").read_text().replace("\n  ", " ")
    for line in text.splitlines()[1:]:
        message, _, fields = line.partition(": ")
        yield message, fields.split()


def message_of(path: Path) -> type[betterproto2.Message]:
    """The message that ``virtual_service.yaml`` has documents of."""
    name = path.stem.title().replace("_", "")
    found: type[betterproto2.Message] = getattr(gateway, name, None) or getattr(gloo, name)
    return found


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


def test_every_field_of_gloos_open_edition_is_there() -> None:
    missing = {
        f"{message}.{field}"
        for message, fields in wanted_fields()
        for field in fields
        if field not in MESSAGES.get(message, {})
    }

    assert not missing


@pytest.mark.parametrize("release", ["1.2.4", "1.21"])
def test_there_are_documents_of_every_kind(release: str) -> None:
    there = {full_name(message_of(path)) for path in DOCUMENTS if path.parent.name == release}

    assert {name.rpartition(".")[2] for name in there} >= KINDS


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_both_releases_documents_are_read(path: Path) -> None:
    message = message_of(path)

    for document in documents(path):
        report = Report()
        decoded = decode(message, document, report)

        assert not report.errors
        assert decoded is not None
        assert check(full_name(message), document, Report())


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_is_read_is_written_and_read_again(path: Path) -> None:
    message = message_of(path)

    for document in documents(path):
        decoded = decode(message, document, Report())
        assert decoded is not None
        written = to_document(decoded)

        assert decode(message, written, Report()) == decoded


def test_the_index_links_to_what_is_there() -> None:
    index = HERE.parents[1] / "docs" / "objects.md"
    links = re.findall(r"\]\(([^)]+)\)", index.read_text())

    assert len(links) > 20
    assert [link for link in links if not (index.parent / link).exists()] == []
