"""Documents to messages: strict, driven by the contract's schema, every mistake at its path.

One set of readers serves both ``decode``, which builds messages, and ``check``, which only looks and
loads no message class, so that a command line can afford it. A reader is made for each message type when
the type is first met. Reading goes on after a mistake: the author sees all of them at once.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from protos._generated.schema import ENUMS, MESSAGES
from shared.report import Report, join

if TYPE_CHECKING:
    import betterproto2

    M = TypeVar("M", bound=betterproto2.Message)

Unknown = Literal["error", "warn"]
Path = (
    tuple[Any, str | int] | None
)  # the path before, and the last step: built for every value, so kept cheap
Convert = Callable[[Any, Path, "_Findings"], Any]


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
    message: M | None = read(document, None, _Findings(report, path, unknown))
    return message if len(report.errors) == before else None


def check(
    full_name: str, document: object, report: Report, path: str = "", *, unknown: Unknown = "error"
) -> bool:
    """Whether *document* is a valid *full_name* (``gloo.solo.io.Upstream``), by the rules of ``decode``."""
    before = len(report.errors)
    _reader(full_name, None)(document, None, _Findings(report, path, unknown))
    return len(report.errors) == before


@dataclass(frozen=True, slots=True)
class _Findings:
    """Where a reading puts its findings."""

    report: Report
    prefix: str
    unknown: Unknown

    def error(self, path: Path, text: str) -> None:
        self.report.error(self._at(path), text)

    def warn(self, path: Path, text: str) -> None:
        self.report.warn(self._at(path), text)

    def expected(self, path: Path, what: str, value: object) -> None:
        self.error(path, f"expected {what}, got {_described(value)}")

    def stranger(self, path: Path, text: str) -> None:
        (self.error if self.unknown == "error" else self.warn)(path, text)

    def _at(self, path: Path) -> str:
        steps: list[str | int] = []
        while path:
            path, step = path
            steps.append(step)
        text = ""
        for step in reversed(steps):
            plain = isinstance(step, str) and _PLAIN_STEP.fullmatch(step)
            text = join(text, str(step) if plain else f"[{step!r}]")
        return join(self.prefix, text)


_PLAIN_STEP = re.compile(r"[\w@*/-]+")


def _described(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {_shortened(str(value))}"
        case str():
            return f"text {_shortened(value)!r}"
        case dict():
            return "a mapping"
        case list():
            return "a list"
    return type(value).__name__


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."


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

    def __call__(self, document: Any, path: Path, found: _Findings) -> Any:
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
        found: _Findings,
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
        convert = {"one": single, "list": _list_of(single), "map": _map_of(single)}[shape]
        field = _Field(attribute=attribute, convert=convert, oneof=oneof)
        yield attribute, field
        yield json_name, field
        for old in _old_names(json_name, type_name):
            text = f"is the old name of {json_name}; please rename it"
            wrap = _one_as_list(convert) if old == "matcher" else convert
            yield old, _Field(attribute=attribute, convert=wrap, oneof=oneof, renamed=text)
    if name == "gloo.solo.io.Upstream":
        text = "is of releases before 1.0; please move its fields one level up"
        yield "upstreamSpec", _Field(attribute="", convert=_text, renamed=text, inlined=True)


def _old_names(json_name: str, type_name: str) -> tuple[str, ...]:
    """What releases before 1.0 called a field."""
    if json_name == "options" and type_name.startswith("gloo.solo.io."):
        scope = type_name.removeprefix("gloo.solo.io.").removesuffix("Options")
        return "plugins", f"{scope[:1].lower()}{scope[1:]}Plugins"
    if json_name == "matchers" and type_name == "gloo.solo.io.Matcher":
        return ("matcher",)
    return ()


def _one_as_list(convert: Convert) -> Convert:
    return lambda value, path, found: convert(value if isinstance(value, list) else [value], path, found)


def _moved_bind_address(document: Mapping[str, Any], path: Path, found: _Findings) -> Mapping[str, Any]:
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


# Shapes


def _list_of(convert: Convert) -> Convert:
    def read(value: Any, path: Path, found: _Findings) -> Any:
        if not isinstance(value, list):
            return found.expected(path, "a list", value)
        return [convert(item, (path, index), found) for index, item in enumerate(value)]

    return read


def _map_of(convert: Convert) -> Convert:
    def read(value: Any, path: Path, found: _Findings) -> Any:
        if not isinstance(value, dict):
            return found.expected(path, "a mapping", value)
        return {_key(key): convert(item, (path, _key(key)), found) for key, item in value.items()}

    return read


def _key(key: object) -> str:
    return key if isinstance(key, str) else str(key).lower() if isinstance(key, bool) else str(key)


# Values


def _converter(kind: str, type_name: str, target: Any) -> Convert:
    match kind:
        case "message":
            return _reader(type_name, target)
        case "enum":
            return _enum(type_name, target)
        case "scalar" | "wrapper":
            return _SCALARS[type_name]
    return {"duration": _duration, "struct": _struct, "any": _any, "empty": _empty, "value": _value}[kind](
        target
    )


def _text(value: Any, path: Path, found: _Findings) -> Any:
    if type(value) is str:
        return value
    hint = "; put it in quotes" if isinstance(value, bool | int | float) else ""
    return found.error(path, f"expected text, got {_described(value)}{hint}")


def _bool(value: Any, path: Path, found: _Findings) -> Any:
    if type(value) is bool:
        return value
    known = _BOOLS.get(value.lower()) if isinstance(value, str) else None
    return known if known is not None else found.expected(path, "true or false", value)


_BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,30})")
_FLOAT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_SPECIAL = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


def _integer(low: int, high: int) -> Convert:
    def read(value: Any, path: Path, found: _Findings) -> Any:
        if type(value) is int:
            number = value
        elif isinstance(value, str) and _DECIMAL.fullmatch(value):
            number = int(value)
        elif isinstance(value, float):
            if not value.is_integer():
                return found.expected(path, "a whole number", value)
            number = int(value)
        else:
            return found.expected(path, "a number", value)
        if low <= number <= high:
            return number
        return found.error(path, f"expected a number from {low} to {high}, got {_shortened(str(number))}")

    return read


def _real(limit: float) -> Convert:
    def read(value: Any, path: Path, found: _Findings) -> Any:
        if isinstance(value, str):
            if value in _SPECIAL:
                return _SPECIAL[value]
            if _FLOAT.fullmatch(value):
                value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return found.expected(path, "a number", value)
        if abs(value) > limit and abs(value) != float("inf"):
            return found.error(path, f"{_described(value)} is too large")
        return float(value)

    return read


def _bytes(value: Any, path: Path, found: _Findings) -> Any:
    if not isinstance(value, str):
        return found.expected(path, "base64 text", value)
    text = "".join(value.split()).rstrip("=").replace("+", "-").replace("/", "_")
    try:
        if not re.fullmatch(r"[\w-]*", text, re.ASCII):
            raise Base64Error
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except Base64Error:
        return found.expected(path, "base64 text", value)


_INT32, _INT64 = _integer(-(2**31), 2**31 - 1), _integer(-(2**63), 2**63 - 1)
_SCALARS: dict[str, Convert] = {
    "string": _text,
    "bool": _bool,
    "bytes": _bytes,
    "int32": _INT32,
    "int64": _INT64,
    "uint32": _integer(0, 2**32 - 1),
    "uint64": _integer(0, 2**64 - 1),
    "float": _real(3.4028234663852886e38),
    "double": _real(float("inf")),
}


def _enum(name: str, target: Any) -> Convert:
    numbers = ENUMS[name]
    make = target or int
    values = {key: make(number) for key, number in numbers.items()}
    values |= {str(number): make(number) for number in numbers.values()}

    def read(value: Any, path: Path, found: _Findings) -> Any:
        key = value if isinstance(value, str) else str(value) if type(value) is int else None
        if key in values:
            return values[key]
        return found.expected(path, f"one of {', '.join(sorted(numbers, key=numbers.__getitem__))}", value)

    return read


_UNITS = {
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1000,
    "µs": 1000,
    "μs": 1000,
    "ns": 1,
}
_DURATION = re.compile(r"([-+]?)((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:h|ms|m|s|us|µs|μs|ns))+")
_DURATION_PART = re.compile(r"([0-9]*)\.?([0-9]*)(h|ms|m|s|us|µs|μs|ns)")
_DURATION_LIMIT = 315_576_000_000  # seconds: google.protobuf.Duration's ten thousand years


def _duration(_: Any) -> Convert:
    def read(value: Any, path: Path, found: _Findings) -> Any:
        if isinstance(value, dict):
            seconds = _part(value, "seconds", _INT64, path, found)
            nanos = _part(value, "nanos", _INT32, path, found) + seconds * _UNITS["s"]
            for key in value:
                if key not in ("seconds", "nanos"):
                    found.stranger((path, key), "unknown field, a duration has seconds and nanos")
        elif isinstance(value, str) and len(value) < 100 and (match := _DURATION.fullmatch(value)):
            nanos = sum(
                int(f"{whole}{part}" or 0) * _UNITS[unit] // 10 ** len(part)
                for whole, part, unit in _DURATION_PART.findall(value)
            ) * (-1 if match[1] == "-" else 1)
        else:
            return found.expected(path, "a duration such as 15s or 1.5s", value)
        if abs(nanos) > _DURATION_LIMIT * _UNITS["s"]:
            return found.error(path, "longer than the ten thousand years a duration can last")
        micros = (abs(nanos) + 999) // 1000  # upwards: less than a microsecond must not become none
        return timedelta(microseconds=micros if nanos > 0 else -micros)

    return read


def _part(value: Mapping[str, Any], key: str, convert: Convert, path: Path, found: _Findings) -> int:
    return (convert(value[key], (path, key), found) or 0) if value.get(key) is not None else 0


def _struct(target: Any) -> Convert:
    def read(value: Any, path: Path, found: _Findings) -> Any:
        if not isinstance(value, dict):
            return found.expected(path, "a mapping", value)
        if target is None:
            return None
        from shared.codec.wellknown import struct_of

        return struct_of(value)

    return read


def _value(target: Any) -> Convert:
    def read(value: Any, path: Path, found: _Findings) -> Any:
        if target is None:
            return None
        from shared.codec.wellknown import value_of

        return value_of(value)

    return read


def _any(target: Any) -> Convert:
    def read(value: Any, path: Path, found: _Findings) -> Any:
        if not isinstance(value, dict):
            return found.expected(path, "a mapping with @type", value)
        if not isinstance(value.get("@type"), str) or "/" not in value["@type"]:
            return found.error((path, "@type"), "expected a type URL such as type.googleapis.com/envoy.…")
        if target is None:
            return None
        from shared.codec.wellknown import any_of

        return any_of(value)

    return read


def _empty(target: Any) -> Convert:
    def read(value: Any, path: Path, found: _Findings) -> Any:
        if not isinstance(value, dict):
            return found.expected(path, "an empty mapping, {}", value)
        for key in value:
            found.stranger((path, key), "unknown field, this mapping stays empty")
        return target() if target else None

    return read
