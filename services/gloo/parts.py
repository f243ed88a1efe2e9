"""The parts of a resource: what of its bytes came from one object.

A route configuration falls into its virtual hosts, by name, and a frame around them (``WHOLE``). Every other
resource is one part. Bytes are cut and joined as they are; nothing is decoded or encoded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b
from types import MappingProxyType

from services.gloo.resources import ROUTES, Resource, TypeUrl, resource
from services.gloo.translator.virtual_host import VIRTUAL_HOSTS_FIELD
from shared.codec.encode import length_delimited

WHOLE = ""  # no virtual host is called so
NAME_FIELD, DOMAINS_FIELD = 1, 2  # of envoy.config.route.v3.VirtualHost
RECENT = 4  # route configurations whose parts are remembered


def parts_of(type_url: TypeUrl, body: bytes) -> Mapping[str, bytes]:
    """The parts of a resource in their order; *body* is one we encoded."""
    return _cut(body) if type_url == ROUTES else {WHOLE: body}


@lru_cache(RECENT)
def _cut(body: bytes) -> Mapping[str, bytes]:
    """A route configuration in parts; who thinks about a refusal asks for the same ones again and again."""
    frame: list[bytes] = []
    hosts: dict[str, bytes] = {}
    for number, start, value, end in _fields(body):
        if number == VIRTUAL_HOSTS_FIELD:
            host = body[value:end]
            hosts[next(_text(host, NAME_FIELD), "")] = host
        else:
            frame.append(body[start:end])
    return MappingProxyType({WHOLE: b"".join(frame), **hosts})


def joined(type_url: TypeUrl, like: Resource, parts: Mapping[str, bytes]) -> Resource:
    """The resource that *parts* make up; *like* gives its name and sources."""
    if type_url != ROUTES:
        return resource(like.name, parts[WHOLE], like.sources)
    frame = parts[WHOLE]
    cut = next((start for number, start, *_ in _fields(frame) if number > VIRTUAL_HOSTS_FIELD), len(frame))
    hosts = [length_delimited(VIRTUAL_HOSTS_FIELD, host) for name, host in parts.items() if name != WHOLE]
    body = b"".join([frame[:cut], *hosts, frame[cut:]])
    return like if body == like.body else resource(like.name, body, like.sources)


def part_digest(part: bytes) -> int:
    return int.from_bytes(blake2b(part, digest_size=8).digest(), "big")


def domains_of(host: bytes) -> list[str]:
    return list(_text(host, DOMAINS_FIELD))


def without_domains(host: bytes, taken: Collection[str]) -> bytes:
    """The virtual host less the domains that others serve by now; empty when none is left."""
    kept, left = [], False
    for number, start, value, end in _fields(host):
        if number == DOMAINS_FIELD:
            if host[value:end].decode().lower() in taken:
                continue
            left = True
        kept.append(host[start:end])
    return b"".join(kept) if left else b""


def _text(message: bytes, wanted: int) -> Iterator[str]:
    """The values of one field; fields stand in the order of their numbers."""
    for number, _, value, end in _fields(message):
        if number > wanted:
            return
        if number == wanted:
            yield message[value:end].decode()


def _fields(message: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Number, and where in *message* the field, its value and its end are."""
    at = 0
    while at < len(message):
        start = at
        key, at = _varint(message, at)
        value = at
        match key & 7:
            case 0:
                _, at = _varint(message, at)
            case 1:
                at += 8
            case 2:
                size, value = _varint(message, at)
                at = value + size
            case 5:
                at += 4
            case kind:
                raise ValueError(f"wire type {kind}")
        if at > len(message):
            raise ValueError("the message ends within a field")
        yield key >> 3, start, value, at


def _varint(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while (byte := message[at]) & 0x80:
        number |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
    return number | byte << shift, at + 1
