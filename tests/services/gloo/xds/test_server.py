"""The real server as a raw grpcio client meets it: limits, listing, health, its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from ssl import create_default_context
from time import monotonic
from typing import Any

import grpc
import grpc.aio
import h2.config
import h2.connection
import h2.settings
import pytest
import uvloop
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2 as pb
from grpclib.health.v1 import health_pb2
from grpclib.reflection.v1 import reflection_pb2

from services.gloo.resources import CLUSTER, ENDPOINTS, ROUTES, Resource, TypeUrl
from services.gloo.xds import Cache, Options, XdsServer
from services.gloo.xds.tls import Files
from tests.services.gloo.xds.drivers import METHODS, ROLE, Driver, Streams, serving, snapshot
from tests.support.certificates import Authority
from tests.support.waiting import eventually

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
DELTA_ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
RDS = "/envoy.service.route.v3.RouteDiscoveryService/StreamRoutes"


@asynccontextmanager
async def connected(
    options: Options | None = None, **more: Any
) -> AsyncIterator[tuple[XdsServer, Cache, grpc.aio.Channel]]:
    async with (
        serving(options, **more) as (server, cache),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        yield server, cache, channel


def request(type_url: TypeUrl, *names: str, role: str | None = ROLE, **more: Any) -> bytes:
    made = pb.DiscoveryRequest(type_url=type_url, resource_names=names, **more)
    if role is not None:
        made.node.id = "raw"
        made.node.metadata["role"] = role
    return made.SerializeToString()


async def failure(call: Any) -> tuple[grpc.StatusCode, str]:
    """How the stream ends; what it delivers before is passed over."""
    async with asyncio.timeout(10):
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await call.read() is not grpc.aio.EOF:
                pass
        return await call.code(), await call.details()


async def test_only_the_first_request_needs_the_node() -> None:
    async with connected() as (_, cache, channel):
        cache.set(ROLE, snapshot({CLUSTER: {"a": "a1"}, ROUTES: {"r": "r1"}}))
        call = channel.stream_stream(ADS)()

        await call.write(request(CLUSTER))
        await call.read()
        await call.write(request(ROUTES, "r", role=None))

        assert pb.DiscoveryResponse.FromString(await call.read()).type_url == ROUTES
        call.cancel()


@pytest.mark.parametrize(
    ("role", "problem"),
    [
        ("nobody", "there is no configuration for role 'nobody'"),
        ("", "node.metadata.role is missing"),
        (None, "it has not said who it is"),
    ],
)
async def test_a_client_without_a_known_role_is_kept_and_explained(role: str | None, problem: str) -> None:
    async with connected() as (server, _, channel):
        call = channel.stream_stream(ADS)()
        await call.write(request(CLUSTER, role=role))

        [client] = await eventually(
            lambda: list(server.clients()), until=lambda rows: rows and rows[0]["types"]
        )

        assert problem in client["problem"]
        assert not call.done()
        call.cancel()


async def test_a_role_that_appears_later_is_served() -> None:
    async with connected() as (server, cache, channel):
        call = channel.stream_stream(ADS)()
        await call.write(request(CLUSTER))
        await eventually(lambda: any(client["types"] for client in server.clients()))

        cache.set(ROLE, snapshot({CLUSTER: {"a": "a1"}}))

        assert pb.DiscoveryResponse.FromString(await call.read()).resources[0].value == b"a1"
        call.cancel()


async def test_an_empty_role_that_appears_later_is_served_too() -> None:
    """Envoy's start waits for the answer."""
    async with connected() as (server, cache, channel):
        call = channel.stream_stream(ADS)()
        await call.write(request(CLUSTER))
        await eventually(lambda: any(client["types"] for client in server.clients()))

        cache.set(ROLE, snapshot({ROUTES: {"r": "r1"}}))

        async with asyncio.timeout(10):
            assert not pb.DiscoveryResponse.FromString(await call.read()).resources
        call.cancel()


async def test_a_removed_role_takes_nothing_from_its_clients() -> None:
    async with connected() as (server, cache, channel):
        cache.set(ROLE, snapshot({CLUSTER: {"a": "a1"}}))
        streams = Streams(server, cache, channel, delta=True, aggregated=True)
        client = Driver(streams)
        await client.subscribe(CLUSTER)
        await client.receive(CLUSTER)

        cache.remove(ROLE)
        await client.subscribe(CLUSTER, "more")

        await client.silent(CLUSTER)
        await streams.close()


async def test_clients_are_listed_with_what_they_have() -> None:
    async with connected() as (server, cache, channel):
        cache.set(ROLE, snapshot({CLUSTER: {"a": "a1"}, ENDPOINTS: {"e": "e1"}}))
        version = snapshot({CLUSTER: {"a": "a1"}}).of(CLUSTER).version
        streams = Streams(server, cache, channel, delta=True, aggregated=True)
        client = Driver(streams)
        await client.subscribe(CLUSTER)
        await client.receive(CLUSTER)
        await client.subscribe(ENDPOINTS, "e")
        await client.receive(ENDPOINTS, refuse="malformed IP address: e")

        [row] = await eventually(
            lambda: list(server.clients()), until=lambda rows: rows[0]["types"][ENDPOINTS]["lastRefusal"]
        )

        assert (row["node"], row["role"], row["mode"], row["problem"]) == ("raw", ROLE, "delta", "")
        assert row["address"].startswith("127.0.0.1:")
        clusters, ends = row["types"][CLUSTER], row["types"][ENDPOINTS]
        assert (clusters["subscribed"], clusters["pending"]) == (["*"], False)
        assert clusters["versionSent"] == clusters["versionAcked"] == version
        assert (ends["subscribed"], ends["refused"], ends["versionAcked"]) == (["e"], ["e"], "")
        assert ends["lastRefusal"]["message"] == "malformed IP address: e"
        await streams.close()
        await eventually(lambda: list(server.clients()), until=lambda rows: rows == [])


class Journal:
    """An observer that writes down what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[Any, ...]] = []

    def connected(self, client: str, role: str, node: str) -> None:
        self.lines.append(("connected", role, node))

    def disconnected(self, client: str) -> None:
        self.lines.append(("disconnected",))

    def acked(
        self,
        client: str,
        role: str,
        type_url: TypeUrl,
        version: str,
        resources: tuple[Resource, ...],
        removed: tuple[str, ...],
    ) -> None:
        self.lines.append(("acked", role, type_url, version, frozenset(each.name for each in resources)))

    def nacked(
        self,
        client: str,
        role: str,
        type_url: TypeUrl,
        version: str,
        resources: tuple[Resource, ...],
        message: str,
    ) -> None:
        self.lines.append(("nacked", role, type_url, [r.name for r in resources], message))


@pytest.mark.parametrize("delta", [False, True])
async def test_an_observer_hears_of_everything_once(delta: bool) -> None:
    journal, measured = Journal(), list[str]()
    measure = lambda event, type_url, amount: measured.append(event)  # noqa: E731
    async with connected(observer=journal, measure=measure) as (server, cache, channel):
        streams = Streams(server, cache, channel, delta=delta, aggregated=True)
        client = Driver(streams)
        client.publish(CLUSTER, a="a1")
        await client.subscribe(CLUSTER)
        await client.receive(CLUSTER)
        client.publish(CLUSTER, a="a2")
        await client.receive(CLUSTER, refuse="no")
        await eventually(lambda: len(journal.lines) == 3)
        await streams.close()
        await eventually(lambda: len(journal.lines) == 4)

    version = snapshot({CLUSTER: {"a": "a1"}}).of(CLUSTER).version
    assert journal.lines == [
        ("connected", ROLE, "raw"),
        ("acked", ROLE, CLUSTER, version, frozenset({"a"})),
        ("nacked", ROLE, CLUSTER, ["a"], "no"),
        ("disconnected",),
    ]
    assert measured == ["sent", "acked", "sent", "refused"]


async def test_a_client_may_be_turned_away() -> None:
    async with connected(admit=lambda node, certificate: f"{node.id} may not") as (_, _, channel):
        call = channel.stream_stream(ADS)()
        await call.write(request(CLUSTER))

        assert await failure(call) == (grpc.StatusCode.PERMISSION_DENIED, "raw may not")


@pytest.mark.parametrize("type_url", METHODS, ids=lambda type_url: METHODS[type_url][1])
async def test_fetching_once_is_refused_in_words(type_url: TypeUrl) -> None:
    service, what = METHODS[type_url]
    async with connected() as (_, cache, channel):
        cache.set(ROLE, snapshot({type_url: {"a": "a1"}}))

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary(f"/envoy.service.{service}/Fetch{what}")(request(type_url))

    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert refused.value.details() == f"nothing is fetched here; follow it with Stream{what} or Delta{what}"


# --- limits -----------------------------------------------------------------------------------------------


async def test_garbage_ends_the_stream_and_nothing_else() -> None:
    async with connected() as (_, cache, channel):
        cache.set(ROLE, snapshot({CLUSTER: {"a": "a1"}}))
        good = channel.stream_stream(ADS)()
        await good.write(request(CLUSTER))
        await good.read()
        for method in (ADS, DELTA_ADS):
            bad = channel.stream_stream(method)()
            await bad.write(b"\xff\xff\xff")
            assert (await failure(bad))[0] is grpc.StatusCode.INVALID_ARGUMENT

        cache.set(ROLE, snapshot({CLUSTER: {"a": "a2"}}))

        assert await good.read()
        good.cancel()


@pytest.mark.parametrize(
    ("method", "type_url"), [(ADS, ""), (RDS, CLUSTER)], ids=["none over ADS", "another over RDS"]
)
async def test_a_wrong_type_is_refused(method: str, type_url: str) -> None:
    async with connected() as (_, _, channel):
        call = channel.stream_stream(method)()
        await call.write(request(TypeUrl(type_url)))

        assert (await failure(call))[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_stream_of_one_type_need_not_name_it() -> None:
    async with connected() as (_, cache, channel):
        cache.set(ROLE, snapshot({ROUTES: {"r": "r1"}}))
        call = channel.stream_stream(RDS)()
        await call.write(request(TypeUrl(""), "r"))

        assert pb.DiscoveryResponse.FromString(await call.read()).type_url == ROUTES
        call.cancel()


@pytest.mark.parametrize(
    ("options", "requests", "words"),
    [
        (Options(max_names=3), [request(ROUTES, *"abcd")], "more than 3 names"),
        (Options(max_types=2), [request(t) for t in (CLUSTER, ROUTES, ENDPOINTS)], "more than 2 types"),
        (Options(max_message_bytes=100), [request(ROUTES, "x" * 200)], "100 are allowed"),
        (Options(), [request(CLUSTER, role="r" * 2_000)], "at most 1024 characters"),
        (Options(), [request(TypeUrl("t" * 2_000))], "at most 1024 characters"),
    ],
    ids=["names", "types", "bytes", "long role", "long type"],
)
async def test_a_client_that_asks_for_too_much_is_cut_off(
    options: Options, requests: list[bytes], words: str
) -> None:
    async with connected(options) as (_, _, channel):
        call = channel.stream_stream(ADS)()
        for data in requests:
            await call.write(data)

        code, details = await failure(call)

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert words in details


async def test_requests_that_come_too_fast_are_read_later() -> None:
    """A stream may send ten seconds' requests at once: here one."""
    async with connected(Options(max_requests_per_second=0.1)) as (server, _, channel):
        call = channel.stream_stream(ADS)()
        for type_url in (CLUSTER, ROUTES):
            await call.write(request(type_url))
        await eventually(lambda: any(client["types"] for client in server.clients()))
        await asyncio.sleep(0.1)

        assert list(next(server.clients())["types"]) == [CLUSTER]
        call.cancel()


async def test_delta_names_are_limited_over_several_requests() -> None:
    async with connected(Options(max_names=3)) as (_, _, channel):
        call = channel.stream_stream(DELTA_ADS)()
        for names in ("ab", "cd"):
            made = pb.DeltaDiscoveryRequest(
                type_url=ROUTES, resource_names_subscribe=names, node=base_pb2.Node(id="raw")
            )
            await call.write(made.SerializeToString())

        assert (await failure(call))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_streams_are_limited() -> None:
    async with connected(Options(max_streams=2)) as (server, _, channel):
        calls = [channel.stream_stream(ADS)() for _ in range(2)]
        for call in calls:
            await call.write(request(CLUSTER))
        await eventually(lambda: server.streams == 2)

        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as other:
            extra = other.stream_stream(ADS)()
            assert (await failure(extra))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert [entry["problem"] for entry in server.refused()] == ["2 streams are open already"]
        for call in calls:
            call.cancel()


def another_connection(port: int) -> grpc.aio.Channel:
    """Channels to the same address share their connections otherwise."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)


async def test_the_connection_with_most_streams_makes_room_for_another() -> None:
    async with connected(Options(max_streams=15)) as (server, _, channel):
        calls = [channel.stream_stream(ADS)() for _ in range(15)]
        for call in calls:
            await call.write(request(CLUSTER))
        await eventually(lambda: server.streams == 15)

        async with another_connection(server.port) as other:
            newcomer = other.stream_stream(ADS)()
            await newcomer.write(request(CLUSTER))
            failures = [asyncio.create_task(failure(call)) for call in calls]
            (failed,), others = await asyncio.wait(failures, return_when=asyncio.FIRST_COMPLETED)
            code, words = failed.result()
            for each in (newcomer, *calls):
                each.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "most of them on this connection" in words


async def test_the_connection_with_most_names_makes_room_for_another() -> None:
    async with connected(Options(max_names_in_all=10)) as (server, _, channel):
        greedy = channel.stream_stream(ADS)()
        await greedy.write(request(ROUTES, *"abcdefgh"))
        await eventually(lambda: any(client["types"] for client in server.clients()))

        async with another_connection(server.port) as other:
            modest = other.stream_stream(ADS)()
            await modest.write(request(ROUTES, *"ijk"))
            code, words = await failure(greedy)

            await eventually(lambda: server.streams == 1)
            modest.cancel()

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "too many names" in words


async def test_many_streams_fit_on_one_connection() -> None:
    """h2 alone would let the hundred and first wait without a word."""
    async with connected() as (server, _, channel):
        calls = [channel.stream_stream(ADS)() for _ in range(150)]
        for call in calls:
            await call.write(request(CLUSTER))

        await eventually(lambda: server.streams == 150)
        for call in calls:
            call.cancel()


async def test_a_client_that_does_not_read_delays_nobody_and_is_cut_off() -> None:
    async with connected(Options(removal_grace=0, send_timeout=1)) as (server, cache, channel):
        cache.set(ROLE, snapshot({CLUSTER: {"a": "a" * 30_000_000}, ROUTES: {"r": "r1"}}))
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(http2_request(ADS, request(CLUSTER)))
        await eventually(lambda: server.streams == 1)

        call = channel.stream_stream(ADS)()
        await call.write(request(ROUTES, "r"))
        async with asyncio.timeout(1):
            assert await call.read()

        await eventually(lambda: server.streams == 1, within=10)
        call.cancel()
        writer.close()
        del reader


# --- health, reflection, the end --------------------------------------------------------------------------


async def test_health_and_reflection_answer() -> None:
    async with connected() as (_, _, channel):
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        answer = await check(health_pb2.HealthCheckRequest().SerializeToString())
        asked = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
        reflect = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")()
        await reflect.write(asked)
        listed = reflection_pb2.ServerReflectionResponse.FromString(await reflect.read())
        reflect.cancel()

    serving_now = health_pb2.HealthCheckResponse.SERVING
    assert health_pb2.HealthCheckResponse.FromString(answer).status == serving_now
    services = {service.name for service in listed.list_services_response.service}
    assert "envoy.service.discovery.v3.AggregatedDiscoveryService" in services
    assert "envoy.service.secret.v3.SecretDiscoveryService" in services


async def test_stopping_tells_every_stream_and_leaves_no_connection() -> None:
    async with connected() as (server, cache, channel):
        cache.set(ROLE, snapshot({CLUSTER: {"a": "a1"}}))
        calls = [channel.stream_stream(ADS)() for _ in range(5)]
        for call in calls:
            await call.write(request(CLUSTER))
            await call.read()
        port = server.port

        await server.stop(5)

        for call in calls:
            assert (await failure(call))[0] is grpc.StatusCode.UNAVAILABLE
        assert server.streams == 0
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


async def test_who_cuts_all_off_has_no_streams_left_and_gets_no_new_ones() -> None:
    async with connected() as (server, cache, channel):
        cache.set(ROLE, snapshot({CLUSTER: {"a": "a1"}}))
        call = channel.stream_stream(ADS)()
        await call.write(request(CLUSTER))
        await call.read()
        port = server.port

        server.abort()

        await eventually(lambda: server.streams == 0)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


async def test_stopping_does_not_wait_for_a_client_that_does_not_read() -> None:
    async with serving() as (server, cache):
        cache.set(ROLE, snapshot({CLUSTER: {"a": "a" * 30_000_000}}))
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(http2_request(ADS, request(CLUSTER)))
        await eventually(lambda: any(client["types"] for client in server.clients()))

        async with asyncio.timeout(5):
            await server.stop(0.2)

        assert server.streams == 0
        writer.close()


@pytest.mark.parametrize("secured", [False, True], ids=["clear", "tls"])
def test_stopping_does_not_wait_for_connections_that_come_just_then(secured: bool, tmp_path: Path) -> None:
    """On the services' own event loop, which does not tell a protocol when its connection is given up while
    it enters."""
    authority = Authority(tmp_path)
    own = authority.issue("server", "IP:127.0.0.1")
    ours = Files(cert=own.cert, key=own.key).load() if secured else None
    theirs = create_default_context(cafile=str(authority.cert)) if secured else None

    async def stop_after(turns: int) -> float:
        server = XdsServer(Cache())
        await server.start("127.0.0.1", 0, ours)
        coming = asyncio.create_task(asyncio.open_connection("127.0.0.1", server.port, ssl=theirs))
        for _ in range(turns):
            await asyncio.sleep(0.0001)
        began = monotonic()
        async with asyncio.timeout(5):
            await server.stop(1.0)
        took = monotonic() - began
        with contextlib.suppress(OSError):
            (await coming)[1].close()
        return took

    async def stop_at_all_times() -> float:
        return max([await stop_after(turns) for turns in range(60)])

    assert uvloop.run(stop_at_all_times()) < 0.9


async def test_stopping_does_not_wait_for_a_connection_whose_end_nobody_tells() -> None:
    server = XdsServer(Cache())
    await server.start("127.0.0.1", 0)
    assert server._server is not None
    connections = server._server.connections
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    await eventually(lambda: connections)
    for connection in connections:
        connection.transport.set_protocol(asyncio.Protocol())

    async with asyncio.timeout(10):
        await server.stop(0.1)

    writer.close()


def http2_request(path: str, message: bytes) -> bytes:
    """A gRPC request as bytes, for a client that will not read what comes back."""

    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    connection.initiate_connection()
    connection.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**30})
    connection.increment_flow_control_window(2**30)
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "test"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
    connection.send_headers(1, headers)
    connection.send_data(1, b"\0" + len(message).to_bytes(4, "big") + message)
    return connection.data_to_send()


async def test_a_connection_without_a_sign_of_life_is_cut_off() -> None:
    """As when a machine has lost its power: nothing comes, not even the end of the connection."""
    async with connected(Options(removal_grace=0, keepalive=0.2)) as (server, cache, channel):
        cache.set(ROLE, snapshot({CLUSTER: {"a": "a1"}}))
        alive = channel.stream_stream(ADS)()
        await alive.write(request(CLUSTER))
        await alive.read()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(http2_request(ADS, request(CLUSTER)))
        await eventually(lambda: server.streams == 2)

        await eventually(lambda: server.streams == 1)
        with contextlib.suppress(ConnectionResetError):
            while await reader.read(2**16):
                pass

        cache.set(ROLE, snapshot({CLUSTER: {"a": "a2"}}))
        assert await alive.read()
        alive.cancel()
        writer.close()
