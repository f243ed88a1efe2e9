"""Objects and steps for tests of the gateway's translation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from services.gateway.inputs import KINDS as INPUTS
from services.gateway.translation import Changes, Translation
from services.gateway.translator.model import Rules
from shared.ref import Ref, Source
from shared.store.chunks import join
from shared.store.keys import Kind, key
from shared.store.objects import Stored, decode_value

ROOT = "gloo"
NAMESPACE = "gloo-system"
KINDS = {kind.name: kind for kind in INPUTS}


def stored(document: Mapping[str, Any] | bytes, source: Source, index: int = 1) -> Stored:
    """*document* as it would come out of Consul at *source*'s key."""
    raw = document if isinstance(document, bytes) else orjson.dumps(document)
    found = decode_value(ROOT, key(ROOT, KINDS[source.kind], source.ref), raw, index)
    assert found is not None
    return found


def source_of(kind: Kind | str, name: str) -> Source:
    """``source_of("VirtualService", "ns.name")``; without a namespace it is gloo-system."""
    namespace, dot, rest = name.partition(".")
    return Source(str(kind), Ref(namespace, rest) if dot else Ref(NAMESPACE, name))


def objects(documents: Iterable[Mapping[str, Any]]) -> list[Stored]:
    """Documents with a ``kind`` beside their fields; ``raw`` replaces the fields by a text of any sort."""
    found = []
    for given in documents:
        document = {name: value for name, value in given.items() if name not in ("kind", "raw")}
        metadata = document.setdefault("metadata", {})
        metadata.setdefault("namespace", NAMESPACE)
        source = Source(given["kind"], Ref(metadata["namespace"], metadata["name"]))
        found.append(stored(given["raw"].encode() if "raw" in given else document, source))
    return found


def apply(
    translation: Translation,
    put: Iterable[Mapping[str, Any]] = (),
    delete: Iterable[tuple[str, str]] = (),
    rules: Rules | None = None,
) -> set[Source]:
    changes = Changes()
    changes.add(objects(put), [source_of(kind, name) for kind, name in delete])
    return translation.update(changes, rules)


def documents(translation: Translation) -> dict[str, Any]:
    """The Proxies as whole documents."""
    found = {}
    for name, rendered in translation.render().items():
        lists: dict[str, list[Any]] = {}
        for part in rendered.parts:
            lists.setdefault(part.path, []).append(orjson.loads(part.body))
        found[name] = join(rendered.skeleton, lists)
    return found


def findings(translation: Translation) -> dict[str, dict[str, list[str]]]:
    """What was found, by object; objects without findings are left out."""
    found = {}
    for source in sorted(translation.objects):
        report = translation.report(source)
        told = {
            name: [str(problem) for problem in problems]
            for name, problems in (("errors", report.errors), ("warnings", report.warnings))
            if problems
        }
        if told:
            found[f"{source.kind} {source.ref}"] = told
    return found
