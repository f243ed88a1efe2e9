"""Messages to documents: the canonical JSON form, as Gloo writes it.

camelCase names, defaults left out, a set wrapper kept whatever its value, a set empty message as ``{}``,
64-bit numbers and durations as text, maps in the order of their keys. Compiled for each class, because
whole Proxies go through it on every change.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any

import betterproto2 as b

from protos._generated.google import protobuf
from protos._generated.schema import MESSAGES
from shared.codec import wellknown
from shared.codec.schema import Field, MessageClass, class_of, fields_of, full_name

Write = Callable[[Any], Any]


def to_document(message: b.Message) -> dict[str, Any]:
    """The document that ``decode`` reads as an equal message."""
    document: dict[str, Any] = _writer(type(message))(message)
    return document


def _document_of_any(packed: protobuf.Any) -> dict[str, Any]:
    """An Any with its content shown where the type is known here."""
    message_class = class_of(packed.type_url)
    if packed.type_url in wellknown.TYPED_STRUCTS:
        url, body = wellknown.unpack_typed_struct(packed.value)
        if packed.type_url == wellknown.TYPED_STRUCT:
            return {"@type": url, **wellknown.dict_of(body)}
        return {"@type": packed.type_url, "typeUrl": url, "value": wellknown.dict_of(body)}
    if message_class is None:
        return {"@type": packed.type_url, "value": b64encode(packed.value).decode()}
    content = _writer(message_class)(message_class.parse(packed.value))
    if message_class in _WELL_KNOWN:
        return {"@type": packed.type_url, "value": content}
    return {"@type": packed.type_url, **content}


_WELL_KNOWN: dict[type, Write] = {
    protobuf.Struct: wellknown.dict_of,
    protobuf.Value: wellknown.plain_of,
    protobuf.ListValue: lambda listed: [wellknown.plain_of(value) for value in listed.values],
    protobuf.Any: _document_of_any,
}
_SCALARS: dict[str, Write] = {
    b.TYPE_BYTES: lambda value: b64encode(value).decode(),
    b.TYPE_FLOAT: wellknown.plain_number,
    b.TYPE_DOUBLE: wellknown.plain_number,
    **dict.fromkeys(b.INT_64_TYPES, str),
}
_writers: dict[type, Write] = dict(_WELL_KNOWN)


def _writer(message_class: MessageClass) -> Write:
    found = _writers.get(message_class)
    if found is None:
        found = _writers[message_class] = _compile(message_class)
    return found


def _value_writer(field: Field, names: dict[str, Any], name: str) -> Write | None:
    """How one value of *field* is written, which compiled code knows by *name*; None: as it is."""
    if field.wrapper:
        if field.wrapper is protobuf.Duration:
            return wellknown.duration_text
        if field.wrapper is protobuf.Timestamp:
            return lambda moment: moment.isoformat().replace("+00:00", "Z")
        return _SCALARS.get(fields_of(field.wrapper)[0].type)
    if field.type == b.TYPE_MESSAGE:
        return _WELL_KNOWN.get(field.target) or _compiled_first(field.target, names, name)
    if field.type == b.TYPE_ENUM:
        return _enum_writer(field.target)
    return _SCALARS.get(field.type)


def _compiled_first(message_class: MessageClass, names: dict[str, Any], name: str) -> Write:
    """Types may be recursive, so an embedded message's writer is compiled when the first one is met."""

    def write(message: Any) -> Any:
        names[name] = _writer(message_class)
        return names[name](message)

    return write


def _enum_writer(enum: Any) -> Write:
    names = {int(member): member.proto_name or member.name for member in enum}
    return lambda value: names.get(value, int(value))


def _compile(message_class: MessageClass) -> Write:
    fields = fields_of(message_class)
    if not fields:
        return lambda message: {}
    get = itemgetter(*(field.name for field in fields), "_unknown_fields")
    names: dict[str, Any] = {"get": get}
    variables = ", ".join(f"v{field.number}" for field in fields)
    lines = ["def write(message):", f" {variables}, _ = get(message.__dict__)", " out = {}"]
    spellings = {spec[0]: json_name for json_name, spec in MESSAGES.get(full_name(message_class), {}).items()}
    for field in fields:
        spelling = spellings.get(field.name) or _camel(field.name)
        lines += _field_code(field, spelling, names)
    exec("\n".join([*lines, " return out"]), names)
    write: Write = names["write"]
    return write


def _field_code(field: Field, spelling: str, names: dict[str, Any]) -> Iterator[str]:
    v, w = f"v{field.number}", f"w{field.number}"
    write = _value_writer(field.entry[1] if field.entry else field, names, w)
    names[w] = write
    item = "{}" if write is None else f"{w}({{}})"
    if field.entry:
        key = "str(k)" if field.entry[0].type != b.TYPE_STRING else "k"
        if field.entry[0].type == b.TYPE_BOOL:
            key = "str(k).lower()"
        yield f" if {v}: out[{spelling!r}] = {{{key}: {item.format(f'{v}[k]')} for k in sorted({v})}}"
    elif field.repeated:
        yield f" if {v}: out[{spelling!r}] = [{item.format('x')} for x in {v}]"
    else:
        present = f"{v} is not None" if field.has_presence else v
        yield f" if {present}: out[{spelling!r}] = {item.format(v)}"


def _camel(name: str) -> str:
    return re.sub("_(.)", lambda found: found[1].upper(), name.rstrip("_"))
