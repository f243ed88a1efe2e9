"""Google's well-known types as plain values: Struct, Value, Any and Duration."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import betterproto2

from protos._generated.google.protobuf import Any as AnyMessage
from protos._generated.google.protobuf import ListValue, NullValue, Struct, Value
from shared.codec.encode import encode, length_delimited

# Envoy turns a TypedStruct into the message its type URL names; so an Any travels through us as the
# user wrote it, and only Envoy needs to know the type.
TYPED_STRUCT = "type.googleapis.com/xds.type.v3.TypedStruct"
TYPED_STRUCTS = (TYPED_STRUCT, "type.googleapis.com/udpa.type.v1.TypedStruct")


def struct_of(document: Mapping[str, Any]) -> Struct:
    return Struct(fields={str(key): value_of(item) for key, item in document.items()})


def value_of(item: object) -> Value:
    match item:
        case str():
            return _value("string_value", item)
        case bool():
            return _value("bool_value", item)
        case int() | float():
            return _value("number_value", float(item))
        case dict():
            return _value("struct_value", struct_of(item))
        case list():
            return _value("list_value", ListValue(values=[value_of(member) for member in item]))
        case None:
            return _value("null_value", NullValue.NULL_VALUE)
    raise TypeError(f"{type(item).__name__} has no place in a Struct")


_ABSENT = vars(Value())


def _value(kind: str, item: Any) -> Value:
    """A Value made without its slow ``__init__``: every route of a Proxy carries several."""
    value = Value.__new__(Value)
    value.__dict__ = _ABSENT | {kind: item}
    return value


def dict_of(struct: Struct) -> dict[str, Any]:
    fields = struct.fields
    return {key: plain_of(fields[key]) for key in sorted(fields)}


def plain_of(value: Value) -> Any:
    if value.string_value is not None:
        return value.string_value
    if value.number_value is not None:
        return plain_number(value.number_value)
    if value.struct_value is not None:
        return dict_of(value.struct_value)
    if value.list_value is not None:
        return [plain_of(member) for member in value.list_value.values]
    return value.bool_value


def plain_number(number: float) -> float | int | str:
    """A float as documents show it: whole ones without a fraction, the special ones by name."""
    if number != number:
        return "NaN"
    if number in (float("inf"), float("-inf")):
        return "Infinity" if number > 0 else "-Infinity"
    return int(number) if number == int(number) and abs(number) < 1e15 else number


def any_of(document: Mapping[str, Any]) -> AnyMessage:
    """``{"@type": url, …}`` as an Any that Envoy can unpack, whether or not we know the type."""
    url = str(document["@type"])
    body: Any = {key: item for key, item in document.items() if key != "@type"}
    outer = TYPED_STRUCT
    if url in TYPED_STRUCTS:
        outer, url, body = url, str(body.get("typeUrl", body.get("type_url", ""))), body.get("value") or {}
    value = length_delimited(1, url.encode()) + length_delimited(2, encode(struct_of(body)))
    return AnyMessage(type_url=outer, value=value)


def unpack_typed_struct(body: bytes) -> tuple[str, Struct]:
    """The type URL and the content of an encoded TypedStruct."""
    fields = {field.number: field.value for field in betterproto2.parse_fields(body)}
    return fields.get(1, b"").decode(), Struct.parse(fields.get(2, b""))


def duration_text(duration: timedelta) -> str:
    """``15s``, ``0.250s``: seconds with no, three or six digits of fraction."""
    micros = duration // timedelta(microseconds=1)
    sign, (seconds, fraction) = "-" if micros < 0 else "", divmod(abs(micros), 1_000_000)
    if not fraction:
        return f"{sign}{seconds}s"
    if fraction % 1000 == 0:
        return f"{sign}{seconds}.{fraction // 1000:03d}s"
    return f"{sign}{seconds}.{fraction:06d}s"
