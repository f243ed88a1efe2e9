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
from services.gateway.translator.model import GW, VS, Document, Head, Part, Traits
from shared.ref import Ref, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What stored Proxies hold of each gateway and virtual service, and who serves which domains."""

    parts: Mapping[Ref, Part] = field(default_factory=dict)
    heads: Mapping[Ref, Head] = field(default_factory=dict)
    before: Mapping[Ref, Mapping[Ref, Claims]] = field(default_factory=dict)


def restore(proxies: Mapping[str, Mapping[str, Any]]) -> Restored:
    """Take apart the Proxies in *proxies*, whole documents by name; what is not ours is passed over."""
    parts: dict[Ref, Part] = {}
    heads: dict[Ref, Head] = {}
    before: dict[Ref, dict[Ref, Claims]] = {}
    for name, document in sorted(proxies.items()):
        for listener in document.get("listeners", ()):
            gateway = next((source.ref for source in sources(listener) if source.kind == GW), None)
            if gateway is None:
                continue
            found = dict(_parts(name, listener))
            for ref, part in found.items():
                places = part.traits.places or frozenset()
                if ref in parts:
                    places |= parts[ref].traits.places or frozenset()
                parts[ref] = replace(part, traits=replace(part.traits, places=places))
            before.setdefault(gateway, {}).update({ref: part.traits.claims for ref, part in found.items()})
            served = (*heads[gateway].proxies, name) if gateway in heads else (name,)
            heads[gateway] = _head(listener, served, frozenset(found))
    return Restored(parts=parts, heads=heads, before=before)


def sources(document: Mapping[str, Any]) -> Iterator[Source]:
    """The objects that a listener, virtual host or route came from."""
    for source in (document.get("metadata") or {}).get("sources", ()):
        kind = source.get("kind", "").removeprefix("*v1.")
        yield Source(kind, Ref(source.get("namespace", ""), source.get("name", "")))


def _parts(proxy: str, listener: Mapping[str, Any]) -> Iterator[tuple[Ref, Part]]:
    ssl = dict(_ssl(listener))
    for host in listener.get("httpListener", {}).get("virtualHosts", ()):
        refs = [source.ref for source in sources(host) if source.kind == VS]
        for ref in refs:
            own = host if len(refs) == 1 else _share(host, ref, owns_options=ref == refs[-1])
            traits = Traits(
                labels={},
                domains=tuple(host.get("domains", ())),
                ssl=ssl.get(ref),
                has_options="options" in own,
                places=frozenset({(proxy, listener["name"])}),
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


def _ssl(listener: Mapping[str, Any]) -> Iterator[tuple[Ref, bytes]]:
    origins: Iterable[Mapping[str, Any]] = (listener.get("metadata") or {}).get("sslConfigurations", ())
    for config, origin in zip(listener.get("sslConfigurations", ()), origins, strict=False):
        body = orjson.dumps(config, option=orjson.OPT_SORT_KEYS)
        for source in sources({"metadata": origin}):
            yield source.ref, body


def _head(listener: Mapping[str, Any], proxies: tuple[str, ...], members: frozenset[Ref]) -> Head:
    apart = {"httpListener", "sslConfigurations", "metadata"}
    http = listener.get("httpListener")
    return Head(
        name=listener["name"],
        address=listener.get("bindAddress", ""),
        port=listener.get("bindPort", 0),
        ssl="sslConfigurations" in listener,
        proxies=proxies,
        members=members,
        listener={key: value for key, value in listener.items() if key not in apart},
        http=None if http is None else {key: value for key, value in http.items() if key != "virtualHosts"},
    )
