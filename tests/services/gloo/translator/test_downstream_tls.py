"""TLS towards clients by a real Envoy: what is offered, and certificates of a service of the user's own."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from services.gloo.resources import SECRET, Resources, Snapshot
from services.gloo.xds import Cache, Options
from services.gloo.xds.server import XdsServer
from tests.services.gloo.xds.drivers import ROLE
from tests.services.gloo.xds.test_secrets_with_envoy import secret
from tests.services.gloo.xds.test_with_envoy import Watch
from tests.support.certificates import Authority, Certificate
from tests.support.envoy import ads_bootstrap, running_envoy
from tests.support.golden import static_resources, translate_world
from tests.support.https import Met, client_context, https_get
from tests.support.ports import free_ports
from tests.support.waiting import eventually

ROUTE = {"matchers": [{"prefix": "/"}], "directResponseAction": {"status": 200, "body": "hello"}}


def listener(*configs: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "tls",
        "bindAddress": "127.0.0.1",
        "bindPort": 1,
        "httpListener": {"virtualHosts": [{"name": "all", "domains": ["*"], "routes": [ROUTE]}]},
        "sslConfigurations": list(configs),
    }


def bootstrap(port: int, admin: int, *configs: dict[str, Any], sds: int = 1) -> dict[str, Any]:
    """An Envoy that serves all of it statically, and knows the service on port *sds* as ``xds_cluster``."""
    world, reports = translate_world({"proxy": {"listeners": [listener(*configs)]}})
    assert not any(report.errors for report in reports.values()), reports
    made = ads_bootstrap(xds_port=sds, admin_port=admin, role=ROLE)
    del made["dynamic_resources"]
    resources = static_resources({"": world}, port=port)
    resources["clusters"] += made["static_resources"]["clusters"]
    return made | {"static_resources": resources}


async def test_clients_are_offered_what_the_configuration_says(tmp_path: Path) -> None:
    authority, (port, admin) = Authority(tmp_path / "ca"), free_ports(2)
    made = {name: authority.issue(name, f"DNS:{name}", f"DNS:x.{name}") for name in ("new", "old", "any")}

    def config(name: str, **fields: Any) -> dict[str, Any]:
        files = {"tlsCert": str(made[name].cert), "tlsKey": str(made[name].key)}
        return {"sslFiles": files, **fields}

    def only(version: ssl.TLSVersion) -> ssl.SSLContext:
        context = client_context(authority)
        context.minimum_version = context.maximum_version = version
        return context

    configs = (
        config("new", sniDomains=["NEW", "*.new"], parameters={"minimumProtocolVersion": "TLSv1_3"}),
        config("old", sniDomains=["old"], parameters={"maximumProtocolVersion": "TLSv1_2"}),
        config("any"),
    )
    async with running_envoy(tmp_path, bootstrap(port, admin, *configs)):

        async def met(name: str, context: ssl.SSLContext | None = None) -> Met:
            return await https_get(port, name, context=context or client_context())

        for name, certificate in (
            ("new", "new"),
            ("x.new", "new"),
            ("old", "old"),
            ("other", "any"),
            ("", "any"),
        ):
            assert (await met(name)).shows(made[certificate]), name
        assert (await met("new", only(ssl.TLSVersion.TLSv1_3))).status == 200
        assert (await met("new", only(ssl.TLSVersion.TLSv1_2))).status == 0
        assert (await met("old", only(ssl.TLSVersion.TLSv1_2))).status == 200
        assert (await met("old", only(ssl.TLSVersion.TLSv1_3))).status == 0


async def test_certificates_come_from_a_service_of_the_users_own(tmp_path: Path) -> None:
    authority, (port, admin) = Authority(tmp_path / "ca"), free_ports(2)
    pair: Certificate = authority.issue("pets", "DNS:pets")
    cache, watch = Cache(), Watch()
    server = XdsServer(cache, Options(), watch, measure=watch.measure)
    await server.start("127.0.0.1", 0)
    cache.set(ROLE, Snapshot({SECRET: Resources.of([secret("pets-pair", pair)])}))
    config = {"sds": {"clusterName": "xds_cluster", "certificatesSecretName": "pets-pair"}}

    async with running_envoy(tmp_path, bootstrap(port, admin, config, sds=server.port)):
        await eventually(lambda: https_get(port, "pets"), until=lambda met: met.shows(pair), within=20)
    await server.stop(1)
