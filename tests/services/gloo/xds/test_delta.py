"""Requests of many names, taken in a few at a time."""

from __future__ import annotations

import grpc.aio
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2 as pb

from services.gloo.resources import ROUTES
from services.gloo.xds.delta import NAMES_AT_ONCE, parts
from services.gloo.xds.subscription import DeltaRequest, Node
from tests.services.gloo.xds.drivers import ROLE, serving, snapshot

MANY = tuple(f"r{number}" for number in range(2 * NAMES_AT_ONCE + 500))
DELTA_ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


def test_a_request_of_many_names_is_several_and_the_first_says_who_asks_and_what_is_answered() -> None:
    node = Node(id="n", cluster="", role="")
    request = DeltaRequest(
        type_url=ROUTES, subscribe=MANY, unsubscribe=MANY, nonce="1", error="no", node=node
    )

    first, *rest = parts(request)

    assert (first.node, first.nonce, first.error) == (node, "1", "no")
    assert {(part.node, part.nonce, part.error) for part in rest} == {(None, "", None)}
    assert tuple(name for part in (first, *rest) for name in part.subscribe) == MANY
    assert tuple(name for part in (first, *rest) for name in part.unsubscribe) == MANY
    assert max(len(part.subscribe) + len(part.unsubscribe) for part in (first, *rest)) == NAMES_AT_ONCE


def test_what_a_client_has_stays_with_all_its_names() -> None:
    request = DeltaRequest(type_url=ROUTES, subscribe=MANY, versions={MANY[0]: "1"})

    assert list(parts(request)) == [request]


async def test_each_of_many_names_is_answered_once() -> None:
    async with (
        serving() as (server, cache),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        cache.set(ROLE, snapshot({ROUTES: {name: name for name in MANY[1:]}}))
        call = channel.stream_stream(DELTA_ADS)()
        request = pb.DeltaDiscoveryRequest(
            type_url=ROUTES, resource_names_subscribe=MANY, node=base_pb2.Node(id="raw")
        )
        request.node.metadata["role"] = ROLE
        await call.write(request.SerializeToString())

        answered = list[str]()
        while len(answered) < len(MANY):
            response = pb.DeltaDiscoveryResponse.FromString(await call.read())
            answered += [each.name for each in response.resources]
            answered += response.removed_resources

        assert sorted(answered) == sorted(MANY)
        call.cancel()
