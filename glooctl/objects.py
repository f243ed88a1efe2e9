"""The objects in Consul as documents: list, read, write by check-and-set, delete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glooctl.consul import Consul, Pair
from glooctl.errors import CommandError
from shared.codec import text
from shared.codec.canonical import canonical
from shared.codec.decode import check
from shared.errors import InvalidDocument, InvalidResource
from shared.ref import Ref
from shared.report import Report
from shared.store import keys
from shared.store.keys import Kind

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """One object as it stands in Consul; *document* is what could be read of it, in today's words."""

    kind: Kind
    key: str
    ref: Ref
    document: Document
    raw: bytes
    index: int
    problem: str = ""


class Objects:
    """The objects below one root key."""

    def __init__(self, consul: Consul, root: str) -> None:
        self.consul = consul
        self.root = root

    def list(self, kind: Kind, namespace: str = "") -> Sequence[Found]:
        """All objects of *kind*, by namespace and name; undecodable ones carry a *problem*."""
        found = []
        for pair in self.consul.list(keys.prefix(self.root, kind)):
            parsed = keys.parse_key(self.root, pair.key)
            if parsed is not None and parsed[1].namespace == (namespace or parsed[1].namespace):
                found.append(_found(kind, parsed[1], pair))
        return sorted(found, key=lambda one: one.ref)

    def find(self, kind: Kind, ref: Ref) -> Found | None:
        """The object *ref*; one whose key ends with the namespace has its name in its value alone."""
        if pair := self.consul.get(keys.key(self.root, kind, ref)):
            return _found(kind, ref, pair)
        if pair := self.consul.get(keys.prefix(self.root, kind, ref.namespace).rstrip("/")):
            nameless = _found(kind, Ref(ref.namespace, ""), pair)
            return nameless if nameless.ref == ref else None
        return None

    def get(self, kind: Kind, ref: Ref) -> Found:
        found = self.find(kind, ref)
        if found is None:
            raise CommandError(f"{ref} does not exist: there is no {kind.name} of that name in Consul")
        return found

    def create(self, kind: Kind, document: Mapping[str, Any]) -> Found:
        validate(kind, document)
        ref = _ref_of(document)
        key, raw = keys.key(self.root, kind, ref), text.render(document).encode()
        return self._write(kind, ref, key, raw, 0, f"{kind.name} {ref} already exists")

    def replace(self, found: Found, document: Mapping[str, Any], raw: bytes | None = None) -> Found:
        """Write over *found*, unless somebody else has changed it meanwhile; *raw* is the author's own text
        of the document."""
        if found.problem:
            raise CommandError(f"{found.kind.name} {found.ref} cannot be edited: {found.problem}")
        validate(found.kind, document)
        raw = text.render(document).encode() if raw is None else raw
        return self._write(found.kind, found.ref, found.key, raw, found.index, _changed(found))

    def delete(self, found: Found) -> None:
        if not self.consul.delete(found.key, found.index):
            raise CommandError(_changed(found))

    def _write(self, kind: Kind, ref: Ref, key: str, raw: bytes, index: int, clash: str) -> Found:
        if not self.consul.cas(key, raw, index):
            raise CommandError(clash)
        return self.get(kind, ref)


def _found(kind: Kind, ref: Ref, pair: Pair) -> Found:
    try:
        document = canonical(kind.message, text.parse(pair.value))
    except InvalidDocument as error:
        problem = f"undecodable: {error}"
        return Found(kind, pair.key, ref, _named(ref), pair.value, pair.index, problem)
    metadata = document.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    ref = ref if ref.name else Ref(ref.namespace, str(metadata.get("name") or ""))
    document["metadata"] = _named(ref)["metadata"] | metadata
    return Found(kind, pair.key, ref, document, pair.value, pair.index)


def _changed(found: Found) -> str:
    return f"{found.kind.name} {found.ref} was changed by somebody else meanwhile; try again"


def validate(kind: Kind, document: Mapping[str, Any]) -> None:
    """Refuse a document that the services would refuse for its form; all that is wrong is named."""
    report = Report()
    check(kind.message, dict(document), report)
    problems = [str(problem) for problem in report.errors]
    try:
        keys.check_ref(_ref_of(document))
    except InvalidResource as error:
        problems.append(str(error))
    if problems:
        raise CommandError(f"{kind.name} is not valid: " + "; ".join(problems))


def _ref_of(document: Mapping[str, Any]) -> Ref:
    metadata = document.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    return Ref(str(metadata.get("namespace") or ""), str(metadata.get("name") or ""))


def _named(ref: Ref) -> Document:
    return {"metadata": {"name": ref.name, "namespace": ref.namespace}}
