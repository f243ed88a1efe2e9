"""TLS towards upstreams, by a real Envoy and services that really speak TLS."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.backends import Backend
from tests.support.certificates import Authority, Certificate, server_context
from tests.support.envoy import running_envoy
from tests.support.golden import static_resources, translate_world
from tests.support.ports import free_ports


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def pets(authority: Authority) -> Certificate:
    return authority.issue("pets", "DNS:pets.internal", "URI:spiffe://pets/a", "IP:127.0.0.1")


async def answers(folder: Path, port: int, configs: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Any]:
    """What Envoy answers for a service on *port* that is reached in each of these ways."""
    at, admin = free_ports(2)
    upstreams = [
        {
            "metadata": {"name": name, "namespace": "ns"},
            "static": {"hosts": [{"addr": "127.0.0.1", "port": port}]},
            **({"sslConfig": config} if config is not None else {}),
        }
        for name, config in configs.items()
    ]
    routes = [
        {
            "matchers": [{"exact": f"/{name}"}],
            "routeAction": {"single": {"upstream": {"name": name, "namespace": "ns"}}},
        }
        for name in configs
    ]
    world, reports = translate_world({"routes": routes, "upstreams": upstreams})
    assert not any(report.errors for report in reports.values()), reports
    bootstrap = {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "static_resources": static_resources({"": world}, port=at),
    }
    async with running_envoy(folder, bootstrap) as envoy:
        return {name: (await envoy.get(at, f"/{name}"))[0] for name in configs}


async def test_an_upstream_must_be_whom_it_is_taken_for(
    tmp_path: Path, authority: Authority, pets: Certificate
) -> None:
    files = {"rootCa": str(authority.cert)}
    others = {"rootCa": str(Authority(tmp_path / "other", "other").cert)}
    async with Backend("pets", tls=server_context(pets)) as backend:
        got = await answers(
            tmp_path,
            backend.port,
            {
                "plain-text": None,
                "unchecked": {},
                "trusted": {"sslFiles": files},
                "not-trusted": {"sslFiles": others},
                "by-name": {"sslFiles": files, "verifySubjectAltName": ["cats.internal", "pets.internal"]},
                "by-uri": {"sslFiles": files, "verifySubjectAltName": ["spiffe://pets/a"]},
                "by-address": {"sslFiles": files, "verifySubjectAltName": ["127.0.0.1"]},
                "other-name": {"sslFiles": files, "verifySubjectAltName": ["cats.internal"]},
            },
        )

    refused = {name for name, status in got.items() if status == 503}
    assert refused == {"plain-text", "not-trusted", "other-name"}
    assert {got[name] for name in got.keys() - refused} == {200}


async def test_an_upstream_sees_our_certificate(
    tmp_path: Path, authority: Authority, pets: Certificate
) -> None:
    envoy = authority.issue("envoy", "DNS:envoy.internal")
    files = {"rootCa": str(authority.cert), "tlsCert": str(envoy.cert), "tlsKey": str(envoy.key)}
    async with Backend("pets", tls=server_context(pets, clients=authority)) as backend:
        got = await answers(
            tmp_path,
            backend.port,
            {
                "shown": {"sslFiles": files},
                "kept-back": {"sslFiles": files, "oneWayTls": True},
                "none": {"sslFiles": {"rootCa": str(authority.cert)}},
            },
        )

    assert got == {"shown": 200, "kept-back": 503, "none": 503}


async def test_an_upstream_is_asked_for_a_name_a_protocol_and_a_version(
    tmp_path: Path, pets: Certificate
) -> None:
    context, names = server_context(pets), list[str | None]()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])

    def note(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        names.append(name)

    context.sni_callback = note  # type: ignore[assignment]
    async with Backend("pets", tls=context) as backend:
        got = await answers(
            tmp_path,
            backend.port,
            {
                "newest": {"sni": "pets.internal", "parameters": {"minimumProtocolVersion": "TLSv1_3"}},
                "default": {},
                "old": {"parameters": {"maximumProtocolVersion": "TLSv1_2"}},
                "http": {"alpnProtocols": ["http/1.1"], "parameters": {"ecdhCurves": ["P-256"]}},
            },
        )

    assert got == {"newest": 200, "default": 200, "old": 503, "http": 200}
    assert names[0] == "pets.internal"
