"""Texts to documents and back: YAML and JSON, and status written into a text without touching the rest.

A document is what its author sees in it: plain words stay text (``on``, ``010``, ``12:30:45``, dates),
only ``true``, ``null`` and decimal numbers are more than that. What a reader must not silently accept is
refused: a key twice, a second document, aliases that unfold without end, nesting without end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from shared.codec.yaml_reading import MAX_DEPTH, REAL, Reading, read_yaml
from shared.errors import InvalidDocument

try:
    import orjson
except ImportError:  # glooctl comes without
    orjson = None  # type: ignore[assignment]

_BOM = b"\xef\xbb\xbf"


def parse(raw: bytes) -> dict[str, Any]:
    """The document in *raw*: JSON where it starts with ``{`` and is JSON, else YAML.

    Raises ``InvalidDocument``, with line and column where they are known.
    """
    text = _decoded(raw)
    if text.lstrip().startswith("{"):
        try:
            return _parse_json(raw.removeprefix(_BOM), text)
        except (ValueError, RecursionError):
            pass  # YAML's flow style looks alike, and YAML's reader knows the line of a mistake
    return read_yaml(text).document


def render(document: Mapping[str, Any]) -> str:
    """*document* as YAML for people: block style, keys in order, quotes only where they are needed."""
    style: dict[str, Any] = {"default_flow_style": False, "allow_unicode": True, "width": 4096}
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=True, **style)
    return text


def render_json(document: Mapping[str, Any], *, compact: bool = False) -> bytes:
    """*document* as JSON, keys in order; indented unless *compact*."""
    if orjson is None:
        layout: dict[str, Any] = {"separators": (",", ":")} if compact else {"indent": 2}
        return json.dumps(document, ensure_ascii=False, sort_keys=True, **layout).encode()
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS | (0 if compact else orjson.OPT_INDENT_2))


def set_status(raw: bytes, status: Mapping[str, Any] | None, *, field: str = "status") -> bytes:
    """*raw* with its status block (at *field*) replaced, or taken out for None; every other byte as it was.

    What comes out is read again; where it does not say what was wanted, the document is rendered anew and
    loses its comments. Raises ``InvalidDocument`` when *raw* cannot be read.
    """
    text = _decoded(raw)
    braces = text.lstrip().startswith("{")
    reading = None if braces else read_yaml(text, places=True)
    before = reading.document if reading else parse(raw)
    if before.get(field) == status and (field in before) == (status is not None):
        return raw
    wanted = {key: item for key, item in before.items() if key != field}
    if status is not None:
        wanted = {**before, field: dict(status)}
    mark, body = raw[: len(raw) - len(raw.removeprefix(_BOM))], raw.removeprefix(_BOM)
    if (layout := _layout(before, body)) is not None:
        end = body[len(body.rstrip()) :]
        return mark + orjson.dumps(wanted, option=layout) + end
    for candidate in _candidates(text, reading, field, status):
        encoded = mark + candidate.encode()
        if _says(encoded, wanted):
            return encoded
    return render_json(wanted) if braces else render(wanted).encode()


# Reading


def _decoded(raw: bytes) -> str:
    try:
        text = raw.removeprefix(_BOM).decode()
    except UnicodeDecodeError as error:
        raise InvalidDocument(f"not UTF-8 text: byte {error.start + 1} is 0x{raw[error.start]:02x}") from None
    if "\0" in text:
        raise InvalidDocument("not a text: it contains a NUL byte")
    return text


def _parse_json(body: bytes, text: str) -> dict[str, Any]:
    """The document; ValueError where it is not JSON, or where YAML's reader has something to say about it."""
    document: dict[str, Any]
    if orjson is None:
        document = json.loads(text, object_pairs_hook=_without_twins, parse_constant=_refuse_constant)
        json.dumps(document, ensure_ascii=False).encode()  # refuses what orjson does: half a surrogate pair
    else:
        document = orjson.loads(body)
    if _too_deep(document):
        raise ValueError
    if orjson is not None and _layout(document, body) is None:  # orjson keeps the last of equal keys
        json.loads(text, object_pairs_hook=_without_twins)
    return document


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key twice")
    return document


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _too_deep(document: Any) -> bool:
    level = [document]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for parent in level
            for item in (parent.values() if type(parent) is dict else parent)
            if type(item) in (dict, list)
        ]
        if not level:
            return False
    return True


def _layout(document: Any, body: bytes) -> int | None:
    """The option with which orjson writes exactly *body*, but for white space around it; None: no such."""
    if orjson is None:
        return None
    stripped = body.strip()
    layouts = (0, orjson.OPT_INDENT_2)
    return next((layout for layout in layouts if orjson.dumps(document, option=layout) == stripped), None)


# Writing


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    def ignore_aliases(self, data: Any) -> bool:
        return True


_LINES = re.compile(r"\S[^\n]*(\n+[^\n]+)*\n?")


def _represent_text(dumper: Any, text: str) -> Any:
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text and _LINES.fullmatch(text) else None
    )


_Dumper.add_representer(str, _represent_text)
# Words that we or other readers take for numbers, and PyYAML does not.
_FLOAT_TAG, _INT_TAG = "tag:yaml.org,2002:float", "tag:yaml.org,2002:int"
_Dumper.add_implicit_resolver(_FLOAT_TAG, re.compile(f"^(?:{REAL.pattern})$"), list("-+.0123456789"))
_Dumper.add_implicit_resolver(_INT_TAG, re.compile("^[-+]?0[oO]?[0-9_]+$"), list("-+0"))


# Status


def _says(raw: bytes, wanted: Mapping[str, Any]) -> bool:
    try:
        return parse(raw) == wanted
    except InvalidDocument:
        return False


def _candidates(
    text: str, reading: Reading | None, field: str, status: Mapping[str, Any] | None
) -> Iterator[str]:
    """The text with the new status, the best way first; whether one is right is for the caller to see."""
    try:
        reading = reading or read_yaml(text, places=True)
    except InvalidDocument:  # JSON that is not YAML
        return
    if reading.flow:
        yield _in_flow(text, reading, field, status)
    else:
        yield from _in_block(text, reading, field, status)


def _index(reading: Reading, field: str) -> int | None:
    return next((index for index, entry in enumerate(reading.entries) if entry.key == field), None)


def _in_flow(text: str, reading: Reading, field: str, status: Mapping[str, Any] | None) -> str:
    entries, at = reading.entries, _index(reading, field)
    value = json.dumps(status, ensure_ascii=False)
    if at is None:
        if not entries:
            brace = text.index("{") + 1
            return f'{text[:brace]}"{field}": {value}{text[brace:]}'
        last = entries[-1]
        lead = text[_line_start(text, last.start) : last.start]
        gap = " " if lead.strip() else f"{_newline(text)}{lead}"
        return f'{text[: last.end]},{gap}"{field}": {value}{text[last.end :]}'
    entry = entries[at]
    if status is not None:
        return text[: entry.value] + value + text[entry.end :]
    if at + 1 < len(entries):
        return text[: entry.start] + text[entries[at + 1].start :]
    return text[: entries[at - 1].end if at else entry.start] + text[entry.end :]


def _in_block(text: str, reading: Reading, field: str, status: Mapping[str, Any] | None) -> Iterator[str]:
    entries, at, newline = reading.entries, _index(reading, field), _newline(text)
    first = _line_start(text, entries[0].start)
    indent = " " * (entries[0].start - first)
    block = ""
    if status is not None:
        lines = render({field: dict(status)}).split("\n")
        block = newline.join(indent + line if line else "" for line in lines)
    if at is not None:
        start = _line_start(text, entries[at].start)
        content = text[start : entries[at].end].rstrip()  # a literal's last line break belongs to it
        end = _next_line(text, start + len(content))
        yield (
            text[:start]
            + (block if end < len(text) or text.endswith(newline) else block.rstrip())
            + text[end:]
        )
        return
    if finish := re.search(r"^\.\.\.\s", text + "\n", re.MULTILINE):
        yield text[: finish.start()] + block + text[finish.start() :]
    elif text.endswith(newline):
        yield text + block
    else:
        yield text + newline + block.rstrip()
        yield text + newline + block
    yield text[:first] + block + text[first:]  # the end may belong to a literal that keeps its line breaks


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _line_start(text: str, index: int) -> int:
    return max(text.rfind("\n", 0, index), text.rfind("\r", 0, index)) + 1


_LINE_BREAK = re.compile(r"\r\n|\r|\n")


def _next_line(text: str, index: int) -> int:
    found = _LINE_BREAK.search(text, index)
    return found.end() if found else len(text)
