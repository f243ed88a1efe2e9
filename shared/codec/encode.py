"""Messages to bytes: an encoder compiled for each class; deterministic, and strict where betterproto2 is not.

Fields go in the order of their numbers and maps in the order of their keys, so equal messages are equal
bytes; google's protobuf in its deterministic mode gives the same, which the tests hold against every
message we emit. A value that does not fit its field (out of range, of a wrong type, a second member of a
oneof, a misspelt attribute) raises ``InvalidResource`` with its path instead of reaching Envoy changed.

The compiled code only fails; a slow walk over the same message then finds where and says why.
"""

from __future__ import annotations

import struct
from collections import Counter
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
_MISTAKES = (TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError, struct.error)


def encode(message: b.Message) -> bytes:
    """The wire form of *message*: the same bytes for equal messages, in every process."""
    try:
        return encoder(type(message))(message)
    except _MISTAKES:
        for problem in _problems(message, ""):
            raise problem from None
        raise


def pack(message: b.Message) -> protobuf.Any:
    """*message* in an Any."""
    return protobuf.Any(type_url=default_message_pool.type_to_url[type(message)], value=encode(message))


def length_delimited(number: int, body: bytes) -> bytes:
    """A field of bytes, text or an embedded message, ready encoded."""
    return varint(number << 3 | 2) + varint(len(body)) + body


def _varint(number: int) -> bytes:
    if number < 0:
        number += 1 << 64
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


_VARINTS = tuple(_varint(number) for number in range(1 << 14))


def varint(number: int) -> bytes:
    return _VARINTS[number] if 0 <= number < 1 << 14 else _varint(number)


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
_SMALL = frozenset((b.TYPE_INT32, b.TYPE_INT64, b.TYPE_UINT32, b.TYPE_UINT64, b.TYPE_ENUM))
_DELIMITED = 2
_WIRE_TYPES = {
    b.TYPE_DOUBLE: 1,
    b.TYPE_FIXED64: 1,
    b.TYPE_SFIXED64: 1,
    b.TYPE_FLOAT: 5,
    b.TYPE_FIXED32: 5,
    b.TYPE_SFIXED32: 5,
    b.TYPE_STRING: _DELIMITED,
    b.TYPE_BYTES: _DELIMITED,
    b.TYPE_MESSAGE: _DELIMITED,
    b.TYPE_MAP: _DELIMITED,
}


def _integer(low: int, high: int, *, zigzag: bool = False) -> Encoder:
    def write(number: Any) -> bytes:
        if not isinstance(number, int) or not low <= number <= high:
            raise ValueError
        if zigzag:
            number = number << 1 if number >= 0 else ~(number << 1)
        return varint(number)

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
    if seconds > 315_576_000_000:
        raise ValueError
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
        return tag + varint(len(body)) + body if delimited else tag + body

    return write_wrapped


# Compiling

_encoders: dict[type, Encoder] = {}


def encoder(message_class: MessageClass) -> Encoder:
    """The encoder of one class, compiled when first asked for."""
    found = _encoders.get(message_class)
    if found is None:
        found = _encoders[message_class] = _compile(message_class)
    return found


def _compile(message_class: MessageClass) -> Encoder:
    fields = fields_of(message_class)
    names: dict[str, Any] = {
        "V": _VARINTS,
        "varint": varint,
        "join": b"".join,
        "message_class": message_class,
    }
    groups = _groups(fields)
    lines = [
        "def write(message):",
        " d = message.__dict__",
        f" if message.__class__ is not message_class or len(d) != {len(fields) + 1}: raise TypeError",
        " out = []",
        " unknown = d['_unknown_fields']",
    ]
    if fields:
        names["get"] = itemgetter(*(field.name for field in fields), "_unknown_fields")
        lines += [f" {', '.join(f'v{field.number}' for field in fields)}, unknown = get(d)"]
    lines += [f" {counter} = 0" for counter in groups.values()]
    for field in fields:
        lines += _field_code(field, names, groups.get(field.group or ""))
    lines += [f" if {counter} > 1: raise ValueError" for counter in groups.values()]
    lines += [" if unknown: out.append(unknown)", " return join(out)"]
    exec("\n".join(lines), names)
    write: Encoder = names["write"]
    return write


def _groups(fields: tuple[Field, ...]) -> dict[str, str]:
    """The oneofs with more than one member, each with the name of its counter in compiled code."""
    members = Counter(field.group for field in fields if field.group)
    return {group: f"set_of_{group}" for group, count in members.items() if count > 1}


def _field_code(field: Field, names: dict[str, Any], counter: str | None) -> Iterator[str]:
    v = f"v{field.number}"
    if field.entry:
        yield f" if {v}:"
        yield f"  for k in sorted({v}):"
        yield "   outer, out = out, []"
        yield f"   {_one(field.entry[0], 'k', names, v)}"
        yield f"   x = {v}[k]; {_one(field.entry[1], 'x', names, v)}"
        yield f"   e = join(out); out = outer; {_delimited(field.number, names)}"
    elif field.repeated and field.type in b.PACKED_TYPES:
        names[f"w{v}"] = _SCALARS[field.type]
        yield f" if {v}:"
        yield f"  if {v}.__class__ is not list: raise TypeError"
        yield f"  e = join([w{v}(x) for x in {v}]); {_delimited(field.number, names)}"
    elif field.repeated:
        yield f" if {v}:"
        yield f"  if {v}.__class__ is not list: raise TypeError"
        yield f"  for x in {v}: {_one(field, 'x', names)}"
    elif field.has_presence:
        yield f" if {v} is not None: {f'{counter} += 1; ' if counter else ''}{_one(field, v, names)}"
    elif field.type in (b.TYPE_FLOAT, b.TYPE_DOUBLE):  # -0.0 is false, and not the default
        yield f" if {v} or str({v}) == '-0.0': {_one(field, v, names)}"
    else:
        yield f" if {v}: {_one(field, v, names)}"


def _one(field: Field, value: str, names: dict[str, Any], owner: str = "") -> str:
    """The statement that writes one value with its tag; *owner* is set in a map's entry."""
    write = f"w{owner}_{field.number}"
    names[write] = _value_encoder(field, names, write)
    if field.type == b.TYPE_STRING:
        return f"e = {value}.encode(); {_delimited(field.number, names, owner)}"
    if _WIRE_TYPES.get(field.type) == _DELIMITED:
        return f"e = {write}({value}); {_delimited(field.number, names, owner)}"
    tag = _tag(field.number, _WIRE_TYPES.get(field.type, 0), names, owner)
    if field.type in _SMALL:
        return f"out += {tag}, V[{value}] if 0 <= {value} < {len(_VARINTS)} else {write}({value})"
    return f"out += {tag}, {write}({value})"


def _delimited(number: int, names: dict[str, Any], owner: str = "") -> str:
    """The statement that writes ``e`` with its length."""
    tag = _tag(number, _DELIMITED, names, owner)
    return f"n = len(e); out += {tag}, V[n] if n < {len(_VARINTS)} else varint(n), e"


def _tag(number: int, wire_type: int, names: dict[str, Any], owner: str = "") -> str:
    name = f"t{owner}_{number}"
    names[name] = varint(number << 3 | wire_type)
    return name


def _value_encoder(field: Field, names: dict[str, Any], name: str) -> Encoder:
    """What encodes one value of *field*, which compiled code knows by *name*."""
    if field.wrapper:
        return _wrapped(field.wrapper)
    if field.type != b.TYPE_MESSAGE:
        return _SCALARS[field.type]

    def compile_first(message: Any) -> bytes:
        """Types may be recursive, so an embedded message's encoder is compiled when the first one is met."""
        names[name] = encoder(field.target)
        return encoder(field.target)(message)

    return compile_first


# Saying what is wrong


def _problems(message: Any, path: str) -> Iterator[InvalidResource]:
    message_class: MessageClass = type(message)
    fields = fields_of(message_class)
    at = f"{path}." if path else ""
    for name in sorted(vars(message).keys() - {field.name for field in fields} - {"_unknown_fields"}):
        yield InvalidResource(f"{at}{name}", f"{message_class.__name__} has no such field")
    for group in _groups(fields):
        members = [
            field.name for field in fields if field.group == group and vars(message)[field.name] is not None
        ]
        if len(members) > 1:
            yield InvalidResource(path, f"{' and '.join(members)} exclude each other")
    for field in fields:
        value, where = vars(message)[field.name], f"{at}{field.name}"
        if value is None:
            continue
        if field.entry and isinstance(value, dict):
            for key, item in value.items():
                yield from _value_problems(field.entry[0], key, f"{where} key {key!r}")
                yield from _value_problems(field.entry[1], item, f"{where}[{key!r}]")
        elif field.repeated and isinstance(value, list):
            for index, item in enumerate(value):
                yield from _value_problems(field, item, f"{where}[{index}]")
        elif field.entry or field.repeated:
            yield InvalidResource(where, f"expected a {'dict' if field.entry else 'list'}, got {value!r}")
        else:
            yield from _value_problems(field, value, where)


def _value_problems(field: Field, value: Any, where: str) -> Iterator[InvalidResource]:
    if field.type == b.TYPE_MESSAGE and not field.wrapper:
        if type(value) is field.target:
            yield from _problems(value, where)
        else:
            yield InvalidResource(where, f"expected {field.target.__name__}, got {type(value).__name__}")
        return
    try:
        (_wrapped(field.wrapper) if field.wrapper else _SCALARS[field.type])(value)
    except _MISTAKES:
        wanted = field.wrapper.__name__ if field.wrapper else field.type
        yield InvalidResource(where, f"{value!r} does not fit {wanted}")
