"""One stored value as one object: decoded on its own, so that a broken value costs only itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from protos import gateway, gloo
from shared.codec.decode import decode
from shared.codec.text import parse
from shared.errors import InvalidDocument
from shared.ref import Ref, Source
from shared.report import Report
from shared.store.keys import Kind, parse_key

STATUS_FIELDS: Final = ("status", "namespacedStatuses", "namespaced_statuses")
_BOOKKEEPING = frozenset({"resourceVersion", "resource_version", "generation"})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stored:
    """An object as it stands in Consul.

    *document* is None when the text cannot be read at all; then no status can be written into it either.
    *message* is None whenever *report* has an error; whoever serves the object keeps its last good message.
    The message carries the object's reference, no status and no resource version: ``index`` is the version,
    ``status`` the status. *spec* is the document without what others than its author write.
    """

    kind: Kind
    ref: Ref
    key: str
    index: int
    raw: bytes = field(repr=False)
    document: Mapping[str, Any] | None = field(default=None, repr=False)
    spec: Mapping[str, Any] = field(default_factory=dict, repr=False)
    message: Any = field(default=None, repr=False)
    report: Report = field(default_factory=Report)

    @property
    def source(self) -> Source:
        return Source(self.kind.name, self.ref)

    def same_spec(self, other: Stored) -> bool:
        """True when only status or bookkeeping lies between the two, and nothing is to be translated anew."""
        if self.document is None or other.document is None:
            return self.raw == other.raw
        return self.spec is other.spec or (
            (self.message is None) == (other.message is None) and self.spec == other.spec
        )

    def status(self, namespace: str) -> Mapping[str, Any]:
        """The status as written, empty when there is none; *namespace* picks among namespaced ones."""
        document = self.document or {}
        namespaced = document.get("namespacedStatuses", document.get("namespaced_statuses"))
        if isinstance(namespaced, Mapping):
            statuses = namespaced.get("statuses")
            status = statuses.get(namespace) if isinstance(statuses, Mapping) else None
        else:
            status = document.get("status")
        return status if isinstance(status, Mapping) else {}


def decode_value(
    root: str, key: str, raw: bytes, index: int, *, previous: Stored | None = None
) -> Stored | None:
    """The object at *key*; None when key and value together name no object.

    *previous* is what stood at the key before: its message is kept when only the status has changed.
    """
    if (meant := parse_key(root, key)) is None:
        return None
    kind, ref = meant
    report = Report()
    document: Mapping[str, Any] | None = None
    try:
        document = read_document(raw)
    except InvalidDocument as invalid:
        report.error("", f"cannot be read: {invalid}")
    if document is not None:
        ref = identify(ref, document, report)
    if not ref.name:
        return None
    stored = Stored(kind=kind, ref=ref, key=key, index=index, raw=raw, document=document, report=report)
    return stored if document is None else _decoded(stored, document, previous)


def read_document(raw: bytes) -> Mapping[str, Any]:
    """The document in *raw*; raises ``InvalidDocument``, too when it is a list, a scalar or nothing."""
    if not raw.strip():
        raise InvalidDocument("the value is empty")
    document = parse(raw)
    if not isinstance(document, dict):
        raise InvalidDocument(f"expected an object with fields, got {_called(document)}")
    return document


def spec_of(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The author's part of *document*: no status, no resource version, no generation."""
    spec = {name: value for name, value in document.items() if name not in STATUS_FIELDS}
    if isinstance(metadata := spec.get("metadata"), dict):
        spec["metadata"] = {name: value for name, value in metadata.items() if name not in _BOOKKEEPING}
    return spec


def identify(ref: Ref, document: Mapping[str, Any], report: Report) -> Ref:
    """The object's reference: the key's, and where the key has no name the one in the metadata."""
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        return ref
    name, namespace = metadata.get("name"), metadata.get("namespace")
    if not ref.name and isinstance(name, str) and "/" not in name:
        ref = Ref(ref.namespace, name)
    for path, said, meant in (("name", name, ref.name), ("namespace", namespace, ref.namespace)):
        if said and said != meant:
            report.warn(f"metadata.{path}", f"is {said!r}, but the key says {meant!r}, and that counts")
    return ref


def message_class(kind: Kind) -> type[Any]:
    """The class that *kind*'s documents are decoded to."""
    module = gateway if kind.group == "gateway.solo.io" else gloo
    found: type[Any] = getattr(module, kind.name)
    return found


def _decoded(stored: Stored, document: Mapping[str, Any], previous: Stored | None) -> Stored:
    spec = spec_of(document)
    if previous is not None and previous.ref == stored.ref and previous.spec == spec:
        return replace(stored, spec=previous.spec, message=previous.message, report=previous.report)
    message = decode(message_class(stored.kind), spec, stored.report)
    if message is not None:
        metadata = message.metadata or gloo.Metadata()
        metadata.name, metadata.namespace = stored.ref.name, stored.ref.namespace
        message.metadata = metadata
    return replace(stored, spec=spec, message=message)


def _called(value: object) -> str:
    """What people call *value*'s type in a document."""
    names = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return "nothing" if value is None else names.get(type(value), f"a {type(value).__name__}")
