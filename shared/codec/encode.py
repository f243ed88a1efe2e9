"""Messages to bytes: an encoder compiled for each class; deterministic, and strict where betterproto2 is not.

Fields go in the order of their numbers and maps in the order of their keys, so equal messages are equal
bytes; google's protobuf in its deterministic mode gives the same, which the tests hold against every
message we emit. A value that does not fit its field (out of range, of a wrong type, a second member of a
oneof, a misspelt attribute) raises ``InvalidResource`` with its path instead of reaching Envoy changed.

The compiled code only fails; a slow walk over the same message then finds where and says why.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

import betterproto2 as b

from protos._generated.google import protobuf
from protos._generated.message_pool import default_message_pool
from shared.codec.schema import Field, MessageClass, fields_of
from shared.errors import InvalidResource

Encoder = Callable[[Any], bytes]


def encode(message: b.Message) -> bytes:
    """The wire form of *message*: the same bytes for equal messages, in every process."""
    try:
        return encoder(type(message))(message)
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError, struct.error):
        for problem in _problems(message, ""):
            raise problem from None
        raise


def pack(message: b.Message) -> protobuf.Any:
    """*message* in an Any."""
    return protobuf.Any(type_url=default_message_pool.type_to_url[type(message)], value=encode(message))


def length_delimited(number: int, body: bytes) -> bytes:
    """A field of bytes, text or an embedded message, ready encoded."""
    return varint(number << 3 | 2) + varint(len(body)) + body


def varint(number: int) -> bytes:
    if number < 0:
        number += 1 << 64
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


_VARINTS = tuple(varint(number) for number in range(1 << 14))


def _length(number: int) -> bytes:
    return _VARINTS[number] if number < 1 << 14 else varint(number)


# Numbers

_RANGES = {
    b.TYPE_INT32: (-(2**31), 2**31 - 1),
    b.TYPE_SINT32: (-(2**31), 2**31 - 1),
    b.TYPE_SFIXED32: (-(2**31), 2**31 - 1),
    b.TYPE_ENUM: (-(2**31), 2**31 - 1),
    b.TYPE_UINT32: (0, 2**32 - 1),
    b.TYPE_FIXED32: (0, 2**32 - 1),
    b.TYPE_INT64: (-(2**63), 2**63 - 1),
    b.TYPE_SINT64: (-(2**63), 2**63 - 1),
    b.TYPE_SFIXED64: (-(2**63), 2**63 - 1),
    b.TYPE_UINT64: (0, 2**64 - 1),
    b.TYPE_FIXED64: (0, 2**64 - 1),
}
_PACKERS = {
    b.TYPE_DOUBLE: struct.Struct("<d").pack,
    b.TYPE_FLOAT: struct.Struct("<f").pack,
    b.TYPE_FIXED32: struct.Struct("<I").pack,
    b.TYPE_FIXED64: struct.Struct("<Q").pack,
    b.TYPE_SFIXED32: struct.Struct("<i").pack,
    b.TYPE_SFIXED64: struct.Struct("<q").pack,
}
_WIRE_TYPES = {
    b.TYPE_DOUBLE: 1,
    b.TYPE_FIXED64: 1,
    b.TYPE_SFIXED64: 1,
    b.TYPE_FLOAT: 5,
    b.TYPE_FIXED32: 5,
    b.TYPE_SFIXED32: 5,
    b.TYPE_STRING: 2,
    b.TYPE_BYTES: 2,
    b.TYPE_MESSAGE: 2,
    b.TYPE_MAP: 2,
}


def _integer(low: int, high: int, *, zigzag: bool = False) -> Encoder:
    def write(number: Any) -> bytes:
        if not isinstance(number, int) or not low <= number <= high:
            raise ValueError
        if zigzag:
            number = number << 1 if number >= 0 else ~(number << 1)
        return _VARINTS[number] if 0 <= number < 1 << 14 else varint(number)

    return write


def _bool(value: Any) -> bytes:
    if value is True:
        return b"\x01"
    if value is False:
        return b"\x00"
    raise TypeError


def _text(value: Any) -> bytes:
    return str.encode(value)


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError
    return bytes(value)


_SCALARS: dict[str, Encoder] = {
    **{kind: _integer(*limits, zigzag=kind.startswith("sint")) for kind, limits in _RANGES.items()},
    **_PACKERS,
    b.TYPE_BOOL: _bool,
    b.TYPE_STRING: _text,
    b.TYPE_BYTES: _bytes,
}


# Plain values that stand for a google message

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _moment(seconds: int, nanos: int) -> bytes:
    return (b"\x08" + varint(seconds) if seconds else b"") + (b"\x10" + varint(nanos) if nanos else b"")


def _duration(value: Any) -> bytes:
    micros = value // _MICROSECOND
    seconds, rest = divmod(abs(micros), 1_000_000)
    sign = -1 if micros < 0 else 1  # seconds and nanos carry the same sign
    return _moment(sign * seconds, sign * rest * 1000)


def _timestamp(value: Any) -> bytes:
    seconds, rest = divmod((value - _EPOCH) // _MICROSECOND, 1_000_000)
    return _moment(seconds, rest * 1000)


def _wrapped(wrapper: Any) -> Encoder:
    if wrapper is protobuf.Duration:
        return _duration
    if wrapper is protobuf.Timestamp:
        return _timestamp
    (field,) = fields_of(wrapper)
    write, tag = _SCALARS[field.type], varint(field.number << 3 | _WIRE_TYPES.get(field.type, 0))
    delimited, zero = field.type in (b.TYPE_STRING, b.TYPE_BYTES), write(field.default())

    def write_wrapped(value: Any) -> bytes:
        body = write(value)
        if body == zero:
            return b""
        return tag + _length(len(body)) + body if delimited else tag + body

    return write_wrapped


# Compiling

_encoders: dict[type, Encoder] = {}


def encoder(message_class: MessageClass) -> Encoder:
    """The encoder of one class, compiled when first asked for."""
    found = _encoders.get(message_class)
    if found is None:
        found = _encoders[message_class] = _compile(message_class)
    return found


def _of_class(message_class: MessageClass) -> Encoder:
    """The encoder of an embedded message, compiled when the first one is met: types may be recursive."""

    def write(message: Any) -> bytes:
        if message.__class__ is not message_class:
            raise TypeError
        return (_encoders.get(message_class) or encoder(message_class))(message)

    return write


def _compile(message_class: MessageClass) -> Encoder:
    fields = fields_of(message_class)
    names: dict[str, Any] = {"V": _VARINTS, "length": _length, "join": b"".join}
    lines = [
        "def write(message):",
        " d = message.__dict__",
        f" if len(d) != {len(fields) + 1}: raise KeyError",
    ]
    if fields:
        names["get"] = itemgetter(*(field.name for field in fields), "_unknown_fields")
        lines += [f" {', '.join(f'v{field.number}' for field in fields)}, unknown = get(d)", " out = []"]
    else:
        lines += [" out = []", " unknown = d['_unknown_fields']"]
    groups = _groups(fields)
    lines += [f" {group} = 0" for group in groups.values()]
    for field in fields:
        lines += _field_code(field, names, groups.get(field.group or ""))
    lines += [f" if {group} > 1: raise ValueError" for group in groups.values()]
    lines += [" if unknown: out.append(unknown)", " return join(out)"]
    exec("\n".join(lines), names)
    write: Encoder = names["write"]
    return write


def _groups(fields: tuple[Field, ...]) -> dict[str, str]:
    """The oneofs with more than one member, each with the name of its counter in compiled code."""
    members: dict[str, int] = {}
    for field in fields:
        if field.group:
            members[field.group] = members.get(field.group, 0) + 1
    return {group: f"g_{group}" for group, count in members.items() if count > 1}


def _field_code(field: Field, names: dict[str, Any], counter: str | None) -> Iterator[str]:
    v = f"v{field.number}"
    if field.entry:
        tag = _tag(field.number, 2, names)
        key, value = field.entry
        yield f" if {v}:"
        yield f"  for k in sorted({v}):"
        yield "   outer, out = out, []"
        yield f"   {_one(key, 'k', names, prefix=v)}"
        yield f"   {_one(value, f'{v}[k]', names, prefix=v)}"
        yield "   e = join(out); out = outer"
        yield f"   out += {tag}, length(len(e)), e"
    elif field.repeated and field.type in b.PACKED_TYPES:
        names[f"w{field.number}"] = _SCALARS[field.type]
        yield f" if {v}:"
        yield f"  e = join([w{field.number}(x) for x in {v}])"
        yield f"  out += {_tag(field.number, 2, names)}, length(len(e)), e"
    elif field.repeated:
        yield f" if {v}:"
        yield f"  for x in {v}: {_one(field, 'x', names)}"
    elif field.has_presence:
        yield f" if {v} is not None:"
        if counter:
            yield f"  {counter} += 1"
        yield f"  {_one(field, v, names)}"
    elif field.type in (b.TYPE_FLOAT, b.TYPE_DOUBLE):
        zero = bytes(8 if field.type == b.TYPE_DOUBLE else 4)
        names[f"w{field.number}"] = _SCALARS[field.type]
        yield f" e = w{field.number}({v})"
        yield f" if e != {zero!r}: out += {_tag(field.number, _WIRE_TYPES[field.type], names)}, e"
    else:
        yield f" if {v}: {_one(field, v, names)}"


def _one(field: Field, value: str, names: dict[str, Any], prefix: str = "") -> str:
    """The statement that writes one value with its tag."""
    tag = _tag(field.number, _WIRE_TYPES.get(field.type, 0), names, prefix)
    write = f"w{prefix}_{field.number}"
    if field.wrapper:
        names[write] = _wrapped(field.wrapper)
    elif field.type == b.TYPE_MESSAGE:
        assert field.target
        names[write] = _of_class(field.target)
    else:
        names[write] = _SCALARS[field.type]
    if field.type == b.TYPE_BOOL:
        return f"out += {tag}, {write}({value})"
    if field.type == b.TYPE_STRING:
        return f"e = {value}.encode(); out += {tag}, length(len(e)), e"
    if _WIRE_TYPES.get(field.type) == 2:
        return f"e = {write}({value}); out += {tag}, length(len(e)), e"
    return f"out += {tag}, {write}({value})"


def _tag(number: int, wire_type: int, names: dict[str, Any], prefix: str = "") -> str:
    name = f"t{prefix}_{number}"
    names[name] = varint(number << 3 | wire_type)
    return name


# Saying what is wrong


def _problems(message: Any, path: str) -> Iterator[InvalidResource]:
    message_class: MessageClass = type(message)
    fields = fields_of(message_class)
    at = f"{path}." if path else ""
    for name in vars(message).keys() - {field.name for field in fields} - {"_unknown_fields"}:
        yield InvalidResource(f"{at}{name}", f"{type(message).__name__} has no such field")
    for group in _groups(fields):
        members = [f.name for f in fields if f.group == group and getattr(message, f.name) is not None]
        if len(members) > 1:
            yield InvalidResource(path, f"{' and '.join(members)} exclude each other")
    for field in fields:
        value, where = getattr(message, field.name), f"{at}{field.name}"
        if value is None:
            continue
        if field.entry:
            for key in value:
                yield from _problem(field.entry[0], key, f"{where} key {key!r}")
                yield from _problem(field.entry[1], value[key], f"{where}[{key!r}]")
        elif field.repeated:
            for index, item in enumerate(value):
                yield from _problem(field, item, f"{where}[{index}]")
        else:
            yield from _problem(field, value, where)


def _problem(field: Field, value: Any, where: str) -> Iterator[InvalidResource]:
    if field.wrapper:
        try:
            _wrapped(field.wrapper)(value)
        except (TypeError, ValueError, AttributeError, OverflowError, struct.error):
            yield InvalidResource(where, f"{value!r} does not fit a {field.wrapper.__name__}")
    elif field.type == b.TYPE_MESSAGE:
        assert field.target
        if type(value) is not field.target:
            yield InvalidResource(where, f"expected {field.target.__name__}, got {type(value).__name__}")
        else:
            yield from _problems(value, where)
    else:
        try:
            _SCALARS[field.type](value)
        except (TypeError, ValueError, AttributeError, OverflowError, struct.error):
            yield InvalidResource(where, f"{value!r} does not fit {field.type}")
