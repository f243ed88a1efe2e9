"""xDS over TLS: who gets in, who may ask for what, and certificates that change under open streams."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2 as pb
from envoy.service.status.v3 import csds_pb2

from protos import gloo
from services.gloo.resources import CLUSTER, ROUTES
from services.gloo.xds import Cache, XdsServer
from services.gloo.xds.subscription import Node
from services.gloo.xds.tls import Files, Roles, follow
from shared.errors import InvalidSettings
from tests.services.gloo.xds.drivers import ROLE, snapshot
from tests.services.gloo.xds.envoy_resources import eds_cluster, endpoints, snapshot_of
from tests.support.certificates import Authority, Certificate
from tests.support.envoy import ads_bootstrap, running_envoy
from tests.support.ports import free_port
from tests.support.waiting import eventually

SPIFFE = "spiffe://example.org/gateway"
ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def files_of(authority: Authority, *, clients: bool = True) -> Files:
    server = authority.issue("server", "DNS:localhost", "IP:127.0.0.1")
    return Files(cert=server.cert, key=server.key, client_ca=authority.cert if clients else None)


@asynccontextmanager
async def secured(
    files: Files, roles: Mapping[str, list[str]] | None = None, **more: Any
) -> AsyncIterator[tuple[XdsServer, Cache, Roles]]:
    """A server over TLS whose files are followed; *roles* by alternative name."""
    cache, table = Cache(), Roles()
    table.allow([gloo.XdsClient(san=san, roles=each) for san, each in (roles or {}).items()])
    server = XdsServer(cache, admit=table.admit, **more)
    seen = files.signature()
    await server.start("127.0.0.1", 0, files.load())
    following = asyncio.create_task(follow(files, seen, server.renew, every=0.02))
    try:
        yield server, cache, table
    finally:
        following.cancel()
        await asyncio.wait([following])
        await server.stop(1)


@asynccontextmanager
async def channel_of(
    server: XdsServer, authority: Authority, own: Certificate | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    credentials = grpc.ssl_channel_credentials(
        authority.cert.read_bytes(),
        own.key.read_bytes() if own else None,
        own.cert.read_bytes() if own else None,
    )
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(f"localhost:{server.port}", credentials, options) as channel:
        yield channel


async def ask(channel: grpc.aio.Channel, role: str = ROLE) -> tuple[Any, bytes]:
    """The stream and its first response."""
    request = pb.DiscoveryRequest(type_url=CLUSTER, node=base_pb2.Node(id="raw"))
    request.node.metadata["role"] = role
    call = channel.stream_stream(ADS)()
    await call.write(request.SerializeToString())
    async with asyncio.timeout(10):
        answer = await call.read()
        if answer is grpc.aio.EOF:
            raise grpc.aio.AioRpcError(await call.code(), None, None, details=await call.details())  # type: ignore[arg-type]
    return call, answer


async def served_certificate(server: XdsServer) -> bytes:
    """What a new connection is met with."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    certificate: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return certificate


async def test_a_certificate_of_the_authority_gets_in(authority: Authority) -> None:
    own = authority.issue("client", f"URI:{SPIFFE}")
    async with (
        secured(files_of(authority)) as (server, cache, _),
        channel_of(server, authority, own) as channel,
    ):
        cache.set(ROLE, snapshot({CLUSTER: {"a": "a1"}}))

        call, answer = await ask(channel)

        assert pb.DiscoveryResponse.FromString(answer).resources[0].value == b"a1"
        call.cancel()


HALF_A_HELLO = bytes.fromhex("1603010200010001fc0303")
PLAIN = {"no TLS": b"GET / HTTP/1.1\r\n\r\n", "goes away": HALF_A_HELLO}


def knock(port: int, hello: ssl.SSLContext | bytes) -> None:
    """Connect, say hello and wait for the end; the client says why it does not like us, as Envoy does."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        if isinstance(hello, bytes):
            plain.sendall(hello)
            plain.shutdown(socket.SHUT_WR)
            plain.recv(1)
        else:
            with hello.wrap_socket(plain, server_hostname="localhost") as secure:
                secure.recv(1)


@pytest.mark.parametrize(
    ("who", "why"),
    [
        ("no certificate", "it shows no certificate"),
        ("another's", "its certificate is not accepted: unable to get local issuer certificate"),
        ("expired", "its certificate is not accepted: certificate has expired"),
        ("distrusts us", "it does not accept our certificate: unknown ca"),
        ("no TLS", "it does not speak TLS"),
        ("goes away", "the connection ended before the TLS handshake did"),
    ],
)
async def test_who_fails_at_tls_is_listed_and_counted(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture, who: str, why: str
) -> None:
    other = Authority(tmp_path / "other", "other")
    own = {
        "another's": other.issue("client", f"URI:{SPIFFE}"),
        "expired": authority.issue("client", f"URI:{SPIFFE}", days=-1),
    }.get(who)
    trusted = other if who == "distrusts us" else authority
    context = ssl.create_default_context(cafile=str(trusted.cert))
    if own is not None:
        context.load_cert_chain(own.cert, own.key)
    counted = list[str]()
    async with secured(files_of(authority), measure=lambda event, *_: counted.append(event)) as (server, *_):
        for _ in range(2):
            await asyncio.to_thread(knock, server.port, PLAIN.get(who, context))

        [entry] = await eventually(server.refused, until=lambda rows: rows and rows[0]["times"] == 2)

        assert entry["problem"] == f"the TLS handshake with 127.0.0.1 failed: {why}"
        assert (entry["node"], entry["role"], entry["address"]) == ("", "", "127.0.0.1")
        assert counted == ["handshake failed"] * 2
        assert caplog.text.count(why) == 1
        assert server.streams == 0


async def test_who_only_looks_whether_somebody_listens_has_not_failed(authority: Authority) -> None:
    counted = list[str]()
    async with secured(files_of(authority), measure=lambda event, *_: counted.append(event)) as (server, *_):
        for _ in range(3):
            await asyncio.to_thread(knock, server.port, b"")

        assert (server.refused(), counted) == ([], [])


async def test_others_are_let_in_while_some_never_say_a_word(authority: Authority) -> None:
    own = authority.issue("client", f"URI:{SPIFFE}")
    async with (
        secured(files_of(authority)) as (server, cache, _),
        channel_of(server, authority, own) as channel,
    ):
        cache.set(ROLE, snapshot({CLUSTER: {"a": "a1"}}))
        silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(30)]

        call, _ = await ask(channel)

        call.cancel()
        for _, writer in silent:
            writer.close()


async def test_without_an_authority_for_clients_all_get_in(authority: Authority) -> None:
    async with (
        secured(files_of(authority, clients=False)) as (server, cache, _),
        channel_of(server, authority) as channel,
    ):
        cache.set(ROLE, snapshot({CLUSTER: {"a": "a1"}}))

        call, _ = await ask(channel)

        call.cancel()


async def test_a_role_that_is_not_the_certificates_is_refused_and_listed(authority: Authority) -> None:
    own = authority.issue("client", f"URI:{SPIFFE}", "DNS:gateway.example.org")
    async with (
        secured(files_of(authority), {SPIFFE: [ROLE]}) as (server, cache, _),
        channel_of(server, authority, own) as channel,
    ):
        for role in (ROLE, "ns~other"):
            cache.set(role, snapshot({CLUSTER: {"a": "a1"}}))

        call, _ = await ask(channel)
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await ask(channel, "ns~other")

        words = (
            f"the certificate ({SPIFFE}, gateway.example.org) may not ask for role 'ns~other', only for "
            f"{ROLE}; see settings.gloo.xds.tls.clients"
        )
        assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.PERMISSION_DENIED, words)
        [entry] = server.refused()
        assert (entry["problem"], entry["role"], entry["times"]) == (words, "ns~other", 2)
        assert server.streams == 1
        call.cancel()


async def test_each_stream_of_a_connection_has_the_role_it_began_with(authority: Authority) -> None:
    """A role asked for later, on the stream or beside it, is not had by that."""
    own = authority.issue("client", f"URI:{SPIFFE}")
    async with (
        secured(files_of(authority), {SPIFFE: [ROLE]}) as (server, cache, _),
        channel_of(server, authority, own) as channel,
    ):
        cache.set(ROLE, snapshot({CLUSTER: {"a": "a1"}, ROUTES: {"r": "own"}}))
        cache.set("ns~other", snapshot({CLUSTER: {"a": "a2"}, ROUTES: {"r": "other"}}))
        call, _ = await ask(channel)
        with pytest.raises(grpc.aio.AioRpcError):
            await ask(channel, "ns~other")

        later = pb.DiscoveryRequest(type_url=ROUTES, resource_names=["r"], node=base_pb2.Node(id="raw"))
        later.node.metadata["role"] = "ns~other"
        await call.write(later.SerializeToString())

        async with asyncio.timeout(10):
            answer = pb.DiscoveryResponse.FromString(await call.read())
        assert [each.value for each in answer.resources] == [b"own"]
        assert [client["role"] for client in server.clients()] == [ROLE]
        call.cancel()


async def test_client_status_tells_a_certificate_of_its_own_roles_only(authority: Authority) -> None:
    bound = authority.issue("bound", f"URI:{SPIFFE}")
    other = authority.issue("other", "DNS:other.example.org")
    unknown = authority.issue("unknown", "DNS:unknown.example.org")
    table = {SPIFFE: [ROLE], "other.example.org": ["ns~other"]}
    fetch = "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus"
    async with (
        secured(files_of(authority), table) as (server, cache, _),
        channel_of(server, authority, bound) as first,
        channel_of(server, authority, other) as second,
        channel_of(server, authority, unknown) as third,
    ):
        cache.set(ROLE, snapshot({CLUSTER: {"a": "a1"}}))
        cache.set("ns~other", snapshot({CLUSTER: {"secret": "of the other"}}))
        calls = [(await ask(first))[0], (await ask(second, "ns~other"))[0]]

        told = [
            csds_pb2.ClientStatusResponse.FromString(await c.unary_unary(fetch)(b"")) for c in (first, second)
        ]
        nothing = await third.unary_unary(fetch)(b"")

        roles = [[each.node.metadata["role"] for each in answer.config] for answer in told]
        assert roles == [[ROLE], ["ns~other"]]
        assert b"of the other" not in told[0].SerializeToString()
        assert nothing == b""
        for call in calls:
            call.cancel()


async def test_a_right_taken_away_ends_the_stream(authority: Authority) -> None:
    own = authority.issue("client", f"URI:{SPIFFE}")
    async with (
        secured(files_of(authority), {SPIFFE: [ROLE]}) as (server, cache, roles),
        channel_of(server, authority, own) as channel,
    ):
        cache.set(ROLE, snapshot({CLUSTER: {"a": "a1"}}))
        call, _ = await ask(channel)

        assert roles.allow([gloo.XdsClient(san=SPIFFE, roles=["ns~other"])])
        server.readmit()

        with contextlib.suppress(grpc.aio.AioRpcError):
            await call.read()
        assert await call.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_new_connections_meet_the_new_certificate_and_open_streams_stay(authority: Authority) -> None:
    own = authority.issue("client", f"URI:{SPIFFE}")
    async with (
        secured(files_of(authority)) as (server, cache, _),
        channel_of(server, authority, own) as channel,
    ):
        cache.set(ROLE, snapshot({CLUSTER: {"a": "a1"}}))
        call, _ = await ask(channel)
        port, before = server.port, await served_certificate(server)

        for _ in range(3):
            files_of(authority)
            now = before
            now = await eventually(lambda: served_certificate(server), until=lambda now, b=before: now != b)
            before = now

        assert server.port == port
        cache.set(ROLE, snapshot({CLUSTER: {"a": "a2"}}))
        async with asyncio.timeout(10):
            assert pb.DiscoveryResponse.FromString(await call.read()).resources[0].value == b"a2"
        async with channel_of(server, authority, own) as another:
            more, _ = await ask(another)
            more.cancel()
        call.cancel()


async def test_a_certificate_that_does_not_load_leaves_the_former(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    files = files_of(authority)
    async with secured(files) as (server, _, _):
        before = await served_certificate(server)
        good = files.cert.read_bytes()

        with caplog.at_level(logging.ERROR):
            files.cert.write_text("half of a certifi")
            await eventually(lambda: "the former stay" in caplog.text)

        assert await served_certificate(server) == before
        files.cert.write_bytes(good)


def test_files_that_make_no_context_are_explained(authority: Authority) -> None:
    files, other = files_of(authority), authority.issue("other", "DNS:other")

    with pytest.raises(InvalidSettings, match="no-such-file: No such file"):
        Files(cert=Path("no-such-file"), key=files.key).load()
    with pytest.raises(InvalidSettings, match="KEY_VALUES_MISMATCH"):
        Files(cert=files.cert, key=other.key).load()
    with pytest.raises(InvalidSettings, match="certFile and keyFile are both needed"):
        Files.of(gloo.XdsTls(cert_file="a"))
    with pytest.raises(InvalidSettings, match="needs clientCaFile"):
        Files.of(gloo.XdsTls(cert_file="a", key_file="b", clients=[gloo.XdsClient(san="x")]))


@pytest.mark.parametrize(
    ("names", "role", "refused"),
    [
        ([("URI", SPIFFE)], ROLE, None),
        ([("URI", SPIFFE.upper())], ROLE, "is in none of"),
        ([("DNS", "Any.Example.org")], "whatever", None),
        ([("DNS", "other"), ("URI", SPIFFE)], ROLE, None),
        ([("email", SPIFFE)], ROLE, "no subject alternative name"),
        ([("URI", SPIFFE)], "", "may not ask for role ''"),
        ([("URI", SPIFFE)], "*", r"may not ask for role '\*'"),
    ],
)
def test_roles_go_by_alternative_names(names: list[tuple[str, str]], role: str, refused: str | None) -> None:
    roles = Roles()
    roles.allow(
        [gloo.XdsClient(san=SPIFFE, roles=[ROLE]), gloo.XdsClient(san="any.example.org", roles=["*"])]
    )

    answer = roles.admit(Node(id="n", cluster="", role=role), {"subjectAltName": tuple(names)})

    if refused is None:
        assert answer is None
    else:
        with pytest.raises(AssertionError, match=refused):
            raise AssertionError(answer)


@pytest.mark.parametrize("delta", [False, True], ids=["sotw", "delta"])
async def test_the_real_envoy_over_mutual_tls(authority: Authority, tmp_path: Path, delta: bool) -> None:
    own = authority.issue("client", f"URI:{SPIFFE}")
    content = snapshot_of(clusters=[eds_cluster("a")], endpoints=[endpoints("a", 1)])
    async with secured(files_of(authority), {SPIFFE: [ROLE]}) as (server, cache, _):
        cache.set(ROLE, content)
        for certificate, state in ((own, 1), (None, 0)):
            bootstrap = ads_bootstrap(
                xds_port=server.port, admin_port=free_port(), role=ROLE, delta=delta, node=f"envoy-{state}"
            )
            [cluster] = bootstrap["static_resources"]["clusters"]
            cluster["transport_socket"] = transport_socket(authority, certificate)
            directory = tmp_path / str(state)
            directory.mkdir()
            async with running_envoy(directory, bootstrap) as envoy:
                if certificate is None:
                    await eventually(
                        lambda envoy=envoy: envoy.stats("cluster.xds_cluster.upstream_cx_total"),
                        until=lambda stats: stats["cluster.xds_cluster.upstream_cx_total"] > 1,
                    )
                    assert all(row["node"] != "envoy-0" for row in server.clients())
                else:
                    await eventually(
                        lambda envoy=envoy: envoy.stats("cluster_manager.active_clusters"),
                        until=lambda stats: stats["cluster_manager.active_clusters"] == 2,
                    )


def transport_socket(authority: Authority, own: Certificate | None) -> dict[str, Any]:
    """TLS to the control plane, as the recipe has it."""
    common: dict[str, Any] = {
        "validation_context": {
            "trusted_ca": {"filename": str(authority.cert)},
            "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "localhost"}}],
        }
    }
    if own is not None:
        pair = {
            "certificate_chain": {"filename": str(own.cert)},
            "private_key": {"filename": str(own.key)},
        }
        common["tls_certificates"] = [pair]
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": common,
        },
    }
