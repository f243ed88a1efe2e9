"""A stored Proxy taken apart again: the last good versions of a gateway that was restarted.

Virtual hosts, routes and listeners name the objects they came from; an object that is wrong now, and of
which this process never saw a good version, goes on serving what the Proxy holds of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from services.gateway.translator.conflicts import Claims
from services.gateway.translator.model import (
    GW,
    VS,
    Document,
    Head,
    Part,
    Place,
    Section,
    Step,
    Traits,
)
from services.gateway.translator.proxy import Before
from shared.ref import Ref, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What stored Proxies hold of each gateway and virtual service, and who serves which domains."""

    parts: Mapping[Ref, Part] = field(default_factory=dict)
    heads: Mapping[Ref, Head] = field(default_factory=dict)
    before: Before = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """A listener, or a matched one of several, with its metadata."""

    matched: Mapping[str, Any]
    metadata: Mapping[str, Any]
    key: str = ""

    @property
    def hosts(self) -> Iterable[Mapping[str, Any]]:
        hosts: Iterable[Mapping[str, Any]] = self.matched.get("httpListener", {}).get("virtualHosts", ())
        return hosts


def restore(proxies: Mapping[str, Mapping[str, Any]]) -> Restored:
    """Take apart the Proxies in *proxies*, whole documents by name; what is not ours is passed over."""
    parts: dict[Ref, Part] = {}
    heads: dict[Ref, Head] = {}
    before: dict[tuple[Ref, str], dict[Ref, Claims]] = {}
    for name, document in sorted(proxies.items()):
        for listener in document.get("listeners", ()):
            gateway = next((source.ref for source in sources(listener) if source.kind == GW), None)
            if gateway is None:
                continue
            before.setdefault((gateway, ""), {})
            sections = []
            for stored in _stored(listener):
                found = dict(_parts((name, listener["name"], stored.key), stored))
                for ref, part in found.items():
                    places = part.traits.places or frozenset()
                    if ref in parts:
                        places |= parts[ref].traits.places or frozenset()
                    parts[ref] = replace(part, traits=replace(part.traits, places=places))
                claims = {ref: part.traits.claims for ref, part in found.items()}
                before.setdefault((gateway, stored.key), {}).update(claims)
                sections.append(_section(stored, frozenset(found)))
            served = (*heads[gateway].proxies, name) if gateway in heads else (name,)
            heads[gateway] = _head(listener, served, tuple(sections))
    return Restored(parts=parts, heads=heads, before=before)


def _stored(listener: Mapping[str, Any]) -> Iterator[_Stored]:
    """What of a listener takes connections: all of it, or its matched listeners."""
    metadata = listener.get("metadata") or {}
    if "hybridListener" not in listener:
        names = ("httpListener", "tcpListener", "udpListener", "sslConfigurations")
        yield _Stored(matched={name: listener[name] for name in names if name in listener}, metadata=metadata)
        return
    matched = listener["hybridListener"].get("matchedListeners", ())
    for each, told in zip(matched, metadata.get("matchedListeners", ()), strict=False):
        steps = _steps(told)
        key = steps[-1].path if steps[-1].source.kind == GW else str(steps[-1].source)
        yield _Stored(matched=each, metadata=told, key=key)


def sources(document: Mapping[str, Any]) -> Iterator[Source]:
    """The objects that a listener, virtual host or route came from."""
    return (step.source for step in _steps(document.get("metadata") or {}))


def _steps(metadata: Mapping[str, Any]) -> tuple[Step, ...]:
    return tuple(
        Step(
            Source(
                source.get("kind", "").removeprefix("*v1."),
                Ref(source.get("namespace", ""), source.get("name", "")),
            ),
            source.get("path", ""),
        )
        for source in metadata.get("sources", ())
    )


def _parts(place: Place, stored: _Stored) -> Iterator[tuple[Ref, Part]]:
    ssl = dict(_ssl(stored))
    for host in stored.hosts:
        refs = [source.ref for source in sources(host) if source.kind == VS]
        for ref in refs:
            own = host if len(refs) == 1 else _share(host, ref, owns_options=ref == refs[-1])
            traits = Traits(
                labels={},
                domains=tuple(host.get("domains", ())),
                ssl=ssl.get(ref),
                has_options="options" in own,
                places=frozenset({place}),
            )
            yield ref, Part(traits=traits, body=orjson.dumps(own))


def _share(host: Mapping[str, Any], ref: Ref, *, owns_options: bool) -> Document:
    """What one of several virtual services has in a merged virtual host."""
    mine = Source(VS, ref)
    kept = [
        source
        for source in host["metadata"]["sources"]
        if mine in sources({"metadata": {"sources": [source]}})
    ]
    document: Document = {"name": str(ref), "domains": host["domains"]}
    document["routes"] = [route for route in host.get("routes", ()) if next(sources(route), None) == mine]
    if owns_options and "options" in host:
        document["options"] = host["options"]
    document["metadata"] = {"sources": kept}
    return document


def _ssl(stored: _Stored) -> Iterator[tuple[Ref, bytes]]:
    origins: Iterable[Mapping[str, Any]] = stored.metadata.get("sslConfigurations", ())
    for config, origin in zip(stored.matched.get("sslConfigurations", ()), origins, strict=False):
        body = orjson.dumps(config, option=orjson.OPT_SORT_KEYS)
        for step in _steps(origin):
            yield step.source.ref, body


def _section(stored: _Stored, members: frozenset[Ref]) -> Section:
    matched = {name: part for name, part in stored.matched.items() if name != "sslConfigurations"}
    if "httpListener" in matched:
        http = matched["httpListener"]
        matched["httpListener"] = {name: http[name] for name in http if name != "virtualHosts"}
    return Section(
        key=stored.key,
        steps=_steps(stored.metadata),
        ssl="sslConfigurations" in stored.matched,
        members=members,
        matched=matched,
        lent=tuple(stored.metadata.get("options", ())),
    )


def _head(listener: Mapping[str, Any], proxies: tuple[str, ...], sections: tuple[Section, ...]) -> Head:
    apart = {"httpListener", "tcpListener", "udpListener", "hybridListener", "sslConfigurations", "metadata"}
    hybrid = "hybridListener" in listener
    return Head(
        name=listener["name"],
        address=listener.get("bindAddress", ""),
        port=listener.get("bindPort", 0),
        proxies=proxies,
        hybrid=hybrid,
        listener={key: value for key, value in listener.items() if key not in apart},
        lent=tuple(listener["metadata"].get("options", ())) if hybrid else (),
        sections=sections,
    )
