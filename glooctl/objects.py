"""The objects in Consul as documents: list, read, write by check-and-set, delete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glooctl.consul import Consul
from glooctl.errors import CommandError
from shared.codec import text
from shared.codec.decode import check
from shared.errors import InvalidDocument, InvalidResource
from shared.ref import Ref
from shared.report import Report
from shared.store import keys
from shared.store.keys import Kind

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """One object as it stands in Consul; *document* is what could be read of it."""

    kind: Kind
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
        for pair in self.consul.list(keys.prefix(self.root, kind, namespace or None)):
            parsed = keys.parse_key(self.root, pair.key)
            if parsed is not None:
                found.append(self._found(kind, parsed[1], pair.value, pair.index))
        return sorted(found, key=lambda one: one.ref)

    def find(self, kind: Kind, ref: Ref) -> Found | None:
        pair = self.consul.get(keys.key(self.root, kind, ref))
        return None if pair is None else self._found(kind, ref, pair.value, pair.index)

    def get(self, kind: Kind, ref: Ref) -> Found:
        found = self.find(kind, ref)
        if found is None:
            raise CommandError(f"{ref} does not exist: there is no {kind.name} of that name in Consul")
        return found

    def create(self, kind: Kind, document: Mapping[str, Any]) -> Found:
        return self._write(kind, document, 0, f"{kind.name} {_ref_of(document)} already exists")

    def replace(self, found: Found, document: Mapping[str, Any]) -> Found:
        """Write over *found*, unless somebody else has changed it meanwhile."""
        if found.problem:
            raise CommandError(f"{found.kind.name} {found.ref} cannot be edited: {found.problem}")
        clash = f"{found.kind.name} {found.ref} was changed by somebody else meanwhile; try again"
        return self._write(found.kind, document, found.index, clash)

    def delete(self, found: Found) -> None:
        if not self.consul.delete(keys.key(self.root, found.kind, found.ref), found.index):
            raise CommandError(
                f"{found.kind.name} {found.ref} was changed by somebody else meanwhile; try again"
            )

    def _write(self, kind: Kind, document: Mapping[str, Any], index: int, clash: str) -> Found:
        validate(kind, document)
        ref = _ref_of(document)
        raw = text.render(document).encode()
        if not self.consul.cas(keys.key(self.root, kind, ref), raw, index):
            raise CommandError(clash)
        return self.get(kind, ref)

    def _found(self, kind: Kind, ref: Ref, raw: bytes, index: int) -> Found:
        try:
            document = text.parse(raw)
        except InvalidDocument as error:
            return Found(kind, ref, _named(ref), raw, index, f"undecodable: {error}")
        if not isinstance(document, dict):
            return Found(kind, ref, _named(ref), raw, index, "undecodable: not a mapping")
        document.setdefault("metadata", {"name": ref.name, "namespace": ref.namespace})
        return Found(kind, ref, document, raw, index)


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
