"""The bytes of the discovery protocol: requests read, responses joined from bytes that exist already.

Only the fields we use are read: an Envoy's first request carries tens of kilobytes about its extensions,
which would cost tens of milliseconds a client to decode in full. A response is never encoded again: its
head and tail are put around the resources' bodies.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain

from services.gloo.resources import MODULUS
from services.gloo.xds.subscription import DeltaRequest, Node, Push, SotwRequest
from shared.incremental.units import Steps, at_once

LONGEST_NAME = 1_024  # of a node and a type, which are kept as long as the stream is
STEP = 256  # fields of a request that are read at once


class Malformed(Exception):
    """Bytes that are not the message they should be, or more of it than is allowed."""


@lru_cache(1 << 14)
def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def delimited(field: int, value: bytes) -> bytes:
    """A length-delimited field: a string, bytes or a message."""
    return varint(field << 3 | 2) + varint(len(value)) + value


# --- responses --------------------------------------------------------------------------------------------


def sotw_parts(push: Push, nonce: str) -> Iterator[bytes]:
    """A DiscoveryResponse: version_info 1, resources 2 (Any), type_url 4, nonce 5."""
    type_url = push.type_url.encode()
    typed = delimited(1, type_url)
    yield delimited(1, push.version.encode())
    for resource in push.resources:
        yield from _any(typed, resource.body)
    yield delimited(4, type_url) + delimited(5, nonce.encode())


def delta_parts(push: Push, nonce: str) -> Iterator[bytes]:
    """A DeltaDiscoveryResponse: system_version_info 1, resources 2 {version 1, resource 2, name 3},
    type_url 4, nonce 5, removed_resources 6."""
    type_url = push.type_url.encode()
    typed = delimited(1, type_url)
    yield delimited(1, push.version.encode())
    for resource in push.resources:
        head, body = _any(typed, resource.body)
        head = delimited(3, resource.name.encode()) + delimited(1, resource.version.encode()) + head
        yield b"\x12" + varint(len(head) + len(body)) + head
        yield body
    yield delimited(4, type_url) + delimited(5, nonce.encode())
    yield from (delimited(6, name.encode()) for name in push.removed)


def _any(typed: bytes, body: bytes) -> tuple[bytes, bytes]:
    """Field 2 holding an Any, its type URL in *typed*; in two parts so that *body* is not copied before the
    join."""
    head = typed + b"\x12" + varint(len(body))
    return b"\x12" + varint(len(head) + len(body)) + head, body


def framed(parts: Iterable[bytes]) -> bytes:
    """One gRPC message, not compressed, with its five bytes of frame."""
    message = tuple(parts)
    return b"".join(chain((b"\0" + sum(map(len, message)).to_bytes(4, "big"),), message))


class Frames:
    """Framed responses, shared by all streams that are due the same one.

    A nonce need be unique on its stream only, so a shared response carries a shared nonce. Nonces come from
    one counter; a stream that has seen a response's nonce already gets a new one (*newer_than*).
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._last = 0
        self._kept: OrderedDict[tuple[object, ...], tuple[int, bytes]] = OrderedDict()

    def frame(self, push: Push, *, delta: bool, newer_than: int) -> tuple[int, bytes]:
        content = 0 if push.complete else sum(r.digest for r in push.resources) % MODULUS
        key = (push.type_url, delta, push.version, content, len(push.resources), push.removed)
        if (kept := self._kept.get(key)) and kept[0] > newer_than:
            self._kept.move_to_end(key)
            return kept
        self._last += 1
        fresh = self._last, framed((delta_parts if delta else sotw_parts)(push, str(self._last)))
        self._keep(key, fresh)
        return fresh

    def _keep(self, key: tuple[object, ...], fresh: tuple[int, bytes]) -> None:
        if old := self._kept.pop(key, None):
            self._size -= len(old[1])
        self._kept[key] = fresh
        self._size += len(fresh[1])
        while self._size > self._limit or len(self._kept) > 256:
            _, (_, dropped) = self._kept.popitem(last=False)
            self._size -= len(dropped)


# --- requests ---------------------------------------------------------------------------------------------


@lru_cache(256)
def read_sotw(data: bytes, max_names: int) -> SotwRequest:
    """A request at once. A response that streams share is acknowledged in the same words on many of them."""
    return at_once(sotw_steps(data, max_names))


@lru_cache(256)
def read_delta(data: bytes, max_names: int) -> DeltaRequest:
    return at_once(delta_steps(data, max_names))


def sotw_steps(data: bytes, max_names: int) -> Steps[SotwRequest]:
    """A DiscoveryRequest: version_info 1, node 2, resource_names 3, type_url 4, response_nonce 5,
    error_detail 6, resource_locators 7 {name 1}."""
    names: list[str] = []
    version = type_url = nonce = ""
    node: Node | None = None
    error: str | None = None
    for number, (field, value) in enumerate(fields(data), 1):
        if number % STEP == 0:
            yield
        match field:
            case 1:
                version = _text(value)
            case 2:
                node = _node(value)
            case 3:
                names.append(_text(value))
            case 4:
                type_url = _text(value)
            case 5:
                nonce = _text(value)
            case 6:
                error = _string(value, 2)
            case 7:
                names.append(_string(value, 1))
        _check(len(names), max_names)
    return SotwRequest(
        type_url=type_url, version=version, names=frozenset(names), nonce=nonce, error=error, node=node
    )


def delta_steps(data: bytes, max_names: int) -> Steps[DeltaRequest]:
    """A DeltaDiscoveryRequest: node 1, type_url 2, subscribe 3, unsubscribe 4, initial_resource_versions 5,
    response_nonce 6, error_detail 7, locators to subscribe 8 and unsubscribe 9."""
    subscribe: list[str] = []
    unsubscribe: list[str] = []
    versions: dict[str, str] = {}
    type_url = nonce = ""
    node: Node | None = None
    error: str | None = None
    for number, (field, value) in enumerate(fields(data), 1):
        if number % STEP == 0:
            yield
        match field:
            case 1:
                node = _node(value)
            case 2:
                type_url = _text(value)
            case 3:
                subscribe.append(_text(value))
            case 4:
                unsubscribe.append(_text(value))
            case 5:
                versions[_string(value, 1)] = _string(value, 2)
            case 6:
                nonce = _text(value)
            case 7:
                error = _string(value, 2)
            case 8:
                subscribe.append(_string(value, 1))
            case 9:
                unsubscribe.append(_string(value, 1))
        _check(len(subscribe) + len(unsubscribe), max_names)
        _check(len(versions), max_names)
    return DeltaRequest(
        type_url=type_url,
        subscribe=tuple(subscribe),
        unsubscribe=tuple(unsubscribe),
        versions=versions,
        nonce=nonce,
        error=error,
        node=node,
    )


def _node(value: int | bytes) -> Node:
    """A Node: id 1, cluster 2, metadata 3; of the metadata (a Struct) its string ``role``."""
    found = {1: "", 2: ""}
    role = ""
    for field, part in fields(_bytes(value)):
        if field in found:
            found[field] = _text(part)
        elif field == 3:
            role = _role(part) or role
    if max(map(len, (*found.values(), role))) > LONGEST_NAME:
        raise TooMany(f"node.id, node.cluster and node.metadata.role are at most {LONGEST_NAME} characters")
    return Node(id=found[1], cluster=found[2], role=role)


def _role(metadata: int | bytes) -> str:
    for field, entry in fields(_bytes(metadata)):
        if field != 1 or _string(entry, 1) != "role":
            continue
        for number, value in fields(_bytes(entry)):
            if number == 2:
                return _string(value, 3)
    return ""


def _string(message: int | bytes, wanted: int) -> str:
    """The string field *wanted* of *message*; the last one counts."""
    found = ""
    for field, value in fields(_bytes(message)):
        if field == wanted:
            found = _text(value)
    return found


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of an encoded message, by number; ``Malformed`` where it is none."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        match key & 7:
            case 0:
                number, at = _varint(data, at)
                yield key >> 3, number
                continue
            case 1:
                size = 8
            case 2:
                size, at = _varint(data, at)
            case 5:
                size = 4
            case kind:
                raise Malformed(f"wire type {kind}")
        if at + size > end:
            raise Malformed("the message ends within a field")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    try:
        while (byte := data[at]) & 0x80:
            number |= (byte & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if shift > 63:
                raise Malformed("a number of more than ten bytes")
    except IndexError:
        raise Malformed("the message ends within a number") from None
    return number | byte << shift, at + 1


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise Malformed("a number where a message belongs")
    return value


def _text(value: int | bytes) -> str:
    try:
        return _bytes(value).decode()
    except UnicodeDecodeError as error:
        raise Malformed("a string that is not UTF-8") from error


def _check(count: int, limit: int) -> None:
    if count > limit:
        raise TooMany(f"more than {limit} names in one request")


class TooMany(Malformed):
    """A request that names more than a client may ask for."""


def mentions(body: bytes, names: Sequence[bytes], budget: int = 50_000_000) -> bool:
    """Whether an encoded message holds one of *names* as a string: its length, then its bytes.

    Over *budget* byte comparisons the answer is yes, the careful one.
    """
    if len(body) * len(names) > budget:
        return True
    return any(varint(len(name)) + name in body for name in names)
