"""Readers of a document's values: shapes, scalars, enums and google's well-known types.

Each takes a value, its path and the findings; it gives what the message is to hold, or reports and gives
None. Their *target* is the class to build, None where a document is only checked.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from protos._generated.schema import ENUMS
from shared.report import Report, join

Unknown = Literal["error", "warn"]
# The path before, and the last step; one is built for every value, so it is cheap.
Path = tuple[Any, str | int] | None
Convert = Callable[[Any, Path, "Findings"], Any]


@dataclass(frozen=True, slots=True)
class Findings:
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


# Shapes


def list_of(convert: Convert) -> Convert:
    def read(value: Any, path: Path, found: Findings) -> Any:
        if not isinstance(value, list):
            return found.expected(path, "a list", value)
        return [convert(item, (path, index), found) for index, item in enumerate(value)]

    return read


def map_of(convert: Convert) -> Convert:
    def read(value: Any, path: Path, found: Findings) -> Any:
        if not isinstance(value, dict):
            return found.expected(path, "a mapping", value)
        keys = {key: _key(key) for key in value}
        for key in keys.values():
            if not _is_text(key):
                found.error((path, key), NO_TEXT)
        return {keys[key]: convert(item, (path, keys[key]), found) for key, item in value.items()}

    return read


def _key(key: object) -> str:
    return key if isinstance(key, str) else str(key).lower() if isinstance(key, bool) else str(key)


# Scalars and enums


NO_TEXT = "half of a surrogate pair is no character"


def _is_text(value: str) -> bool:
    """JSON can escape the halves of a surrogate pair one by one; alone they have no UTF-8."""
    return not _HALF.search(value)


_HALF = re.compile("[\ud800-\udfff]")


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """The texts in a plain value."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield (path, str(key)), str(key)
            yield from _texts(item, (path, str(key)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (path, index))


def _all_text(value: Any, path: Path, found: Findings) -> bool:
    wrong = [at for at, text in _texts(value, path) if not _is_text(text)]
    for at in wrong:
        found.error(at, NO_TEXT)
    return not wrong


def _text(value: Any, path: Path, found: Findings) -> Any:
    if type(value) is str:
        return value if value.isascii() or _is_text(value) else found.error(path, NO_TEXT)
    hint = "; put it in quotes" if isinstance(value, bool | int | float) else ""
    return found.error(path, f"expected text, got {_described(value)}{hint}")


def _bool(value: Any, path: Path, found: Findings) -> Any:
    if type(value) is bool:
        return value
    known = _BOOLS.get(value.lower()) if isinstance(value, str) else None
    return known if known is not None else found.expected(path, "true or false", value)


_BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,30})")
_FLOAT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_SPECIAL = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


def _integer(low: int, high: int) -> Convert:
    def read(value: Any, path: Path, found: Findings) -> Any:
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
    def read(value: Any, path: Path, found: Findings) -> Any:
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


def _bytes(value: Any, path: Path, found: Findings) -> Any:
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
SCALARS: dict[str, Convert] = {
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


def enum_of(name: str, target: Any) -> Convert:
    numbers = ENUMS[name]
    make = target or int
    values = {key: make(number) for key, number in numbers.items()}
    values |= {str(number): make(number) for number in numbers.values()}

    def read(value: Any, path: Path, found: Findings) -> Any:
        key = value if isinstance(value, str) else str(value) if type(value) is int else None
        if key in values:
            return values[key]
        return found.expected(path, f"one of {', '.join(sorted(numbers, key=numbers.__getitem__))}", value)

    return read


# Well-known types

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
    def read(value: Any, path: Path, found: Findings) -> Any:
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


def _part(value: dict[str, Any], key: str, convert: Convert, path: Path, found: Findings) -> int:
    return (convert(value[key], (path, key), found) or 0) if value.get(key) is not None else 0


def _struct(target: Any) -> Convert:
    def read(value: Any, path: Path, found: Findings) -> Any:
        if target is not None and type(value) is target:
            return value  # one made before
        if not isinstance(value, dict):
            return found.expected(path, "a mapping", value)
        if not _all_text(value, path, found) or target is None:
            return None
        from shared.codec.wellknown import struct_of

        return struct_of(value)

    return read


def _value(target: Any) -> Convert:
    def read(value: Any, path: Path, found: Findings) -> Any:
        if not _all_text(value, path, found) or target is None:
            return None
        from shared.codec.wellknown import value_of

        return value_of(value)

    return read


def _any(target: Any) -> Convert:
    def read(value: Any, path: Path, found: Findings) -> Any:
        if not isinstance(value, dict):
            return found.expected(path, "a mapping with @type", value)
        if not isinstance(value.get("@type"), str) or "/" not in value["@type"]:
            return found.error((path, "@type"), "expected a type URL such as type.googleapis.com/envoy.…")
        if not _all_text(value, path, found) or target is None:
            return None
        from shared.codec.wellknown import any_of

        return any_of(value)

    return read


def _empty(target: Any) -> Convert:
    def read(value: Any, path: Path, found: Findings) -> Any:
        if not isinstance(value, dict):
            return found.expected(path, "an empty mapping, {}", value)
        for key in value:
            found.stranger((path, key), "unknown field, this mapping stays empty")
        return target() if target else None

    return read


WELL_KNOWN: dict[str, Callable[[Any], Convert]] = {
    "duration": _duration,
    "struct": _struct,
    "value": _value,
    "any": _any,
    "empty": _empty,
}
