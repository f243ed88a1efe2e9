"""The generator: its table, the comments it is fed, what it writes, and when it has to be run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from protos._generated.schema import ENUMS, MESSAGES
from protos.generate import PACKAGES, contract_descriptors, envoy_descriptors, generate, is_current, schema
from shared.codec.decode import check
from shared.report import Report

ROOT = Path(__file__).parents[2]
SYNTAX, MESSAGE, ENUM, FIELD, NESTED_MESSAGE, NESTED_ENUM, VALUE = (12,), 4, 5, 2, 3, 4, 2
"""How descriptors number the parts of a file, of a message and of an enum."""


@pytest.fixture(scope="module")
def contract() -> list[Any]:
    return [file for file in contract_descriptors() if file.package in PACKAGES]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contract's classes, generated where Envoy's messages cannot be imported."""
    target = tmp_path_factory.mktemp("contract") / "messages"
    code = """
        import sys
        from pathlib import Path
        from protos.generate import generate
        generate(contract_only=True, target=Path(sys.argv[1]))
        assert not [name for name in sys.modules if name.partition(".")[0] in ("envoy", "xds", "udpa")]
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), target], check=True, cwd=ROOT)
    return target


def test_the_schema_table_matches_the_descriptors(contract: list[Any]) -> None:
    assert schema(contract) == {"messages": MESSAGES, "enums": ENUMS}, "run `make generate`"


def test_the_schema_table_tells_fields_apart() -> None:
    action, upstream = MESSAGES["gateway.solo.io.RouteTable"], MESSAGES["gloo.solo.io.Upstream"]

    assert action["weight"] == ("weight", "wrapper", "int32", "", "one")
    assert action["routes"] == ("routes", "message", "gateway.solo.io.Route", "", "list")
    assert upstream["dnsRefreshRate"][1:3] == ("duration", "google.protobuf.Duration")
    assert upstream["awsEc2"][0] == "aws_ec2"
    assert upstream["awsEc2"][3] == "upstream_type"
    assert MESSAGES["gloo.solo.io.Metadata"]["labels"] == ("labels", "scalar", "string", "", "map")
    assert ENUMS["gloo.solo.io.Status.State"] == {"Pending": 0, "Accepted": 1, "Rejected": 2, "Warning": 3}


# Comments are the users' documentation


def comments_of(file: Any) -> dict[tuple[int, ...], str]:
    return {
        tuple(place.path): place.leading_comments + place.trailing_comments
        for place in file.source_code_info.location
    }


def first_comment(file: Any) -> str:
    """What stands above everything else, with an empty line below it."""
    places = [place for place in file.source_code_info.location if tuple(place.path) == SYNTAX]
    return "".join(comment for place in places for comment in place.leading_detached_comments)


def parts_of(file: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    """All that has a name in *file*, with its full name and its path."""
    for i, message in enumerate(file.message_type):
        yield from parts_of_message(f"{file.package}.{message.name}", message, (MESSAGE, i))
    for i, enum in enumerate(file.enum_type):
        yield from parts_of_enum(f"{file.package}.{enum.name}", enum, (ENUM, i))


def parts_of_message(name: str, message: Any, path: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield name, path
    for i, field in enumerate(message.field):
        yield f"{name}.{field.name}", (*path, FIELD, i)
    for i, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            yield from parts_of_message(f"{name}.{nested.name}", nested, (*path, NESTED_MESSAGE, i))
    for i, enum in enumerate(message.enum_type):
        yield from parts_of_enum(f"{name}.{enum.name}", enum, (*path, NESTED_ENUM, i))


def parts_of_enum(name: str, enum: Any, path: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield name, path
    if name != "gloo.solo.io.GrpcStatusFilter.Status":  # gRPC's own names say it all
        for i, value in enumerate(enum.value):
            yield f"{name}.{value.name}", (*path, VALUE, i)


def test_everything_in_the_contract_has_a_comment(contract: list[Any]) -> None:
    without = [
        name
        for file in contract
        for name, path in parts_of(file)
        if not comments_of(file).get(path, "").strip()
    ]
    unsaid = [file.name for file in contract if not first_comment(file).strip()]

    assert without == []
    assert unsaid == []


def test_examples_in_comments_are_documents_of_the_contract(contract: list[Any]) -> None:
    """A kind's is one of the kind; another message's is one of some message that has it in it."""
    wrong, kinds = [], set()
    for name, comment, document in examples(contract):
        if re.search(r"^ (Key|File|Vault\b.*): `", comment, re.MULTILINE):
            kinds.add(name.rpartition(".")[2])
            taken = check(name, document, Report())
        else:
            taken = any(check(message, document, Report()) for message in MESSAGES)
        if not taken:
            wrong.append((name, document))

    assert wrong == []
    assert kinds >= {"Gateway", "VirtualService", "RouteTable", "Proxy", "Upstream", "UpstreamGroup"}
    assert kinds >= {"Settings", "Secret", "Artifact"}


def examples(contract: list[Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """What is indented in a comment; a list is one of routes."""
    for file in contract:
        comments = comments_of(file)
        for name, path in parts_of(file):
            comment = comments.get(path, "")
            indented = [line for line in comment.splitlines() if line.startswith("   ")]
            if indented:
                document = yaml.safe_load(textwrap.dedent("\n".join(indented)))
                yield name, comment, {"routes": document} if isinstance(document, list) else document


# What is written, and when


def test_the_contract_alone_needs_no_envoy_messages(generated: Path) -> None:
    code = "from messages.gateway.solo.io import Gateway; print(Gateway(bind_port=80).bind_port)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=generated.parent
    )

    assert done.stdout == "80\n"
    assert not (generated / "envoy").exists()
    assert (generated / "google").exists()


def test_generation_is_deterministic(generated: Path, tmp_path: Path) -> None:
    again = tmp_path / "messages"

    generate(contract_only=True, target=again)

    assert texts_of(again) == texts_of(generated)


def test_generation_replaces_what_stood_there(tmp_path: Path) -> None:
    target = tmp_path / "messages"
    target.mkdir()
    (target / "stale.py").touch()

    generate(contract_only=True, target=target)

    assert not (target / "stale.py").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["messages"]


def texts_of(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*.py"))}


def test_what_was_generated_is_current_until_a_source_changes(tmp_path: Path) -> None:
    assert not is_current(tmp_path)

    made = tmp_path / "schema.py"
    made.touch()
    assert is_current(tmp_path)

    edited = max(path.stat().st_mtime for path in (ROOT / "protos").rglob("*.proto"))
    os.utime(made, (edited - 1, edited - 1))
    assert not is_current(tmp_path)


def test_envoys_messages_are_made_without_looking_for_deprecated_fields() -> None:
    deprecated = [
        each.name for file in envoy_descriptors() for each in declarations(file) if each.options.deprecated
    ]

    assert deprecated == []


def declarations(within: Any) -> Iterator[Any]:
    yield within
    for inside in ("message_type", "nested_type", "enum_type", "field", "value"):
        for each in getattr(within, inside, ()):
            yield from declarations(each)
