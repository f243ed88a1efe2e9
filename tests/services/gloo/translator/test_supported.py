"""No field is passed over: each one is refused by name when set, or a golden case shows what it does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from protos import gloo
from protos._generated.schema import ENUMS, MESSAGES
from services.gloo.translator.supported import (
    APART,
    ENTERPRISE,
    ENTERPRISE_ONLY,
    FIELDS_READ,
    PACKAGE,
    REFUSED,
    UNCHECKED,
    WITHOUT_EFFECT,
    is_read,
    refuse_unread,
    verdict,
)
from shared.codec.decode import decode
from shared.report import Report
from tests.support.fields import NOT_FOR_ENVOY, shown_by_golden_cases

ROOTS: dict[str, Any] = {"Proxy": gloo.Proxy, "Listener": gloo.Listener, "VirtualHost": gloo.VirtualHost}
ROOTS |= {
    "SslConfig": gloo.SslConfig,
    "TcpHost": gloo.TcpHost,
    "Route": gloo.Route,
    "Upstream": gloo.Upstream,
    "UpstreamGroup": gloo.UpstreamGroup,
}
INDEX = {"one": "", "list": "[0]", "map": "[k]"}
ANY = {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "3s"}
SAMPLES: dict[str, Any] = {"string": "a", "bytes": "YQ==", "bool": True, "float": 1.5, "double": 1.5}
SAMPLES |= {"duration": "3s", "struct": {"a": 1}, "any": ANY, "empty": {}, "value": 1}
# Not for Envoy, though they are among what is.
BESIDE = {
    ("SourceMetadata.SourceRef", "observedGeneration"),
    *((kind, field) for kind in ("Upstream", "UpstreamGroup") for field in ("status", "namespacedStatuses")),
    *(("Proxy", field) for field in ("status", "namespacedStatuses", "metadata")),
    *(("HttpListener", field) for field in ("metadata", "metadataStatic")),
    ("Upstream", "discoveryMetadata"),
    *(("AwsEc2UpstreamSpec", "publicIp"), ("TagFilter.KvPair", "value")),  # EC2 is asked for them
    ("GrpcServiceSpec", "grpcServices"),
    ("ExtAuthSettings", "transportApiVersion"),  # there is one only
}

Step = tuple[str, str, str]  # JSON name, shape, message


def fields_of(message: str) -> dict[str, tuple[str, ...]]:
    fields: dict[str, tuple[str, ...]] = MESSAGES[PACKAGE + message]
    return fields


def reachable() -> Iterator[tuple[str, tuple[Step, ...], str]]:
    """A root, the way from it, and the message found there: once for every message that is read."""
    seen = set()
    waiting: list[tuple[str, tuple[Step, ...], str]] = [(root, (), root) for root in ROOTS]
    while waiting:
        root, way, message = waiting.pop(0)
        if message in seen or message in UNCHECKED:
            continue
        seen.add(message)
        yield root, way, message
        for name, (_, kind, type_name, _, shape) in fields_of(message).items():
            child = type_name.removeprefix(PACKAGE)
            if kind == "message" and is_read(message, name) and (message, name) not in APART:
                waiting.append((root, (*way, (name, shape, child)), child))


def unread_fields() -> Iterator[Any]:
    for root, way, message in reachable():
        for name in fields_of(message):
            if not is_read(message, name):
                yield pytest.param(root, way, message, name, id=f"{message}.{name}")


def sample(kind: str, type_name: str, shape: str) -> Any:
    if kind == "message":
        one: Any = {}
    elif kind == "enum":
        one = max(ENUMS[type_name].values())
    elif kind in ("scalar", "wrapper"):
        one = SAMPLES.get(type_name, 7)
    else:
        one = SAMPLES[kind]
    return {"one": one, "list": [one], "map": {"k": one}}[shape]


@pytest.mark.parametrize(("root", "way", "message", "field"), list(unread_fields()))
def test_a_field_that_is_not_read_is_refused_by_name(
    root: str, way: tuple[Step, ...], message: str, field: str
) -> None:
    _, kind, type_name, _, shape = fields_of(message)[field]
    document: Any = {field: sample(kind, type_name, shape)}
    path = field
    for name, each, _ in reversed(way):
        document = {name: {"one": document, "list": [document], "map": {"k": document}}[each]}
        path = f"{name}{INDEX[each]}.{path}"
    decoded = decode(ROOTS[root], document, read := Report())
    assert decoded is not None, read

    refuse_unread(decoded, report := Report())

    text, refuses = verdict(message, field)
    found = report.errors if refuses else report.warnings
    assert [(problem.path, problem.text) for problem in found] == [(path, text)]


def test_every_table_speaks_of_fields_there_are() -> None:
    for message, read in FIELDS_READ.items():
        assert set(read) <= {*fields_of(message), "*"}, message
    for message, fields in ENTERPRISE_ONLY.items():
        assert fields <= fields_of(message).keys(), message
        assert not any(is_read(message, field) for field in fields if message in FIELDS_READ)
    for message, field in (*WITHOUT_EFFECT, *REFUSED):
        assert field in fields_of(message)
        assert not is_read(message, field)


def test_enterprise_fields_are_called_so() -> None:
    assert verdict("RouteOptions", "waf") == (ENTERPRISE, True)
    assert verdict("RouteOptions", "extensions") == (REFUSED["RouteOptions", "extensions"], True)


def test_a_message_without_unread_fields_costs_nothing() -> None:
    refuse_unread(gloo.Route(), report := Report())

    assert report.clean


def test_every_field_that_is_read_makes_a_difference_in_a_golden_case() -> None:
    shown = shown_by_golden_cases()

    expected = {
        (message, field)
        for _, _, message in reachable()
        for field in fields_of(message)
        if is_read(message, field) and PACKAGE + message not in NOT_FOR_ENVOY
    }
    assert sorted(each for each in expected - BESIDE if (PACKAGE + each[0], each[1]) not in shown) == []
