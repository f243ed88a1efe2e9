"""Proxies put together from a plan and the parts of virtual services, at the cost of what changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import orjson

from services.gateway.translator.conflicts import Host
from services.gateway.translator.model import Document, Part
from services.gateway.translator.proxy import Plan
from services.gateway.translator.render import merge_hosts, render_listener
from shared.ref import Ref
from shared.store import large

CREATED_BY = {"created_by": "gateway"}
"""The label of the Proxies that are ours to change and to delete."""
CONFIGURATIONS = "sslConfigurations"
FEW = 16  # of them stay where they are

_PATH = "listeners[{}].httpListener.virtualHosts"
_MATCHED_PATH = "listeners[{}].hybridListener.matchedListeners[{}].httpListener.virtualHosts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A Proxy ready to be written: all but its long lists, of virtual hosts above all, and their members as
    JSON."""

    skeleton: Document
    parts: tuple[large.Part, ...]


@dataclass(slots=True)
class _Sheet:
    """One Proxy being composed: a slot for each virtual host, and what is in it."""

    skeleton: Document
    slots: list[tuple[str, Host]]
    parts: list[large.Part]


class Composition:
    """Keeps the Proxies of the last plan; *namespace* is where they are."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._plan: Plan | None = None
        self._sheets: dict[str, _Sheet] = {}
        self._places: defaultdict[Ref, list[tuple[_Sheet, int]]] = defaultdict(list)
        self._merged: dict[tuple[str, tuple[bytes, ...]], bytes] = {}

    def compose(self, plan: Plan, parts: Mapping[Ref, Part], edited: Iterable[Ref]) -> dict[str, Rendered]:
        """The Proxies of *plan* by name; *edited* are the virtual services whose part is another."""
        if plan is not self._plan:
            self._lay_out(plan, parts)
        else:
            for ref in edited:
                for sheet, slot in self._places.get(ref, ()):
                    path, host = sheet.slots[slot]
                    sheet.parts[slot] = large.Part(path, self._body(host, parts, self._merged))
        return {
            name: Rendered(skeleton=sheet.skeleton, parts=tuple(sheet.parts))
            for name, sheet in self._sheets.items()
        }

    def _lay_out(self, plan: Plan, parts: Mapping[Ref, Part]) -> None:
        before, self._merged = self._merged, {}
        self._plan = plan
        self._sheets.clear()
        self._places.clear()
        for name, listeners in plan.proxies.items():
            metadata = {"name": name, "namespace": self._namespace, "labels": CREATED_BY}
            skeleton = {"metadata": metadata, "listeners": [render_listener(each) for each in listeners]}
            slots = [
                ((_MATCHED_PATH if listener.head.hybrid else _PATH).format(i, j), host)
                for i, listener in enumerate(listeners)
                for j, placed in enumerate(listener.placed)
                for host in placed.hosts
            ]
            hosts = [large.Part(path, self._body(host, parts, before)) for path, host in slots]
            sheet = _Sheet(skeleton, slots, [*hosts, *_set_aside(skeleton)])
            self._sheets[name] = sheet
            for slot, (_, host) in enumerate(slots):
                for ref in host.members:
                    self._places[ref].append((sheet, slot))

    def _body(
        self, host: Host, parts: Mapping[Ref, Part], known: Mapping[tuple[str, tuple[bytes, ...]], bytes]
    ) -> bytes:
        bodies = tuple(parts[ref].body for ref in host.members)
        if len(bodies) == 1:
            return bodies[0]
        key = (host.name, bodies)
        self._merged[key] = known.get(key) or merge_hosts(host.name, bodies)
        return self._merged[key]


def _set_aside(skeleton: Document) -> Iterator[large.Part]:
    """Take the TLS configurations, and whose they are, out of *skeleton* where there are many of them: it is
    written again with every edit."""
    for i, listener in enumerate(skeleton["listeners"]):
        origin, at = listener["metadata"], f"listeners[{i}]"
        matched = listener.get("hybridListener", {}).get("matchedListeners", ())
        holders = [(at, listener), (f"{at}.metadata", origin)]
        holders += [(f"{at}.hybridListener.matchedListeners[{j}]", each) for j, each in enumerate(matched)]
        told = origin.get("matchedListeners", ())
        holders += [(f"{at}.metadata.matchedListeners[{j}]", each) for j, each in enumerate(told)]
        for path, holder in holders:
            if len(holder.get(CONFIGURATIONS, ())) > FEW:
                for each in holder.pop(CONFIGURATIONS):
                    yield large.Part(f"{path}.{CONFIGURATIONS}", orjson.dumps(each))
