"""Secrets over ADS to the real Envoy: served, rotated, refused."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from protos.envoy import core, hcm, listener, route, router, tls
from services.gloo.resources import LISTENER, SECRET, Resource, Resources, Snapshot, resource
from services.gloo.xds import Cache, Options
from services.gloo.xds.server import XdsServer
from shared.codec.encode import encode, pack
from tests.services.gloo.xds.drivers import ROLE
from tests.services.gloo.xds.test_with_envoy import Watch
from tests.support.certificates import Authority, Certificate
from tests.support.envoy import ads_bootstrap, running_envoy
from tests.support.ports import free_ports
from tests.support.waiting import eventually


def secret(name: str, certificate: Certificate | None) -> Resource:
    chain = certificate.cert.read_bytes() if certificate else b"no certificate"
    key = certificate.key.read_bytes() if certificate else b"no key"
    pair = tls.TlsCertificate(
        certificate_chain=core.DataSource(inline_bytes=chain), private_key=core.DataSource(inline_bytes=key)
    )
    return resource(name, encode(tls.Secret(name=name, tls_certificate=pair)))


def https_listener(port: int, secret_name: str) -> Resource:
    """Answers every request itself, with a certificate that comes as a secret."""
    ads = core.ConfigSource(ads=core.AggregatedConfigSource(), resource_api_version=core.ApiVersion.V3)
    answer = route.Route(
        match=route.RouteMatch(prefix="/"), direct_response=route.DirectResponseAction(status=200)
    )
    manager = hcm.HttpConnectionManager(
        stat_prefix="https",
        route_config=route.RouteConfiguration(
            name="routes", virtual_hosts=[route.VirtualHost(name="all", domains=["*"], routes=[answer])]
        ),
        http_filters=[hcm.HttpFilter(name="envoy.filters.http.router", typed_config=pack(router.Router()))],
    )
    context = tls.DownstreamTlsContext(
        common_tls_context=tls.CommonTlsContext(
            tls_certificate_sds_secret_configs=[tls.SdsSecretConfig(name=secret_name, sds_config=ads)]
        )
    )
    chain = listener.FilterChain(
        filters=[
            listener.Filter(name="envoy.filters.network.http_connection_manager", typed_config=pack(manager))
        ],
        transport_socket=core.TransportSocket(name="envoy.transport_sockets.tls", typed_config=pack(context)),
    )
    address = core.Address(socket_address=core.SocketAddress(address="127.0.0.1", port_value=port))
    made = listener.Listener(name="https", address=address, filter_chains=[chain])
    return resource("https", encode(made))


async def presented(port: int) -> bytes:
    """The certificate a new connection is met with."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with asyncio.timeout(5):
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    certificate: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return certificate


def der(certificate: Certificate) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.cert.read_text())


@pytest.mark.parametrize("delta", [False, True], ids=["sotw", "delta"])
async def test_a_secret_is_served_rotated_and_when_refused_the_old_one_stays(
    tmp_path: Path, delta: bool
) -> None:
    authority = Authority(tmp_path / "ca")
    first, second = (authority.issue(name, "DNS:localhost") for name in ("first", "second"))
    port, admin = free_ports(2)
    cache, watch = Cache(), Watch()
    server = XdsServer(cache, Options(removal_grace=0.2), watch, measure=watch.measure)
    await server.start("127.0.0.1", 0)
    listeners = Resources.of([https_listener(port, "pair")])

    def serve(certificate: Certificate | None) -> None:
        secrets = Resources.of([secret("pair", certificate)])
        cache.set(ROLE, Snapshot({LISTENER: listeners, SECRET: secrets}))

    serve(first)
    bootstrap = ads_bootstrap(xds_port=server.port, admin_port=admin, role=ROLE, delta=delta)
    async with running_envoy(tmp_path, bootstrap):
        await eventually(lambda: presented(port), until=lambda found: found == der(first))
        listeners_sent = watch.sent[LISTENER]

        serve(second)
        await eventually(lambda: presented(port), until=lambda found: found == der(second))

        serve(None)
        await eventually(lambda: watch.refusals)
        assert [(kind, names) for kind, names, _ in watch.refusals] == [(SECRET, ("pair",))]
        assert await presented(port) == der(second)

        serve(first)
        await eventually(lambda: presented(port), until=lambda found: found == der(first))
        assert watch.sent[LISTENER] == listeners_sent
    await server.stop(1)
