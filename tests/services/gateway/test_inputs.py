"""What the gateway takes in, and what wakes it."""

from __future__ import annotations

from typing import Any

from services.gateway.inputs import KINDS, Inputs
from shared.consul.blocking import PrefixChange
from shared.ref import Ref
from shared.store.keys import GATEWAY, VIRTUAL_SERVICE, Kind
from shared.store.watch import ObjectsChange
from tests.services.gateway.support import NAMESPACE, ROOT, source_of, stored


def change(
    kind: Kind, *objects: tuple[str, dict[str, Any]], gone: tuple[str, ...] = (), initial: bool = False
) -> ObjectsChange:
    put = [stored(document, source_of(kind, name)) for name, document in objects]
    return ObjectsChange(
        kind=kind,
        put={each.ref: each for each in put},
        gone=frozenset(Ref(NAMESPACE, name) for name in gone),
        initial=initial,
    )


async def listed() -> Inputs:
    inputs = Inputs(ROOT, NAMESPACE)
    for kind in KINDS:
        inputs.take_objects(change(kind, initial=True))
    await inputs.take_proxies(PrefixChange(index=1, initial=True))
    inputs.take_changes()
    inputs.work.clear()
    inputs.news.clear()
    return inputs


async def test_nothing_is_ready_before_all_was_listed() -> None:
    inputs = Inputs(ROOT, NAMESPACE)
    waiting = [inputs.waiting_for]
    for kind in KINDS:
        inputs.take_objects(change(kind, initial=True))
        waiting.append(inputs.waiting_for)
    await inputs.take_proxies(PrefixChange(index=1, initial=True))

    kinds = "Gateway, HttpListenerOption, ListenerOption, MatchableHttpGateway, MatchableTcpGateway, Proxy, "
    kinds += "RouteOption, RouteTable, VirtualHostOption, VirtualService"
    assert waiting[0] == f"waiting for Consul's listing of {kinds}"
    assert waiting[-1] == "waiting for Consul's listing of Proxy"
    assert inputs.waiting_for == ""


async def test_an_edit_is_work_and_a_status_is_news() -> None:
    inputs = await listed()

    inputs.take_objects(change(VIRTUAL_SERVICE, ("a", {"displayName": "A"})))
    edited, work = inputs.take_changes(), inputs.work.is_set()
    inputs.work.clear()
    inputs.take_objects(change(VIRTUAL_SERVICE, ("a", {"displayName": "A", "status": {"state": 1}})))

    source = source_of(VIRTUAL_SERVICE, "a")
    assert (set(edited.put), work) == ({source}, True)
    assert not inputs.take_changes().put
    assert (inputs.work.is_set(), inputs.news.is_set()) == (False, True)
    assert inputs.take_restated() == {source}
    assert inputs.objects[source].status(NAMESPACE) == {"state": 1}


async def test_what_came_and_went_before_anybody_looked_is_gone() -> None:
    inputs = await listed()
    source = source_of(VIRTUAL_SERVICE, "a")

    inputs.take_objects(change(VIRTUAL_SERVICE, ("a", {})))
    inputs.take_objects(change(VIRTUAL_SERVICE, gone=("a",)))
    gone = inputs.take_changes()
    inputs.take_objects(change(VIRTUAL_SERVICE, gone=("a",)))
    inputs.take_objects(change(VIRTUAL_SERVICE, ("a", {})))
    back = inputs.take_changes()

    assert (gone.put, gone.gone) == ({}, {source})
    assert (set(back.put), back.gone) == ({source}, set())


async def test_a_watch_that_starts_anew_tells_what_went_meanwhile() -> None:
    inputs = await listed()
    inputs.take_objects(change(VIRTUAL_SERVICE, ("a", {}), ("b", {})))
    inputs.take_changes()

    inputs.take_objects(change(VIRTUAL_SERVICE, ("b", {}), initial=True))

    assert inputs.take_changes().gone == {source_of(VIRTUAL_SERVICE, "a")}


async def test_only_a_gateway_of_our_namespace_counts_as_one() -> None:
    inputs = await listed()
    foreign = stored({}, source_of(GATEWAY, "other.gw"))

    inputs.take_objects(ObjectsChange(kind=GATEWAY, put={foreign.ref: foreign}))
    before = inputs.gateway_seen
    inputs.take_objects(change(GATEWAY, ("gw", {"oops": 1})))

    assert (before, inputs.gateway_seen) == (False, True)


async def test_a_listing_of_proxies_that_comes_last_is_work_too() -> None:
    inputs = Inputs(ROOT, NAMESPACE)

    await inputs.take_proxies(PrefixChange(index=1, initial=True))

    assert inputs.work.is_set()
