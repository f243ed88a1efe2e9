"""What became of every field of the contract, and the test that shows it: the rows of ``docs/coverage.md``.

None of it is typed by hand. Of what gloo translates the state is in the tables by which it refuses fields,
and the test is a golden case that has another result without the field. Of gateway's own messages both come
out of its golden cases. Elsewhere the state is what processes warn of and what the comment in the ``.proto``
says, and the test is one that sets the field.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from protos.generate import PACKAGES, contract_descriptors, schema
from services.discovery import app as discovery
from services.gateway import app as gateway
from services.gateway.inputs import KINDS
from services.gateway.translation import Translation
from services.gateway.translator.model import Rules
from services.gloo import app as gloo
from services.gloo.translator import supported
from shared.runtime.settings import ALWAYS_USED, unused
from tests.services.gateway.support import NAMESPACE, apply, documents, findings
from tests.services.gloo.translator.test_supported import BESIDE
from tests.support.consul import REPOSITORY
from tests.support.fields import (
    NOT_FOR_ENVOY,
    Named,
    Place,
    Way,
    gathered,
    load,
    places,
    shown_by_golden_cases,
    without,
)

GATEWAY, GLOO = (f"{package}." for package in PACKAGES)
SETTINGS = f"{GLOO}Settings"
ROOTS = [*(GATEWAY + kind.name for kind in KINDS), *(GLOO + kind for kind in ("Upstream", "UpstreamGroup"))]
ROOTS += [SETTINGS, f"{GLOO}Secret", f"{GLOO}Artifact", f"{GLOO}Proxy"]
TESTS = REPOSITORY / "tests"
GATEWAY_CASES = sorted((TESTS / "services" / "gateway" / "golden").glob("*.in.yaml"))
REFUSING = TESTS / "services" / "gloo" / "translator" / "test_supported.py"
WARNING = TESTS / "shared" / "runtime" / "test_settings.py"
ABOVE = {
    (f"{GLOO}TransformationStages", "inheritTransformation"): TESTS / "services/gateway/golden/stages.in.yaml"
}
"""What gateway has done with when gloo sees it."""
NOTHING = "rejected|no effect|without effect|kept, not used|not used|not read"
ONLY = "without|except|where|there|with|when|on|beside"
UNTOLD = ("protos", "glooctl", "shared/codec", "shared/runtime", "support")
"""Tests that set fields without showing what comes of it."""


class State(Enum):
    """What comes of a field; the words say it to users."""

    WORKS = "works", "does what its comment says"
    NO_EFFECT = "without effect", "may be set, and changes nothing; mostly a warning says so"
    REJECTED = "Rejected", "is an error at its path, which says what to use instead"
    ENTERPRISE = (
        "enterprise",
        "is of Gloo's enterprise edition: an error at its path; in Settings and Secrets without effect",
    )
    BOOKKEEPING = "bookkeeping", "says whose an object is and what was said of it"
    OPEN = "open", "is to come: until then an error at its path"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    field: str
    state: State
    words: str = ""
    test: tuple[str, Path] | None = None  # its name, and where it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of the contract, as its ``.proto`` has it."""

    name: str
    file: str
    fields: Mapping[str, tuple[str, ...]]
    comments: Mapping[str, str]


Table = dict[str, list[Row]]
Steps = list[tuple[Any, Any]]
"""The Proxies after each step of a case, and what was found."""


def bare(name: str) -> str:
    """A message's name without its package."""
    return name.removeprefix(GATEWAY).removeprefix(GLOO)


@cache
def contract() -> Mapping[str, Message]:
    """All messages by their full names, in the order of the files."""
    files = [file for file in contract_descriptors() if file.package in PACKAGES]
    messages = schema(files)["messages"]
    found = {}
    for file in sorted(files, key=lambda file: file.name):
        said = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
        for name, message, path in _messages(file.package, file.message_type, (4,)):
            comments = {field.json_name: said[*path, 2, i] for i, field in enumerate(message.field)}
            found[name] = Message(name=name, file=file.name, fields=messages[name], comments=comments)
    return found


def _messages(
    prefix: str, messages: Iterable[Any], path: tuple[int, ...]
) -> Iterator[tuple[str, Any, tuple[int, ...]]]:
    for i, message in enumerate(messages):
        if not message.options.map_entry:
            name = f"{prefix}.{message.name}"
            yield name, message, (*path, i)
            yield from _messages(name, message.nested_type, (*path, i, 3))


# -- states -----------------------------------------------------------------------------------------------


@cache
def table() -> Table:
    """The rows of every message that something which is not refused leads to."""
    found: Table = {}
    waiting = list(ROOTS)
    while waiting:
        if (name := waiting.pop(0)) in found:
            continue
        found[name] = [row_of(contract()[name], field) for field in contract()[name].fields]
        waiting += [
            contract()[name].fields[row.field][2]
            for row in found[name]
            if contract()[name].fields[row.field][1] == "message"
            and row.state in (State.WORKS, State.BOOKKEEPING)
        ]
    return {name: found[name] for name in contract() if name in found}


def below_refused() -> Iterator[tuple[str, str, State]]:
    """The other messages, each with a field that leads to it and what comes of that one."""
    seen = set(table())
    waiting = [
        (name, row.field, f"{bare(name)}.{row.field}", row.state)
        for name, rows in table().items()
        for row in rows
    ]
    while waiting:
        name, field, way, state = waiting.pop(0)
        _, kind, child, *_ = contract()[name].fields[field]
        if kind == "message" and child not in seen:
            seen.add(child)
            yield child, way, state
            waiting += [(child, each, way, state) for each in contract()[child].fields]


def row_of(message: Message, field: str) -> Row:
    """Golden cases go before tables, and those before what comments say and tests mention."""
    named, name = (message.name, field), message.name.removeprefix(GLOO)
    words, refuses = declared(message.comments[field])
    if named in ABOVE:
        return Row(field=field, state=State.WORKS, test=golden(ABOVE[named]))
    if (case := shown_by_golden_cases().get(named)) is not None and is_translated(name, field):
        state = State.REJECTED if refuses else State.WORKS
        return Row(field=field, state=state, words=words if refuses else "", test=golden(case))
    if (judged := judged_by_gateway().get(named)) is not None:
        wrong_value = judged.state is State.REJECTED and not refuses
        return replace(judged, state=State.WORKS, words="") if wrong_value else judged
    if not is_translated(name, field):
        text, refuses = supported.verdict(name, field)
        states = {supported.ENTERPRISE: State.ENTERPRISE, supported.NOT_YET: State.OPEN}
        state = states.get(text, State.REJECTED) if refuses else State.NO_EFFECT
        words = "" if text in states else text
        return Row(field=field, state=state, words=words, test=("refused by name", REFUSING))
    if is_bookkeeping(message, field):
        return Row(field=field, state=State.BOOKKEEPING)
    if words:
        state = State.REJECTED if refuses else State.NO_EFFECT
        state = State.ENTERPRISE if words.startswith("Enterprise") else state
        return Row(field=field, state=state, words=words, test=test_of_nothing(named, refuses=refuses))
    if not is_used(named):
        return Row(field=field, state=State.OPEN, words="nothing reads it")
    return Row(field=field, state=State.WORKS, test=test_that_sets(message, field))


def test_of_nothing(named: Named, *, refuses: bool) -> tuple[str, Path] | None:
    """The test of a field that does nothing: a warning, or gloo's refusal of what gateway hands on."""
    if not settings_used().get(named, True):
        return "warned of", WARNING
    below = (name for name in supported.FIELDS_READ if named[1] in contract()[GLOO + name].fields)
    handed_on = refuses and any(not supported.is_read(name, named[1]) for name in below)
    return ("refused by name", REFUSING) if handed_on else None


def is_translated(name: str, field: str) -> bool:
    return name not in supported.FIELDS_READ or supported.is_read(name, field)


def is_bookkeeping(message: Message, field: str) -> bool:
    known = {*NOT_FOR_ENVOY, *(GLOO + name for name in supported.UNCHECKED)}
    beside = (message.name.removeprefix(GLOO), field) in BESIDE
    return beside or message.name in known or message.fields[field][2] in known


def declared(comment: str) -> tuple[str, bool]:
    """What a comment says of a field that does nothing, and whether it says that it is rejected."""
    for sentence in re.split(r"(?<=[\w`)])\. ", " ".join(comment.split())):
        found = re.search(rf"(^|(?<!None)[:;] )({NOTHING})\b(, with a warning)?(.*)", sentence, re.I)
        if found is not None and not re.match(rf",? ({ONLY})\b", found[4]):
            return sentence.rstrip("."), found[2].lower() == "rejected"
    return "", False


# -- Settings ---------------------------------------------------------------------------------------------


@cache
def settings_used() -> Mapping[Named, bool]:
    """The fields of Settings and below, and whether any path to them is one that no process warns of."""
    found: dict[Named, bool] = {}
    waiting: list[tuple[str, tuple[str, ...]]] = [(SETTINGS, ())]
    while waiting:
        name, way = waiting.pop()
        for field, (_, kind, child, *_) in contract()[name].fields.items():
            used = no_one_warns((*way, field))
            found[name, field] = found.get((name, field), False) or used
            if kind == "message" and used and child.removeprefix(GLOO) not in supported.FIELDS_READ:
                waiting.append((child, (*way, field)))
    return found


def no_one_warns(way: tuple[str, ...]) -> bool:
    document: Any = {}
    for step in reversed(way):
        document = {step: document}
    roles = (gloo.SETTINGS_USED, gateway.SETTINGS_USED, discovery.SETTINGS_USED)
    return not any(list(unused(document, (*used, *ALWAYS_USED))) for used in roles)


@cache
def sources() -> str:
    folders = (REPOSITORY / "services", REPOSITORY / "shared")
    return "\n".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))


def is_used(named: Named) -> bool:
    """Whether no process warns of a field, and its attribute is looked at somewhere."""
    attribute = contract()[named[0]].fields[named[1]][0]
    return settings_used().get(named, True) and re.search(rf"[.\"]{attribute}\b", sources()) is not None


# -- gateway's golden cases -------------------------------------------------------------------------------


@cache
def judged_by_gateway() -> Mapping[Named, Row]:
    """What gateway's golden cases show of its own messages.

    A field works if without it a Proxy or what is found is another, unless what is said at its path tells.
    """
    cases = {path: load(path) for path in GATEWAY_CASES}
    results = {path: translate(case) for path, case in cases.items()}
    judged = {}
    for named, found in gathered((path, place) for path, case in cases.items() for place in places_of(case)):
        for path, way in found:
            row = judge(named[1], cases[path], way, results[path], golden(path))
            if row is not None and (named not in judged or row.state is State.WORKS):
                judged[named] = row
            if row is not None and row.state is State.WORKS:
                break
    return judged


def judge(field: str, case: Any, way: Way, before: Steps, test: tuple[str, Path]) -> Row | None:
    after = translate(without(case, way))
    path = path_of(way[4:])
    error, warning = (gone(before, after, kind, f"{path}: ") for kind in ("errors", "warnings"))
    if error:
        state = State.OPEN if error == supported.NOT_YET else State.REJECTED
        return Row(field=field, state=state, words=error, test=test)
    served, still_served = ([each for each, _ in steps] for steps in (before, after))
    if warning and served == still_served:
        return Row(field=field, state=State.NO_EFFECT, words=warning, test=test)
    return Row(field=field, state=State.WORKS, test=test) if before != after else None


def gone(before: Steps, after: Steps, kind: str, path: str) -> str:
    """What was said of a path and no longer is."""
    texts = [
        {text for _, found in result for report in found.values() for text in report.get(kind, ())}
        for result in (before, after)
    ]
    return next(
        (text.removeprefix(path) for text in sorted(texts[0] - texts[1]) if text.startswith(path)), ""
    )


def translate(case: Any) -> Steps:
    translation = Translation(NAMESPACE, Rules(**case.get("rules", {})))
    steps = []
    for step in case["steps"]:
        apply(translation, step.get("put", ()), [tuple(pair) for pair in step.get("delete", ())])
        steps.append((documents(translation), findings(translation)))
    return steps


def places_of(case: Any) -> Iterator[Place]:
    for i, step in enumerate(case["steps"]):
        for j, document in enumerate(step.get("put", ())):
            at = ("steps", i, "put", j)
            for named, way in places(document, GATEWAY + document["kind"], is_gateways, at):
                if way[4:] not in (("metadata",), ("metadata", "name")):  # without them it is no object
                    yield named, way


def is_gateways(message: str, field: str) -> bool:
    child = contract()[message].fields[field][2]
    return child == f"{GLOO}Metadata" or child.removeprefix(GLOO) not in supported.FIELDS_READ


def path_of(way: Way) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in way).removeprefix(".")


# -- tests that set a field -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """A test, or the rest of a file, and the words in it; *around* are those of its whole file."""

    name: str
    path: Path
    words: frozenset[str]
    around: frozenset[str]


@cache
def sights() -> list[Sight]:
    found = []
    for path in sorted(TESTS.rglob("*.py")):
        if str(path.relative_to(TESTS)).startswith(UNTOLD):
            continue
        tree = ast.parse(path.read_text())
        around = words_in(tree)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found.append(Sight(name=node.name, path=path, words=words_in(node), around=around))
        found.append(Sight(name=path.name, path=path, words=around, around=around))
    return found


def words_in(tree: ast.AST) -> frozenset[str]:
    """Names of arguments and fields, and all words of texts."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg:
            found.add(node.arg)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.update(re.findall(r"\w+", node.value))
        elif isinstance(node, ast.Attribute | ast.Name):
            found.add(node.attr if isinstance(node, ast.Attribute) else node.id)
    return frozenset(found)


def test_that_sets(message: Message, field: str) -> tuple[str, Path] | None:
    """A test that speaks of the field and of what it is in, and best of the fields beside it, too."""
    spelt = {field, message.fields[field][0]}
    name = bare(message.name).replace(".", "")
    owners = {name, name.lower()} | {
        name
        for other in contract().values()
        for json, (attribute, _, child, *_) in other.fields.items()
        if child == message.name
        for name in (json, attribute)
    }
    beside = {word for json, (attribute, *_) in message.fields.items() for word in (json, attribute)}

    def fits(sight: Sight) -> tuple[bool, bool, int]:
        return sight.name == sight.path.name, not owners & sight.words, -len(beside & sight.words)

    seen = [each for each in sights() if spelt & each.words and owners & each.around]
    best = min(seen, key=fits, default=None)
    return (best.name, best.path) if best else None


def golden(path: Path) -> tuple[str, Path]:
    return path.name.removesuffix(".in.yaml"), path


# -- the page ---------------------------------------------------------------------------------------------

HEAD = """# Coverage

Every field of the contract, what comes of it, and what shows that. `pytest tests/test_coverage.py
--update-golden` writes this page; a test fails while it is out of date, and for a field that nothing shows.

A golden case is a pair of files: what goes in, and what comes out, which the real Envoy takes. The one that
is named has another result without the field.
"""


def page() -> str:
    """``docs/coverage.md``."""
    refused = list(below_refused())
    states = [row.state for rows in table().values() for row in rows]
    states += [state for name, _, state in refused for _ in contract()[name].fields]
    lines = [HEAD, "| State | Fields | A field of this state |", "|---|---|---|"]
    lines += [
        f"| {each.value[0]} | {states.count(each)} | {each.value[1]} |" for each in State if each in states
    ]
    lines += [f"| all | {len(states)} | |"]
    file = ""
    for name, rows in table().items():
        if contract()[name].file != file:
            file = contract()[name].file
            lines += ["", f"## [{file.removeprefix('protos/')}](../{file})"]
        lines += ["", f"### {bare(name)}", "", "| Field | State | Shown by |", "|---|---|---|"]
        lines += map(line_of, rows)
    lines += [
        "",
        "## Below fields that do nothing",
        "",
        "| Message | Fields | State | With |",
        "|---|---|---|---|",
    ]
    for name, way, state in refused:
        fields = ", ".join(map(code, contract()[name].fields))
        lines.append(f"| {bare(name)} | {fields} | {state.value[0]} | {code(way)} |")
    return "\n".join(lines) + "\n"


def line_of(row: Row) -> str:
    shown = [row.words.replace("|", "\\|")] if row.words else []
    if row.test is not None:
        name, path = row.test
        shown.append(f"[{name}](../{path.relative_to(REPOSITORY)})")
    return f"| {code(row.field)} | {row.state.value[0]} | {'; '.join(shown)} |"


def code(text: str) -> str:
    return f"`{text}`"
