"""Documents to messages: strict, driven by the contract's schema, every mistake at its path.

One set of readers serves both ``decode``, which builds messages, and ``check``, which only looks and
loads no message class, so that a command line can afford it. A reader is made for each message type when
the type is first met. Reading goes on after a mistake: the author sees all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from protos._generated.schema import MESSAGES
from shared.codec.names import INLINED, SINGLE, old_names
from shared.codec.values import (
    SCALARS,
    WELL_KNOWN,
    Convert,
    Findings,
    Path,
    Unknown,
    enum_of,
    list_of,
    map_of,
)
from shared.report import Report

if TYPE_CHECKING:
    import betterproto2

    M = TypeVar("M", bound=betterproto2.Message)


def decode(
    message_class: type[M], document: object, report: Report, path: str = "", *, unknown: Unknown = "error"
) -> M | None:
    """The message that *document* describes; None when *report* got an error of it.

    *path* is where the document stands in a larger one. With ``unknown="warn"`` an unknown field is a
    warning and is left out.
    """
    from shared.codec.schema import full_name

    before = len(report.errors)
    read = _reader(full_name(message_class), message_class)
    message: M | None = read(document, None, Findings(report, path, unknown))
    return message if len(report.errors) == before else None


def check(
    full_name: str, document: object, report: Report, path: str = "", *, unknown: Unknown = "error"
) -> bool:
    """Whether *document* is a valid *full_name* (``gloo.solo.io.Upstream``), by the rules of ``decode``."""
    before = len(report.errors)
    _reader(full_name, None)(document, None, Findings(report, path, unknown))
    return len(report.errors) == before


# Messages


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    attribute: str
    convert: Convert
    oneof: str = ""
    renamed: str = ""  # the new name, when this one is of a release before 1.0
    inlined: bool = False  # its fields now stand beside it


class _Reader:
    """Reads one type of message; *message_class* None only checks."""

    __slots__ = ("_blank", "_fields", "message_class", "name")

    def __init__(self, name: str, message_class: Any) -> None:
        self.name = name
        self.message_class = message_class
        self._fields: dict[str, _Field] = {}
        self._blank: tuple[dict[str, Any], tuple[tuple[str, Callable[[], Any]], ...]] | None = None

    def __call__(self, document: Any, path: Path, found: Findings) -> Any:
        if not isinstance(document, dict):
            if self.message_class and type(document) is self.message_class:
                return document  # decoded before, and put in the place of its document
            return found.expected(path, "a mapping", document)
        if not self._fields:
            self._fields = dict(_fields(self.name, self.message_class))
        values: dict[str, Any] = {}
        self._read(
            _MOVED[self.name](document, path, found) if self.name in _MOVED else document,
            values,
            {},
            path,
            found,
        )
        return self._build(values) if self.message_class else None

    def _read(
        self,
        document: Mapping[str, Any],
        values: dict[str, Any],
        oneofs: dict[str, str],
        path: Path,
        found: Findings,
    ) -> None:
        fields = self._fields
        for key, item in document.items():
            field = fields.get(key)
            if field is None:
                found.stranger((path, key), _unknown(key, fields))
                continue
            if item is None:
                continue
            at = (path, key)
            if field.renamed:
                found.warn(at, field.renamed)
            if field.inlined:
                if isinstance(item, dict):
                    self._read(item, values, oneofs, at, found)
                else:
                    found.expected(at, "a mapping", item)
                continue
            attribute = field.attribute
            if attribute in values:
                found.error(at, "set twice, under two spellings of its name")
            elif field.oneof and oneofs.setdefault(field.oneof, key) != key:
                found.error(path, f"{oneofs[field.oneof]} and {key} exclude each other")
            values[attribute] = field.convert(item, at, found)

    def _build(self, values: dict[str, Any]) -> Any:
        """The message, made without its ``__init__``, which would visit every field there is."""
        assert self.message_class
        if self._blank is None:
            from shared.codec.schema import fields_of

            defaults = {field.name: field.default for field in fields_of(self.message_class)}
            shared = {name: default() for name, default in defaults.items()} | {"_unknown_fields": b""}
            self._blank = shared, tuple(item for item in defaults.items() if item[1] in (list, dict))
        shared, own = self._blank
        for name, default in own:
            if name not in values:
                values[name] = default()
        message = self.message_class.__new__(self.message_class)
        message.__dict__ = shared | values
        return message


@cache
def _reader(name: str, message_class: Any) -> _Reader:
    return _Reader(name, message_class)


def _fields(name: str, message_class: Any) -> Iterator[tuple[str, _Field]]:
    """Every accepted spelling of every field of the message *name*."""
    targets: Mapping[str, Any] = {}
    if message_class:
        from shared.codec.schema import fields_of

        targets = {field.name: field for field in fields_of(message_class)}
    for json_name, (attribute, kind, type_name, oneof, shape) in MESSAGES[name].items():
        target = targets[attribute] if targets else None
        single = _converter(kind, type_name, target and (target.entry[1] if target.entry else target).target)
        convert = {"one": single, "list": list_of(single), "map": map_of(single)}[shape]
        field = _Field(attribute=attribute, convert=convert, oneof=oneof)
        yield attribute, field
        yield json_name, field
        for old in old_names(json_name, type_name):
            text = f"is the old name of {json_name}; please rename it"
            wrap = _one_as_list(convert) if old == SINGLE else convert
            yield old, _Field(attribute=attribute, convert=wrap, oneof=oneof, renamed=text)
    for old in INLINED.get(name, ()):
        text = "is of releases before 1.0; please move its fields one level up"
        yield old, _Field(attribute="", convert=SCALARS["string"], renamed=text, inlined=True)


def _one_as_list(convert: Convert) -> Convert:
    return lambda value, path, found: convert(value if isinstance(value, list) else [value], path, found)


def _moved_bind_address(document: Mapping[str, Any], path: Path, found: Findings) -> Mapping[str, Any]:
    if (address := document.get("bindAddr")) is None:
        return document
    rest = {key: item for key, item in document.items() if key != "bindAddr"}
    gloo = rest.get("gloo") or {}
    if isinstance(gloo, dict) and gloo.get("xdsBindAddr", gloo.get("xds_bind_addr")) is not None:
        found.warn((path, "bindAddr"), "is the old name of gloo.xdsBindAddr, which is set too and wins")
        return rest
    found.warn((path, "bindAddr"), "is the old name of gloo.xdsBindAddr; please move it there")
    return {**rest, "gloo": {**gloo, "xdsBindAddr": address}} if isinstance(gloo, dict) else rest


_MOVED = {"gloo.solo.io.Settings": _moved_bind_address}


def _unknown(key: object, fields: Mapping[str, _Field]) -> str:
    from difflib import get_close_matches

    names = [name for name, field in fields.items() if "_" not in name and not field.renamed]
    folded = {name.lower(): name for name in names}
    close = get_close_matches(str(key).replace("_", "").lower(), folded, n=1, cutoff=0.6)
    return f"unknown field, did you mean {folded[close[0]]}?" if close else "unknown field"


def _converter(kind: str, type_name: str, target: Any) -> Convert:
    match kind:
        case "message":
            return _reader(type_name, target)
        case "enum":
            return enum_of(type_name, target)
        case "scalar" | "wrapper":
            return SCALARS[type_name]
    return WELL_KNOWN[kind](target)
