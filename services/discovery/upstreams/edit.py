"""Fields of a document changed in its text, so that comments, order and style stay their author's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from shared.codec import text
from shared.errors import InvalidDocument

Path = tuple[str, ...]
Value = str | Sequence[str] | Mapping[str, Any]

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def edit(raw: bytes, changes: Mapping[Path, Value]) -> bytes:
    """*raw* with the fields at the paths set; rendered anew where its text cannot be changed for certain."""
    wanted = text.parse(raw)
    edited: str | None = raw.decode()
    for path, value in changes.items():
        wanted = _with(wanted, path, value)
        edited = _put(edited, path, value) if edited is not None else None
    if edited is not None:
        try:
            if text.parse(edited.encode()) == wanted:
                return edited.encode()
        except InvalidDocument:
            pass
    return text.render_json(wanted) if raw.lstrip().startswith(b"{") else text.render(wanted).encode()


def _with(document: Mapping[str, Any], path: Path, value: Value) -> dict[str, Any]:
    """*document* with *value* at *path*; what lies beside the path is shared with it."""
    step, below = path[0], path[1:]
    return {**document, step: _with(document.get(step) or {}, below, value) if below else value}


def _put(document: str, path: Path, value: Value) -> str | None:
    """The text with *path* set; None when there is no place for it that is easy to tell."""
    node = yaml.compose(document, Loader=_LOADER)
    for depth, step in enumerate(path):
        if not isinstance(node, yaml.MappingNode):
            return None
        found = next((below for key, below in node.value if key.value == step), None)
        if found is None:
            for missing in reversed(path[depth + 1 :]):
                value = {missing: value}
            return _add(document, node, step, value)
        node = found
    return _replace(document, node, value)


def _replace(document: str, node: Any, value: Value) -> str:
    start: int = node.start_mark.index
    end = _end(node)
    listed = (
        isinstance(node, yaml.SequenceNode) and not node.flow_style and not isinstance(value, (str, Mapping))
    )
    if listed and value:
        lead = "\n" + " " * node.start_mark.column
        items = lead.join(f"- {_word(str(item))}" for item in value)
        return f"{document[:start]}{items}{document[end:]}"
    gap = " " if document[start - 1 : start] == ":" else ""
    if listed:  # in the place of its first item it would stand no deeper than its key
        gap = "  "
    return f"{document[:start]}{gap}{_flow(value)}{document[end:]}"


def _add(document: str, node: Any, key: str, value: Value) -> str | None:
    if not node.value:
        return None
    if node.flow_style:
        end = _end(node.value[-1][1])
        return f"{document[:end]}, {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}{document[end:]}"
    end = document.find("\n", _end(node.value[-1][1]))
    head = document if end < 0 else document[:end]
    indent = " " * node.value[0][0].start_mark.column
    lines = (indent + line for line in text.render({key: value}).splitlines())
    return head + "\n" + "\n".join(lines) + ("\n" if end < 0 else document[end:])


def _end(node: Any) -> int:
    """Where the last character of *node* stands; a block ends only where the next thing begins."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    end: int = node.end_mark.index
    return end


def _flow(value: Value) -> str:
    if isinstance(value, str):
        return _word(value)
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False)
    return f"[{', '.join(map(_word, value))}]"


def _word(word: str) -> str:
    """*word* as YAML writes it on one line, quoted where it must be, or might be inside brackets."""
    plain = text.render({"_": word}).removeprefix("_: ").rstrip("\n")
    return plain if plain == word and not set(word) & set("[]{},\n") else json.dumps(word, ensure_ascii=False)
