"""One stored value as one object: decoded on its own, so that a broken value costs only itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, ParamSpec, TypeVar

from protos import gateway, gloo
from shared.codec.decode import decode
from shared.codec.text import parse
from shared.errors import InvalidDocument, InvalidResource
from shared.ref import Ref, Source
from shared.report import Report
from shared.store.chunks import ChunkReader, MissingChunk, is_manifest
from shared.store.keys import PROXY, Kind, parse_key
from shared.store.reuse import reuse
from shared.store.spec import fingerprint, spec_of, status_in

LONG_BYTES: Final = 20_000
"""What takes some milliseconds to read or to change as YAML."""
LONG_TO_DECODE: Final = 100_000
JSON_IS_FASTER: Final = 2

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stored:
    """An object as it stands in Consul.

    *document* is None when the text cannot be read at all; then no status can be written into it either.
    *message* is None whenever *report* has an error; whoever serves the object keeps its last good message.
    The message carries the object's reference, no status and no resource version: ``index`` is the version,
    ``status`` the status. *spec* is the document without what others than its author write; *body* is what
    the message was made of: the spec, but for a large Proxy, of which only a manifest stands at the key.

    Messages are shared between versions of an object and must not be changed.
    """

    kind: Kind
    ref: Ref
    key: str
    index: int
    raw: bytes = field(repr=False)
    document: Mapping[str, Any] | None = field(default=None, repr=False)
    spec: Mapping[str, Any] = field(default_factory=dict, repr=False)
    body: Mapping[str, Any] = field(default_factory=dict, repr=False)
    message: Any = field(default=None, repr=False)
    report: Report = field(default_factory=Report)

    @property
    def source(self) -> Source:
        return Source(self.kind.name, self.ref)

    def same_spec(self, other: Stored) -> bool:
        """True when only status or bookkeeping lies between the two, and nothing is to be translated anew."""
        if self.document is None or other.document is None:
            return self.raw == other.raw
        return self.spec is other.spec or self.spec == other.spec

    def status(self, namespace: str) -> Mapping[str, Any]:
        """The status as written, empty when there is none; *namespace* picks among namespaced ones."""
        return status_in(self.document or {}, namespace)

    @property
    def fingerprint(self) -> str:
        """What a status names this version by."""
        return fingerprint(self.spec)


def decode_value(
    root: str, key: str, raw: bytes, index: int, *, previous: Stored | None = None
) -> Stored | None:
    """The object at *key* with its message; None when key and value together name no object.

    *previous* is what stood at the key before; what has not changed since is not decoded again.
    """
    stored = read_value(root, key, raw, index)
    return stored and with_message(stored, previous)


def read_value(root: str, key: str, raw: bytes, index: int) -> Stored | None:
    """The object at *key*, read but not yet checked against its schema; None when it is no object."""
    if (meant := parse_key(root, key)) is None:
        return None
    kind, ref = meant
    report = Report()
    try:
        document = parse(raw)
    except InvalidDocument as invalid:
        report.error("", f"cannot be read: {invalid}")
        return Stored(kind=kind, ref=ref, key=key, index=index, raw=raw, report=report) if ref.name else None
    if not (ref := identify(ref, document, report)).name:
        return None
    spec = spec_of(document)
    return Stored(
        kind=kind, ref=ref, key=key, index=index, raw=raw, document=document, spec=spec, report=report
    )


def with_message(
    stored: Stored, previous: Stored | None = None, whole: Mapping[str, Any] | None = None
) -> Stored:
    """*stored* with its message; *whole* is the document to decode where the stored one is a manifest.

    What has not changed since *previous* is not decoded again.
    """
    if stored.document is None:
        return stored
    body, report = whole or stored.spec, stored.report
    document: Mapping[str, Any] = body
    if previous is not None and previous.ref == stored.ref:
        if previous.spec == stored.spec and (previous.message is not None or not whole):
            return replace(
                stored,
                spec=previous.spec,
                body=previous.body,
                message=previous.message,
                report=previous.report,
            )
        if previous.message is not None and previous.report.clean:
            document = reuse(dict(body), previous.body, previous.message)
    message = decode(message_class(stored.kind), document, report)
    if message is not None:
        metadata = message.metadata or gloo.Metadata()
        message.metadata = replace(metadata, name=stored.ref.name, namespace=stored.ref.namespace)
    return replace(stored, body=body, message=message)


async def complete(stored: Stored, chunks: ChunkReader, previous: Stored | None = None) -> Stored:
    """``with_message``, after reading the chunks of a large Proxy."""
    manifest = stored.document is not None and stored.kind is PROXY and is_manifest(stored.document)
    known = previous is not None and previous.message is not None and previous.same_spec(stored)
    if not manifest or known:
        return await _decode(stored, previous)
    try:
        whole = await chunks.read(stored.ref, stored.spec)
    except (MissingChunk, InvalidResource) as error:
        stored.report.error("", str(error))
        return stored
    return await _decode(stored, previous, whole, new_bytes=chunks.read_bytes)


async def _decode(
    stored: Stored, previous: Stored | None, whole: Mapping[str, Any] | None = None, *, new_bytes: int = 0
) -> Stored:
    """``with_message``, in a thread when there is much to decode that *previous* has no message of."""
    known = previous is not None and previous.message is not None
    much = new_bytes if known else len(stored.raw) if whole is None else LONG_TO_DECODE + 1
    if much <= LONG_TO_DECODE:
        return with_message(stored, previous, whole)
    return await asyncio.to_thread(with_message, stored, previous, whole)


async def aside(raw: bytes, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """Do *work* on the text *raw*, in a thread when that takes long: the rest of the process goes on."""
    cost = len(raw) // JSON_IS_FASTER if raw.startswith(b"{") else len(raw)
    return work(*args, **named) if cost <= LONG_BYTES else await asyncio.to_thread(work, *args, **named)


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
