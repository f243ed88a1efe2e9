"""YAML texts to plain values, for documents that strangers write.

Values are built straight from the parser's events. PyYAML's own way from there recurses in C, so that a
text of brackets ends the process; it keeps the last of equal keys, and it makes dates, octal and
sexagesimal numbers of plain words. Ours takes a quarter of its time, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from shared.errors import InvalidDocument

MAX_DEPTH = 100
MAX_UNFOLDED = 100_000  # values a document may have once every alias stands for what its anchor holds
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Where a key of the top mapping stands in the text: its start, its value's start and last character."""

    key: str
    start: int
    value: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A document, with its places in the text when they were asked for."""

    document: dict[str, Any]
    flow: bool = False  # the top mapping is in braces
    entries: tuple[Entry, ...] = ()


def read_yaml(text: str, *, places: bool = False) -> Reading:
    """The one document in *text*; raises ``InvalidDocument`` with line and column."""
    loader = None
    try:
        loader = LOADER(text)
        return _Construction(loader.get_event, places=places).reading()
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
    """One reading: the parser's events as they come, the anchors met so far."""

    def __init__(self, next_event: Any, *, places: bool) -> None:
        self._next = self._next_placed if places else next_event
        self._next_event = next_event
        self._last: Any = None  # the last event with a character of its own, when places are asked for
        self._entries: list[Entry] = []
        self._anchors: dict[str, tuple[Any, int]] = {}  # with how many values each stands for
        self._events = 0
        self._unfolded = 0

    def reading(self) -> Reading:
        self._next()  # the stream's start
        if type(self._next()) is yaml.StreamEndEvent:
            raise InvalidDocument("the document is empty")
        event = self._next()
        if type(event) is not yaml.MappingStartEvent:
            if type(event) is yaml.ScalarEvent and not event.value:
                raise InvalidDocument("the document is empty")
            raise _at(event, "expected a mapping at the top, such as metadata: {name: …}")
        document = self._value(event, 1)
        self._next()  # the document's end
        if type(after := self._next()) is not yaml.StreamEndEvent:
            raise _at(after, "one document expected, here starts another")
        return Reading(document=document, flow=bool(event.flow_style), entries=tuple(self._entries))

    def _next_placed(self) -> Any:
        event = self._next_event()
        kind = type(event)
        if (
            kind is yaml.ScalarEvent
            or kind is yaml.AliasEvent
            or (
                kind in (yaml.MappingEndEvent, yaml.SequenceEndEvent)
                and event.end_mark.index
                > event.start_mark.index  # a bracket: the end of a block has no width
            )
        ):
            self._last = event
        return event

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
        """Aliases share values, so a small text can stand for billions of them: count before they unfold."""
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
            if key_event.anchor:
                self._anchors[key_event.anchor] = key, 1
            value_event = self._next()
            value = self._value(value_event, depth + 1)
            if key == "<<" and key_event.implicit[0]:
                for source in value if isinstance(value, list) else [value]:
                    if not isinstance(source, dict):
                        raise _at(key_event, "expected a mapping to merge")
                    merged = {**source, **merged}
            elif key in own:
                raise _at(key_event, f"the key {key!r} stands here twice")
            else:
                own[key] = value
            if depth == 1 and self._last is not None:
                self._entries.append(_entry(key_event, value_event, self._last))
        return {**merged, **own} if merged else own


def _entry(key: Any, value: Any, last: Any) -> Entry:
    return Entry(
        key=key.value, start=key.start_mark.index, value=value.start_mark.index, end=last.end_mark.index
    )


def _at(event: Any, problem: str) -> InvalidDocument:
    return InvalidDocument(problem, line=event.start_mark.line + 1, column=event.start_mark.column + 1)


def _refuse_tag(event: Any, known: str) -> None:
    if event.tag and event.tag not in ("!", known):
        raise _at(event, f"the tag {event.tag} has no meaning here")


# Scalars

_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE, _FALSE = frozenset(("true", "True", "TRUE")), frozenset(("false", "False", "FALSE"))
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,99})")
REAL = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


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
    if REAL.fullmatch(text):
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
