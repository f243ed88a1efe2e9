"""What the gateway looks at: the objects people write, and the Proxies as they are stored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.gateway.composition import CREATED_BY
from services.gateway.translation import Changes
from services.gateway.translator.model import GW
from shared.codec.text import parse
from shared.consul.blocking import PrefixChange, WatchOptions, WatchState, watch_prefix
from shared.consul.client import Consul
from shared.consul.operations import Row
from shared.consul.polling import Holding
from shared.errors import InvalidDocument
from shared.ref import Source
from shared.store.keys import (
    GATEWAY,
    HTTP_LISTENER_OPTION,
    LISTENER_OPTION,
    MATCHABLE_HTTP_GATEWAY,
    MATCHABLE_TCP_GATEWAY,
    PROXY,
    ROUTE_OPTION,
    ROUTE_TABLE,
    VIRTUAL_HOST_OPTION,
    VIRTUAL_SERVICE,
    Kind,
    parse_key,
    prefix,
)
from shared.store.objects import Stored, aside
from shared.store.spec import spec_of
from shared.store.watch import ObjectsChange, watch_objects

log = logging.getLogger(__name__)

KINDS = (
    GATEWAY,
    MATCHABLE_HTTP_GATEWAY,
    MATCHABLE_TCP_GATEWAY,
    VIRTUAL_SERVICE,
    ROUTE_TABLE,
    LISTENER_OPTION,
    HTTP_LISTENER_OPTION,
    VIRTUAL_HOST_OPTION,
    ROUTE_OPTION,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredProxy:
    """A Proxy as it stands in Consul; of a large one the manifest. *document* is empty for garbage."""

    name: str
    index: int
    document: Mapping[str, Any]
    body: Mapping[str, Any] = field(repr=False)
    """The document without its status."""

    @property
    def ours(self) -> bool:
        labels = (self.document.get("metadata") or {}).get("labels") or {}
        return CREATED_BY.items() <= labels.items()

    @property
    def status(self) -> Mapping[str, Any]:
        status = self.document.get("status")
        return status if isinstance(status, dict) else {}


class Inputs:
    """The newest view. ``work`` is set when there is something to translate, ``news`` when to report on."""

    def __init__(self, root: str, namespace: str) -> None:
        self.objects: dict[Source, Stored] = {}
        self.proxies: dict[str, StoredProxy] = {}
        self.work = asyncio.Event()
        self.news = asyncio.Event()
        self.watches: dict[str, WatchState] = {}
        self.gateway_seen = False
        self._root = root
        self._namespace = namespace
        self._changes = Changes()
        self._restated: set[Source] = set()
        self._moved: set[str] = set()
        self._unheard = {kind.name for kind in (*KINDS, PROXY)}

    @property
    def waiting_for(self) -> str:
        """What has not been listed yet; empty when all has."""
        return f"waiting for Consul's listing of {', '.join(sorted(self._unheard))}" if self._unheard else ""

    async def follow_objects(
        self, consul: Consul, kind: Kind, namespaces: Iterable[str], holds: Holding
    ) -> None:
        """One long poll for a kind, for ever."""
        state = self.watches.setdefault(kind.name, WatchState(kind.name))
        options = WatchOptions(holds=holds)
        async for change in watch_objects(
            consul.kv, self._root, kind, namespaces=tuple(namespaces), options=options, state=state
        ):
            self.take_objects(change)

    async def follow_proxies(self, consul: Consul, holds: Holding) -> None:
        """One long poll for the Proxies of our namespace, for ever."""
        state = self.watches.setdefault(PROXY.name, WatchState(PROXY.name))
        proxies, options = prefix(self._root, PROXY, self._namespace), WatchOptions(holds=holds)
        async for change in watch_prefix(consul.kv, proxies, options=options, state=state):
            await self.take_proxies(change)

    def take_objects(self, change: ObjectsChange) -> None:
        """Note a change; one of a status alone is no work for the translation."""
        put = {stored.source: stored for stored in change.put.values()}
        gone = {Source(change.kind.name, ref) for ref in change.gone}
        if change.initial:  # the watch was started anew: what it does not list is gone
            kind = change.kind.name
            gone |= {source for source in self.objects if source.kind == kind and source not in put}
        self.gateway_seen |= any(
            source.kind == GW and source.ref.namespace == self._namespace for source in put
        )
        edited = []
        for source, stored in put.items():
            before = self.objects.get(source)
            if before is not None and stored.same_spec(before):
                self._restated.add(source)
                self.news.set()
            else:
                edited.append(stored)
        self.objects |= put
        for source in gone:
            self.objects.pop(source, None)
        self._changes.add(edited, gone)
        if edited or gone or change.kind.name in self._unheard:
            self._unheard.discard(change.kind.name)
            self.work.set()

    async def take_proxies(self, change: PrefixChange) -> None:
        put = [proxy for row in change.changed if (proxy := await self._proxy(row)) is not None]
        gone = {parsed[1].name for key in change.gone if (parsed := parse_key(self._root, key))}
        if change.initial:
            gone |= self.proxies.keys() - {proxy.name for proxy in put}
        for proxy in put:
            self.proxies[proxy.name] = proxy
        for name in gone:
            self.proxies.pop(name, None)
        self._moved |= gone | {proxy.name for proxy in put}
        if PROXY.name in self._unheard:
            self._unheard.discard(PROXY.name)
            self.work.set()  # it may be the last that was waited for
        self.news.set()

    def take_changes(self) -> Changes:
        changes, self._changes = self._changes, Changes()
        return changes

    def take_restated(self) -> set[Source]:
        """The objects of which only the status has changed."""
        restated, self._restated = self._restated, set()
        return restated

    def take_moved(self) -> set[str]:
        """The Proxies that were written by anybody, or are gone."""
        moved, self._moved = self._moved, set()
        return moved

    async def _proxy(self, row: Row) -> StoredProxy | None:
        meant = parse_key(self._root, row.key)
        if meant is None or not meant[1].name:
            return None
        try:
            document = await aside(row.value, parse, row.value)
        except InvalidDocument as error:
            log.warning("a Proxy cannot be read", extra={"key": row.key, "problem": str(error)})
            document = {}
        return StoredProxy(name=meant[1].name, index=row.index, document=document, body=spec_of(document))
