"""Which fields documents set, and whether it matters: what is shown by golden cases, field by field."""

from __future__ import annotations

import copy
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from protos._generated.schema import MESSAGES
from services.gloo.translator.supported import FIELDS_READ, PACKAGE, is_read
from tests.services.gloo.translator.test_golden import CASES
from tests.support.golden import translate_world

# Not for Envoy: who an object is, whom it came from, what was said of it, when.
NOT_FOR_ENVOY = {PACKAGE + name for name in ("Metadata", "Status", "NamespacedStatuses", "DiscoveryMetadata")}
KINDS = {"proxy": "Proxy", "virtualHost": "VirtualHost", "settings": "Settings"}
KINDS |= {"listenerOptions": "HttpListenerOptions"}
LISTS = {"routes": "Route", "upstreams": "Upstream", "upstreamGroups": "UpstreamGroup"}

Named = tuple[str, str]  # a message's full name and a field's
Way = tuple[Any, ...]
Place = tuple[Named, Way]


def places(document: Any, message: str, enter: Callable[[str, str], bool], at: Way = ()) -> Iterator[Place]:
    """Every known field that is set in *document*, and the way to it; *enter* says which to look into."""
    for name, value in document.items():
        if (field := MESSAGES[message].get(name)) is None:
            continue
        _, kind, child, _, shape = field
        yield (message, name), (*at, name)
        if kind == "message" and enter(message, name):
            for step, each in below(value, shape):
                yield from places(each, child, enter, (*at, name, *step))


def below(value: Any, shape: str) -> list[tuple[Way, Any]]:
    """The messages in a field, and the step to each of them."""
    if shape == "one":
        return [((), value)] if isinstance(value, dict) else []
    found = value.items() if shape == "map" else enumerate(value)
    return [((key,), each) for key, each in found if isinstance(each, dict)]


def without(case: Any, way: Way) -> Any:
    changed = copy.deepcopy(case)
    part = changed
    for step in way[:-1]:
        part = part[step]
    del part[way[-1]]
    return changed


@cache
def shown_by_golden_cases() -> Mapping[Named, Path]:
    """Of what gloo translates, the fields without which a golden case has another result."""
    cases = {path: load(path) for path in CASES}
    results: dict[Path, Any] = {}
    shown = {}
    for field, found in gathered(
        (path, place) for path, case in cases.items() for place in places_in_case(case)
    ):
        for path, way in found:
            if path not in results:
                results[path] = translate_world(cases[path])
            if translate_world(without(cases[path], way)) != results[path]:
                shown[field] = path
                break
    return shown


def gathered(found: Iterable[tuple[Path, Place]]) -> Iterator[tuple[Named, list[tuple[Path, Way]]]]:
    """The places of each field; last those of mistakes, first of the others those in cases named after it."""
    by_field: dict[Named, list[tuple[Path, Way]]] = defaultdict(list)
    for path, (field, way) in found:
        by_field[field].append((path, way))
    for field, several in by_field.items():
        yield (
            field,
            sorted(several, key=lambda each: (is_of_mistakes(each[0]), not named_after(each[0], field))),
        )


def is_of_mistakes(path: Path) -> bool:
    return any(word in path.name for word in ("broken", "bad", "mistake"))


def named_after(path: Path, field: Named) -> bool:
    """Whether a case's name begins like the field's or its message's."""
    words = re.sub(r"[^a-z]", "", path.name.partition(".")[0].lower())[:6]
    return any(words[:6] in name.lower() for name in field)


def places_in_case(case: Mapping[str, Any]) -> Iterator[Place]:
    for key, kind in KINDS.items():
        if key in case:
            yield from places(case[key], PACKAGE + kind, is_looked_into, (key,))
    for key, kind in LISTS.items():
        for i, document in enumerate(case.get(key, ())):
            yield from places(document, PACKAGE + kind, is_looked_into, (key, i))


def is_looked_into(message: str, field: str) -> bool:
    bare, child = message.removeprefix(PACKAGE), MESSAGES[message][field][2]
    return child not in NOT_FOR_ENVOY and (bare not in FIELDS_READ or is_read(bare, field))


def load(path: Path) -> Any:
    """A case with no part shared between two places, as YAML's anchors do."""
    return json.loads(json.dumps(yaml.safe_load(path.read_text())))
