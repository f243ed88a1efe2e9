"""Client status: what is told of each client is what happened to it."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
import pytest
from envoy.admin.v3.config_dump_shared_pb2 import ClientResourceStatus
from envoy.service.status.v3 import csds_pb2 as pb

from services.gloo.resources import CLUSTER, ENDPOINTS, ROUTES, SECRET
from services.gloo.xds import Options
from tests.services.gloo.xds.drivers import ROLE, Driver, Streams, serving, snapshot
from tests.support.waiting import eventually

SERVICE = "/envoy.service.status.v3.ClientStatusDiscoveryService"


def question(*roles: str, **more: Any) -> bytes:
    request = pb.ClientStatusRequest(**more)
    for role in roles:
        wanted = request.node_matchers.add().node_metadatas.add()
        wanted.path.add(key="role")
        wanted.value.string_match.exact = role
    return request.SerializeToString()


async def fetch(channel: grpc.aio.Channel, asked: bytes = b"") -> pb.ClientStatusResponse:
    answer = await channel.unary_unary(f"{SERVICE}/FetchClientStatus")(asked)
    return pb.ClientStatusResponse.FromString(answer)


def told(answer: pb.ClientStatusResponse) -> dict[str, tuple[str, str]]:
    """Of one client: by resource, how the server sees it and how the client does."""
    [client] = answer.config
    return {
        each.name: (
            pb.ConfigStatus.Name(each.config_status),
            ClientResourceStatus.Name(each.client_status),
        )
        for each in client.generic_xds_configs
    }


@pytest.mark.parametrize("delta", [False, True], ids=["sotw", "delta"])
async def test_each_resource_is_told_as_it_stands(delta: bool) -> None:
    async with (
        serving() as (server, cache),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        streams = Streams(server, cache, channel, delta=delta, aggregated=True)
        client = Driver(streams)
        client.publish(CLUSTER, taken="c1")
        await client.subscribe(CLUSTER)
        await client.receive(CLUSTER)
        client.publish(ENDPOINTS, refused="e1")
        await client.subscribe(ENDPOINTS, "refused", "missing")
        await client.receive(ENDPOINTS, refuse="no such place: refused")
        client.publish(ROUTES, silent="r1")
        await client.subscribe(ROUTES, "silent")
        await client.receive(ROUTES, answer=False)

        expected = {
            "taken": ("SYNCED", "ACKED"),
            "refused": ("ERROR", "NACKED"),
            "missing": ("SYNCED", "DOES_NOT_EXIST"),
            "silent": ("STALE", "REQUESTED"),
        }
        answer = await eventually(lambda: fetch(channel), until=lambda answer: told(answer) == expected)

        [found] = answer.config
        assert (found.node.id, found.node.metadata["role"]) == ("raw", ROLE)
        by_name = {each.name: each for each in found.generic_xds_configs}
        assert by_name["taken"].xds_config.value == b"c1"
        assert by_name["taken"].xds_config.type_url == by_name["taken"].type_url == CLUSTER
        assert by_name["taken"].version_info == snapshot({CLUSTER: {"taken": "c1"}}).of(CLUSTER).version
        assert by_name["refused"].error_state.details == "no such place: refused"
        assert by_name["refused"].error_state.version_info == by_name["refused"].version_info
        assert by_name["refused"].error_state.HasField("last_update_attempt")
        await streams.close()


async def test_a_question_may_be_about_some_roles_and_without_contents() -> None:
    async with (
        serving() as (server, cache),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        for role in ("ns~one", "ns~two"):
            cache.set(role, snapshot({CLUSTER: {role: "c1"}}))
        streams = [Streams(server, cache, channel, delta=True, aggregated=True) for _ in range(2)]
        for role, stream in zip(("ns~one", "ns~two"), streams, strict=True):
            client = Driver(stream, role=role)
            await client.subscribe(CLUSTER)
            await client.receive(CLUSTER)
        follow = channel.stream_stream(f"{SERVICE}/StreamClientStatus")()

        answers = []
        for asked in (question("ns~two", exclude_resource_contents=True), question("nobody"), question()):
            await follow.write(asked)
            answers.append(pb.ClientStatusResponse.FromString(await follow.read()))

        [two] = answers[0].config
        assert [each.name for each in two.generic_xds_configs] == ["ns~two"]
        assert not two.generic_xds_configs[0].HasField("xds_config")
        assert [len(answer.config) for answer in answers] == [1, 0, 2]
        follow.cancel()
        for stream in streams:
            await stream.close()


async def test_secrets_are_told_without_their_contents() -> None:
    async with (
        serving() as (server, cache),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        streams = Streams(server, cache, channel, delta=True, aggregated=True)
        client = Driver(streams)
        client.publish(SECRET, key="very private")
        await client.subscribe(SECRET, "key")
        await client.receive(SECRET)

        answer = await eventually(
            lambda: fetch(channel), until=lambda answer: told(answer) == {"key": ("SYNCED", "ACKED")}
        )

        assert b"private" not in answer.SerializeToString()
        await streams.close()


async def test_whoever_may_not_have_a_role_hears_nothing_of_it() -> None:
    admitted = [True]
    admit = lambda node, certificate: None if admitted[0] else "no"  # noqa: E731
    async with (
        serving(admit=admit) as (server, cache),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        streams = Streams(server, cache, channel, delta=True, aggregated=True)
        client = Driver(streams)
        client.publish(CLUSTER, a="a1")
        await client.subscribe(CLUSTER)
        await client.receive(CLUSTER)
        assert len((await fetch(channel)).config) == 1

        admitted[0] = False

        assert len((await fetch(channel)).config) == 0
        await streams.close()


@pytest.mark.parametrize(
    ("asked", "code", "words"),
    [
        (b"\xff\xff", grpc.StatusCode.INVALID_ARGUMENT, "not a client status request"),
        (question(), grpc.StatusCode.RESOURCE_EXHAUSTED, "longer than 100 bytes"),
        (
            pb.ClientStatusRequest(
                node_matchers=[{"node_id": {"safe_regex": {"regex": ".*"}}}]
            ).SerializeToString(),
            grpc.StatusCode.INVALID_ARGUMENT,
            "strings are matched by exact",
        ),
        (
            pb.ClientStatusRequest(
                node_matchers=[{"node_metadatas": [{"path": [{"key": "zone"}]}]}]
            ).SerializeToString(),
            grpc.StatusCode.INVALID_ARGUMENT,
            "only role can be matched",
        ),
    ],
    ids=["garbage", "too long", "regex", "metadata"],
)
async def test_what_cannot_be_answered_is_explained(asked: bytes, code: grpc.StatusCode, words: str) -> None:
    async with (
        serving(Options(max_status_bytes=100, removal_grace=0)) as (server, cache),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        streams = Streams(server, cache, channel, delta=True, aggregated=True)
        client = Driver(streams)
        client.publish(CLUSTER, a="a" * 1000)
        await client.subscribe(CLUSTER)
        await client.receive(CLUSTER)

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await fetch(channel, asked)

        assert refused.value.code() is code
        assert words in (refused.value.details() or "")
        await streams.close()
