"""Google's well-known types as plain values."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import struct_pb2

from protos import gloo
from shared.codec.decode import decode
from shared.codec.documents import to_document
from shared.codec.encode import encode
from shared.codec.wellknown import any_of, dict_of, struct_of, unpack_typed_struct
from shared.report import Report

PLAIN = {
    "text": "a",
    "number": 1.5,
    "whole": 3,
    "yes": True,
    "no": False,
    "nothing": None,
    "list": [1, [], {}],
    "map": {"k": {}},
}


def test_a_struct_gives_back_what_it_was_made_of() -> None:
    struct = struct_of(PLAIN)

    assert dict_of(struct) == PLAIN
    assert list(dict_of(struct)) == sorted(PLAIN)


def test_google_reads_our_structs() -> None:
    theirs = struct_pb2.Struct()
    theirs.update(PLAIN)

    assert struct_pb2.Struct.FromString(encode(struct_of(PLAIN))) == theirs


def test_what_json_cannot_say_has_no_place_in_a_struct() -> None:
    with pytest.raises(TypeError, match="set has no place in a Struct"):
        struct_of({"a": {1}})


@pytest.mark.parametrize("package", ["xds.type.v3", "udpa.type.v1"])
@pytest.mark.parametrize("spelling", ["typeUrl", "type_url"])
def test_a_typed_struct_of_the_users_own_is_kept(package: str, spelling: str) -> None:
    packed = any_of(
        {"@type": f"type.googleapis.com/{package}.TypedStruct", spelling: "a/b.C", "value": {"d": 1}}
    )

    url, body = unpack_typed_struct(packed.value)

    assert (url, dict_of(body)) == ("a/b.C", {"d": 1})


def test_an_any_is_read_again_as_it_was_written() -> None:
    document: Any = {
        "config": {"@type": "type.googleapis.com/udpa.type.v1.TypedStruct", "typeUrl": "a/b", "value": {}}
    }

    message = decode(gloo.CustomEnvoyFilter, document, Report())

    assert message is not None
    assert decode(gloo.CustomEnvoyFilter, to_document(message), Report()) == message
