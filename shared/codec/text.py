"""Texts to documents and back: YAML and JSON, and status written into a text without touching the rest.

A document is what its author sees in it: plain words stay text (``on``, ``010``, ``12:30:45``, dates),
only ``true``, ``null`` and decimal numbers are more than that. What a reader must not silently accept is
refused: a key twice, a second document, aliases that unfold without end, nesting without end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.resolver import BaseResolver

from shared.errors import InvalidDocument

try:
    import orjson
except ImportError:  # glooctl comes without
    orjson = None  # type: ignore[assignment]

MAX_DEPTH = 100
MAX_UNFOLDED = 100_000  # nodes a document may have once every alias stands for its anchor's content
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def parse(raw: bytes) -> dict[str, Any]:
    """The document in *raw*: JSON where it starts with ``{`` and is JSON, else YAML."""
    text = _decoded(raw)
    if text.lstrip().startswith("{"):
        try:
            return _parse_json(raw, text)
        except ValueError:
            pass  # YAML's flow style looks alike, and YAML knows the line of a mistake
    return _parse_yaml(text)


def render(document: Mapping[str, Any]) -> str:
    """*document* as YAML for people: block style, keys in order, quotes only where they are needed."""
    text: str = yaml.dump(
        document,
        Dumper=_PeopleDumper,
        default_flow_style=False,
        allow_unicode=True,
        width=4096,
        sort_keys=True,
    )
    return text


def render_json(document: Mapping[str, Any], *, compact: bool = False) -> bytes:
    """*document* as JSON, keys in order; indented unless *compact*."""
    if orjson is None:
        separators = (",", ":") if compact else (",", ": ")
        indent = None if compact else 2
        return json.dumps(
            document, ensure_ascii=False, sort_keys=True, indent=indent, separators=separators
        ).encode()
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS | (0 if compact else orjson.OPT_INDENT_2))


def set_status(raw: bytes, status: Mapping[str, Any] | None, *, field: str = "status") -> bytes:
    """*raw* with its status, the block at *field*, replaced (None: taken out), and every other byte as it was.

    Where that cannot be done for certain the document is rendered anew.
    """
    before = parse(raw)
    wanted = {key: item for key, item in before.items() if key != field}
    if status is not None:
        wanted[field] = dict(status)
    if before == wanted:
        return raw
    mark, body = (raw[:3], raw[3:]) if raw.startswith(_BOM) else (b"", raw)
    if (json_style := _json_style(before, body)) is not None:
        return mark + _dump_json({**before, **wanted} if status is not None else wanted, json_style)
    for candidate in _candidates(body.decode(), field, None if status is None else dict(status)):
        encoded = mark + candidate.encode()
        try:
            if parse(encoded) == wanted:
                return encoded
        except InvalidDocument:
            continue
    return render_json(wanted) if body.lstrip().startswith(b'{"') else render(wanted).encode()


# Reading

_BOM = b"\xef\xbb\xbf"


def _decoded(raw: bytes) -> str:
    try:
        text = raw.removeprefix(_BOM).decode()
    except UnicodeDecodeError as error:
        raise InvalidDocument(f"not UTF-8 text (byte {error.start} is 0x{raw[error.start]:02x})") from None
    if "\0" in text:
        raise InvalidDocument("not a text: it contains a NUL byte")
    return text


def _parse_json(raw: bytes, text: str) -> dict[str, Any]:
    """The document, or ValueError: not JSON, or YAML's reader has something to say about it."""
    if orjson is None:
        document = json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_refuse_constant)
    else:
        document = orjson.loads(raw.removeprefix(_BOM))
        if _json_style(document, raw.removeprefix(_BOM)) is None:  # a key twice would not show otherwise
            json.loads(text, object_pairs_hook=_without_doubles)
    if _too_deep(document):
        raise ValueError
    checked: dict[str, Any] = document
    return checked


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
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


def _parse_yaml(text: str) -> dict[str, Any]:
    loader = None
    try:
        loader = _Loader(text)
        return _Construction(loader.get_event).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = str(error.problem or error.context or "not YAML")
        if mark is None:
            raise InvalidDocument(problem) from None
        raise InvalidDocument(problem, line=mark.line + 1, column=mark.column + 1) from None
    except yaml.YAMLError as error:
        raise InvalidDocument(f"not YAML: {str(error).splitlines()[0]}") from None
    finally:
        if loader is not None:
            loader.dispose()


class _Construction:
    """Builds a document straight from the parser's events.

    PyYAML's own way there recurses in C, so that a text of brackets ends the process, keeps the last of
    equal keys, and makes dates and octal numbers of plain words.
    """

    def __init__(self, next_event: Callable[[], Any]) -> None:
        self._next = next_event
        self._anchors: dict[str, tuple[Any, int]] = {}  # with how many values each stands for
        self._events = 0
        self._unfolded = 0

    def document(self) -> dict[str, Any]:
        self._next()  # the stream's start
        if type(self._next()) is yaml.StreamEndEvent:
            raise InvalidDocument("the document is empty")
        event = self._next()
        if type(event) is not yaml.MappingStartEvent:
            empty = type(event) is yaml.ScalarEvent and not event.value
            problem = (
                "the document is empty" if empty else "expected a mapping at the top, as metadata: {name: …}"
            )
            raise _at(event, problem)
        document: dict[str, Any] = self._value(event, 1)
        self._next()  # the document's end
        if type(event := self._next()) is not yaml.StreamEndEvent:
            raise _at(event, "one document expected, here starts another")
        return document

    def _value(self, event: Any, depth: int) -> Any:
        self._events += 1
        if type(event) is yaml.AliasEvent:
            return self._alias(event)
        before = self._unfolded
        self._unfolded += 1
        value: Any
        if type(event) is yaml.ScalarEvent:
            value = _plain(event.value) if event.implicit[0] else _scalar(event)
        elif depth > MAX_DEPTH:
            raise _at(event, f"nested deeper than {MAX_DEPTH} levels")
        elif type(event) is yaml.MappingStartEvent:
            value = self._mapping(event, depth)
        else:
            _refuse_tag(event, "tag:yaml.org,2002:seq")
            value = []
            while type(item := self._next()) is not yaml.SequenceEndEvent:
                value.append(self._value(item, depth + 1))
        if event.anchor:
            self._anchors[event.anchor] = value, self._unfolded - before
        return value

    def _alias(self, event: Any) -> Any:
        if event.anchor not in self._anchors:
            raise _at(event, f"*{event.anchor} stands for nothing that was named before it")
        value, size = self._anchors[event.anchor]
        self._unfolded += size
        if self._unfolded > max(MAX_UNFOLDED, 10 * self._events):
            raise _at(event, "the aliases unfold to too large a document")
        return value

    def _mapping(self, event: Any, depth: int) -> dict[str, Any]:
        _refuse_tag(event, "tag:yaml.org,2002:map")
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        while type(key_event := self._next()) is not yaml.MappingEndEvent:
            if type(key_event) is not yaml.ScalarEvent:
                raise _at(key_event, "expected a plain name as key")
            key = key_event.value
            value = self._value(self._next(), depth + 1)
            if key == "<<" and key_event.implicit[0]:
                for source in value if isinstance(value, list) else [value]:
                    if not isinstance(source, dict):
                        raise _at(key_event, "expected a mapping to merge")
                    merged = {**source, **merged}
            elif key in own:
                raise _at(key_event, f"the key {key!r} stands here twice")
            else:
                own[key] = value
        return {**merged, **own} if merged else own


def _at(event: Any, problem: str) -> InvalidDocument:
    return InvalidDocument(problem, line=event.start_mark.line + 1, column=event.start_mark.column + 1)


def _refuse_tag(event: Any, known: str) -> None:
    if event.tag and event.tag not in ("!", known):
        raise _at(event, f"the tag {event.tag} has no meaning here")


_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE, _FALSE = frozenset(("true", "True", "TRUE")), frozenset(("false", "False", "FALSE"))
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,99})")
_REAL = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"([-+]?)\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


def _plain(text: str) -> Any:
    """What an unquoted word is."""
    if text and text[0] not in "0123456789-+.nNtTfF~":
        return text
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if _INTEGER.fullmatch(text):
        return int(text)
    if _REAL.fullmatch(text):
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text


def _scalar(event: Any) -> Any:
    """A quoted scalar, or one with a tag."""
    tag, text = event.tag, event.value
    if tag is None or tag in ("!", "tag:yaml.org,2002:str"):
        return text
    value = _plain(text)
    if tag == "tag:yaml.org,2002:float" and type(value) is int:
        return float(value)
    if tag in _TAGS and type(value) is _TAGS[tag]:
        return value
    raise _at(event, f"the tag {tag} has no meaning here")


_TAGS = {
    "tag:yaml.org,2002:null": type(None),
    "tag:yaml.org,2002:bool": bool,
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": float,
}


# Writing


class _PeopleDumper(_Dumper):  # type: ignore[misc]
    def ignore_aliases(self, _: Any) -> bool:
        return True


def _represent_text(dumper: Any, text: str) -> Any:
    style = "|" if "\n" in text.rstrip("\n") or text.endswith("\n") else None
    return dumper.represent_scalar(BaseResolver.DEFAULT_SCALAR_TAG, text, style=style)


_PeopleDumper.add_representer(str, _represent_text)
# Words that other readers of YAML take for numbers.
_PeopleDumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(f"^(?:{_REAL.pattern})$"), list("-+.0123456789")
)
_PeopleDumper.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile("^[-+]?0[0-9oxbOXB_]+.*$"), list("-+0")
)


# Status


def _json_style(document: Any, body: bytes) -> int | None:
    """The option with which orjson writes exactly *body* (but for white space around); None: no such."""
    if orjson is None:
        return None
    stripped = body.strip()
    for style in (0, orjson.OPT_INDENT_2):
        if orjson.dumps(document, option=style) == stripped:
            return style
    return None


def _dump_json(document: Any, style: int) -> bytes:
    return orjson.dumps(document, option=style)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A key of the top mapping: where it starts, where its value starts, where its last character ends."""

    key: str
    start: int
    value: int
    end: int


def _candidates(text: str, field: str, status: dict[str, Any] | None) -> Iterator[str]:
    """The text with the new status, the best way first; whether one is right is for the caller to see."""
    try:
        flow, entries = _top_entries(text)
    except yaml.YAMLError:
        return
    at = next((index for index, entry in enumerate(entries) if entry.key == field), None)
    if flow:
        yield _in_flow(text, entries, at, field, status)
    else:
        yield from _in_block(text, entries, at, field, status)


def _top_entries(text: str) -> tuple[bool, list[_Entry]]:
    """Whether the top mapping is in flow style, and its entries."""
    flow, depth, entries = False, 0, list[_Entry]()
    key: Any = None
    value = end = 0
    event: Any
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.MappingStartEvent) and depth == 0:
            flow, depth = bool(event.flow_style), 1
            continue
        opens = isinstance(event, yaml.CollectionStartEvent)
        closes = isinstance(event, yaml.CollectionEndEvent)
        if depth == 1 and not closes:
            if key is None:
                key = event
                continue
            value = event.start_mark.index
        if depth == 0:
            continue
        depth += opens - closes
        if depth == 0:
            continue
        width = event.end_mark.index - event.start_mark.index
        if not opens and (not closes or width):
            end = event.end_mark.index
        if depth == 1 and key is not None:
            entries.append(
                _Entry(
                    key=getattr(key, "value", ""),
                    start=key.start_mark.index,
                    value=value,
                    end=max(end, value),
                )
            )
            key = None
    return flow, entries


def _in_flow(
    text: str, entries: list[_Entry], at: int | None, field: str, status: dict[str, Any] | None
) -> str:
    rendered = "" if status is None else json.dumps(status, ensure_ascii=False, separators=(", ", ": "))
    if at is None:
        if not entries:
            brace = text.index("{") + 1
            return f'{text[:brace]}"{field}": {rendered}{text[brace:]}'
        last = entries[-1]
        lead = text[text.rfind("\n", 0, last.start) + 1 : last.start]
        gap = f"\n{lead}" if not lead.strip() else " "
        return f'{text[: last.end]},{gap}"{field}": {rendered}{text[last.end :]}'
    entry = entries[at]
    if status is not None:
        return f"{text[: entry.value]}{rendered}{text[entry.end :]}"
    if at + 1 < len(entries):
        return text[: entry.start] + text[entries[at + 1].start :]
    start = entries[at - 1].end if at else entry.start
    return text[:start] + text[entry.end :]


def _in_block(
    text: str, entries: list[_Entry], at: int | None, field: str, status: dict[str, Any] | None
) -> Iterator[str]:
    newline = "\r\n" if "\r\n" in text else "\n"
    indent = " " * (entries[0].start - _line_start(text, entries[0].start)) if entries else ""
    block = ""
    if status is not None:
        lines = render({field: status}).splitlines()
        block = newline.join(indent + line if line else line for line in lines)
    if at is not None:
        start, end = _line_start(text, entries[at].start), _line_end(text, entries[at].end)
        if text[:end].endswith(("\n", "\r")) and status is not None:
            block += newline
        if status is None:
            end += len(newline) if text.startswith(newline, end) else 0
        yield text[:start] + block + text[end:]
        return
    finish = re.search(r"^\.\.\.(\s|$)", text, re.MULTILINE)
    end = finish.start() if finish else len(text)
    head = text[:end]
    gap = "" if not head or head.endswith(("\n", "\r")) else newline
    yield f"{head}{gap}{block}{newline}{text[end:]}"
    if entries:
        start = _line_start(text, entries[0].start)
        yield f"{text[:start]}{block}{newline}{text[start:]}"


def _line_start(text: str, index: int) -> int:
    return max(text.rfind("\n", 0, index), text.rfind("\r", 0, index)) + 1


def _line_end(text: str, index: int) -> int:
    """The end of the line that the character before *index* stands on."""
    if index and text[index - 1] in "\r\n":
        return index
    found = re.compile(r"[\r\n]").search(text, index)
    return found.start() if found else len(text)
