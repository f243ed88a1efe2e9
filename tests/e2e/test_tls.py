"""HTTPS with certificates from Vault: renewed, missing, wrong, Vault away, and shown to nobody."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.backends import Backend
from tests.support.certificates import Authority, Certificate, server_context
from tests.support.https import Met, client_context, https_get
from tests.support.ports import free_port
from tests.support.stack import GATEWAY, Stack, direct, fetch, to_upstream, virtual_service
from tests.support.traffic import undisturbed
from tests.support.vault import VaultServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.e2e

CATS, DOGS = "cats.example.com", "dogs.example.com"


class Site:
    """A stack with a TLS Gateway whose certificates are in Vault."""

    def __init__(self, stack: Stack, vault: VaultServer, folder: Path) -> None:
        self.stack = stack
        self.vault = vault
        self.port = free_port()
        self.authority = Authority(folder / "ca")

    async def start(self) -> None:
        gateway = GATEWAY | {"bindPort": self.port, "ssl": True}
        await self.stack.put("Gateway", "gateway-proxy-ssl", gateway)

    async def store(self, name: str, certificate: Certificate, *, trusting: Authority | None = None) -> None:
        tls = {"certChain": certificate.cert.read_text(), "privateKey": certificate.key.read_text()}
        if trusting is not None:
            tls["rootCa"] = trusting.cert.read_text()
        await self.vault.put("gloo-system", name, tls=tls)

    def issue(self, domain: str) -> Certificate:
        return self.authority.issue(domain, f"DNS:{domain}")

    async def serve(self, name: str, domain: str, *routes: dict[str, Any], **ssl: Any) -> None:
        config = {"secretRef": {"name": name, "namespace": "gloo-system"}, "sniDomains": [domain], **ssl}
        service = virtual_service(*(routes or (direct("/", f"this is {name}"),)), domains=[domain])
        await self.stack.put("VirtualService", name, service | {"sslConfig": config})

    async def another(self, name: str) -> Certificate:
        """The certificate of one more VirtualService, called as it is."""
        certificate = self.issue(f"{name}.example.com")
        await self.store(name, certificate)
        await self.serve(name, f"{name}.example.com")
        return certificate

    async def get(self, domain: str, **how: Any) -> Met:
        return await https_get(self.port, domain, **how)

    async def shows(self, domain: str, certificate: Certificate, within: float = 15.0) -> Met:
        return await eventually(
            lambda: self.get(domain), until=lambda met: met.shows(certificate), within=within
        )

    async def stat(self, name: str) -> int:
        found = json.loads(await self.stack.envoy(f"/stats?format=json&filter=^{name}$"))["stats"]
        return sum(int(each["value"]) for each in found)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with VaultServer(tmp_path) as vault:
        source = {"address": vault.address, "token": "root"}
        settings = {"vaultSecretSource": source, "refreshRate": "1s"}
        async with Stack(tmp_path, settings=settings) as stack:
            site = Site(stack, vault, tmp_path)
            await site.start()
            yield site


async def test_renewing_a_certificate_drops_no_connection_and_sends_no_listener(site: Site) -> None:
    first = site.issue(CATS)
    await site.store("cats", first)
    await site.serve("cats", CATS)
    await site.shows(CATS, first)
    await site.stack.status_is("Accepted", "VirtualService", "cats")
    changes = await site.stat("listener_manager.listener_modified|listener_manager.lds.update_success")
    trusting = client_context(site.authority)

    async with undisturbed(site.port, CATS, saying=["this is cats"], tls=trusting) as traffic:
        second = site.issue(CATS)
        await site.store("cats", second)
        await site.shows(CATS, second)
        await traffic.flows()

    assert (
        await site.stat("listener_manager.listener_modified|listener_manager.lds.update_success") == changes
    )


async def test_an_edit_of_one_certificate_drains_no_other_chain(site: Site) -> None:
    cats, dogs, other = site.issue(CATS), site.issue(DOGS), site.authority.issue("other", f"DNS:{DOGS}")
    for name, certificate in (("cats", cats), ("dogs", dogs), ("other", other)):
        await site.store(name, certificate)
    await site.serve("cats", CATS)
    await site.serve("dogs", DOGS)
    await site.shows(CATS, cats)
    await site.shows(DOGS, dogs)

    async with undisturbed(site.port, CATS, saying=["this is cats"], tls=client_context(site.authority)):
        await site.serve(
            "dogs", DOGS, secretRef={"name": "other", "namespace": "gloo-system"}, alpnProtocols=["http/1.1"]
        )
        await site.shows(DOGS, other)
        await site.stack.delete("VirtualService", "dogs")
        await eventually(lambda: site.get(DOGS), until=lambda met: met.status == 0)


async def test_a_missing_or_wrong_secret_costs_only_who_refers_to_it(site: Site) -> None:
    cats, dogs = site.issue(CATS), site.issue(DOGS)
    await site.store("cats", cats)
    await site.serve("cats", CATS)
    await site.serve("dogs", DOGS)
    await site.shows(CATS, cats)
    await site.stack.status_is(
        "Rejected",
        "VirtualService",
        "dogs",
        saying="sslConfig.secretRef: Secret gloo-system.dogs: not in Vault at "
        "secret/data/gloo/gloo.solo.io/v1/Secret/gloo-system/dogs",
    )
    await site.stack.status_is("Accepted", "VirtualService", "cats")

    await site.store("dogs", dogs)
    await site.shows(DOGS, dogs)
    await site.stack.status_is("Accepted", "VirtualService", "dogs")

    await site.store("dogs", Certificate(cert=dogs.cert, key=cats.key))
    await site.stack.status_is(
        "Rejected", "VirtualService", "dogs", saying="certChain and privateKey do not belong together"
    )
    assert (await site.get(DOGS)).shows(dogs), "the last good version stays"

    await site.store("dogs", site.authority.issue("odd", f"DNS:{DOGS}", curve="secp224r1"))
    await site.stack.status_is(
        "Rejected", "VirtualService", "dogs", saying="refused secret secret:gloo-system/dogs"
    )
    assert (await site.get(DOGS)).shows(dogs), "Envoy keeps what it has"

    await site.vault.delete("gloo-system", "dogs")
    await site.stack.status_is("Rejected", "VirtualService", "dogs", saying="not in Vault")
    assert (await site.get(DOGS)).shows(dogs)

    await site.serve("dogs", DOGS, parameters={"cipherSuites": ["RC4"]})
    await site.stack.status_is("Rejected", "VirtualService", "dogs", saying="'RC4' is no cipher")
    assert (await site.get(DOGS)).shows(dogs)
    assert (await site.get(CATS)).shows(cats)


async def test_clients_and_upstreams_prove_who_they_are(site: Site, tmp_path: Path) -> None:
    clients, upstreams = Authority(tmp_path / "clients"), Authority(tmp_path / "upstreams")
    server = site.issue(CATS)
    await site.store("cats", server, trusting=clients)
    await site.store("pets", upstreams.issue("envoy"), trusting=upstreams)
    pets = server_context(upstreams.issue("pets", "DNS:pets.internal"), clients=upstreams)
    async with Backend("pets", tls=pets) as backend:
        await site.stack.put(
            "Upstream",
            "pets",
            {
                "static": {"hosts": [{"addr": "127.0.0.1", "port": backend.port}]},
                "sslConfig": {
                    "secretRef": {"name": "pets", "namespace": "gloo-system"},
                    "verifySubjectAltName": ["pets.internal"],
                },
            },
        )
        await site.serve(
            "cats", CATS, to_upstream("/", "pets"), verifySubjectAltName=["spiffe://cats/client"]
        )
        right = clients.issue("right", "URI:spiffe://cats/client")
        wrong = clients.issue("wrong", "URI:spiffe://dogs/client")
        stranger = site.authority.issue("stranger", "URI:spiffe://cats/client")

        def showing(certificate: Certificate | None) -> Any:
            return client_context(site.authority, certificate)

        await eventually(
            lambda: site.get(CATS, context=showing(right)), until=lambda met: met.status == 200, within=15
        )
        for certificate in (None, wrong, stranger):
            assert (await site.get(CATS, context=showing(certificate))).status == 0


async def test_renewed_files_are_taken_up_by_envoy_itself(site: Site, tmp_path: Path) -> None:
    first = site.issue(CATS)
    files = tmp_path / "files"
    moved(first, files)
    config = {"tlsCert": str(files / "cert.pem"), "tlsKey": str(files / "key.pem")}
    service = virtual_service(direct("/", "this is cats"), domains=[CATS])
    await site.stack.put("VirtualService", "cats", service | {"sslConfig": {"sslFiles": config}})
    await site.shows(CATS, first)

    async with undisturbed(site.port, CATS, saying=["this is cats"], tls=client_context(site.authority)):
        second = site.issue(CATS)
        moved(second, files)
        await site.shows(CATS, second)


async def test_files_that_come_later_are_found(site: Site, tmp_path: Path) -> None:
    files = tmp_path / "later"
    config = {"tlsCert": str(files / "cert.pem"), "tlsKey": str(files / "key.pem")}
    service = virtual_service(direct("/", "this is cats"), domains=[CATS])
    await site.stack.put("VirtualService", "cats", service | {"sslConfig": {"sslFiles": config}})
    await site.stack.status_is("Rejected", "VirtualService", "cats", saying="No such file")

    certificate = site.issue(CATS)
    moved(certificate, files)
    await site.shows(CATS, certificate, within=30)
    await site.stack.status_is("Accepted", "VirtualService", "cats")


async def test_files_that_envoy_does_not_have_cost_nothing_that_was_served(
    site: Site, tmp_path: Path
) -> None:
    cats, dogs, trusting = site.issue(CATS), site.issue(DOGS), client_context(site.authority)
    kept, missing = tmp_path / "kept", tmp_path / "missing"
    moved(cats, kept)

    async def serve(folder: Path, says: str = "this is cats") -> None:
        files = {"tlsCert": str(folder / "cert.pem"), "tlsKey": str(folder / "key.pem")}
        service = virtual_service(direct("/", says), domains=[CATS])
        config = {"sslFiles": files, "sniDomains": [CATS]}
        await site.stack.put("VirtualService", "cats", service | {"sslConfig": config})

    async def restart() -> None:
        await site.stack.stop_process("gloo")
        site.stack.start_role("gloo", flags=["--state-dir", str(tmp_path / "state")])
        await site.stack.ready("gloo")

    await restart()
    await serve(kept)
    await site.store("dogs", dogs)
    await site.serve("dogs", DOGS)
    await site.shows(CATS, cats)
    await site.shows(DOGS, dogs)
    async with undisturbed(site.port, DOGS, saying=["this is dogs"], tls=trusting):
        async with undisturbed(
            site.port, CATS, saying=["this is cats", "still cats"], tls=trusting
        ) as traffic:
            for _ in range(2):
                await serve(missing)
                await site.stack.status_is("Rejected", "VirtualService", "cats", saying="No such file")
                await serve(kept)
                await site.stack.status_is("Accepted", "VirtualService", "cats")
            await site.store("odd", site.authority.issue("odd", f"DNS:{CATS}", curve="secp224r1"))
            await site.serve("cats", CATS, secretRef={"name": "odd", "namespace": "gloo-system"})
            words = "refused secret secret:gloo-system/odd"
            await site.stack.status_is("Rejected", "VirtualService", "cats", saying=words)
            await traffic.flows()

            await serve(missing, "still cats")
            words = "No such file or directory"
            await site.stack.status_is("Rejected", "VirtualService", "cats", saying=words)
            await restart()
            await site.shows("birds.example.com", await site.another("birds"))
            await site.stack.status_is("Rejected", "VirtualService", "cats", saying=words)
            await site.stack.status_is("Accepted", "VirtualService", "dogs")
            await traffic.flows()
            met = await site.get(CATS)
            assert (met.shows(cats), met.text) == (True, "still cats")

        renewed = site.issue(CATS)
        moved(renewed, missing)
        await site.shows(CATS, renewed, within=30)
        await site.stack.status_is("Accepted", "VirtualService", "cats")
        await site.stack.status_is("Accepted", "Proxy", "gateway-proxy")
    await eventually(
        lambda: site.stack.envoy("/clusters"), until=lambda clusters: "trial:" not in clusters, within=30.0
    )


async def test_files_that_envoy_does_not_have_cost_a_tcp_host_nothing_that_was_served(
    site: Site, tmp_path: Path
) -> None:
    cats, dogs, trusting = site.issue(CATS), site.issue(DOGS), client_context(site.authority)
    kept, missing, others = tmp_path / "kept", tmp_path / "missing", tmp_path / "others"
    moved(cats, kept)
    moved(dogs, others)
    port = free_port()

    def host(name: str, domain: str, folder: Path) -> dict[str, Any]:
        files = {"tlsCert": str(folder / "cert.pem"), "tlsKey": str(folder / "key.pem")}
        to = {"single": {"upstream": {"name": "pets", "namespace": "gloo-system"}}}
        return {
            "name": name,
            "destination": to,
            "sslConfig": {"sslFiles": files, "sniDomains": [domain]},
        }

    async def serve(folder: Path) -> None:
        hosts = [host("cats", CATS, folder), host("dogs", DOGS, others)]
        gateway = {"bindAddress": "127.0.0.1", "bindPort": port, "proxyNames": ["gateway-proxy"]}
        await site.stack.put("Gateway", "tcp", gateway | {"tcpGateway": {"tcpHosts": hosts}})

    async with Backend("pets") as backend:
        hosts = [{"addr": "127.0.0.1", "port": backend.port}]
        await site.stack.put("Upstream", "pets", {"static": {"hosts": hosts}})
        await serve(kept)
        for domain, certificate in ((CATS, cats), (DOGS, dogs)):
            await eventually(
                lambda domain=domain: https_get(port, domain),
                until=lambda met, certificate=certificate: met.shows(certificate),
                within=15.0,
            )
        async with (
            undisturbed(port, DOGS, tls=trusting),
            undisturbed(port, CATS, tls=trusting) as traffic,
        ):
            for _ in range(2):
                await serve(missing)
                await site.stack.status_is("Rejected", "Gateway", "tcp", saying="No such file")
                await traffic.flows()
                await serve(kept)
                await site.stack.status_is("Accepted", "Gateway", "tcp")
            await serve(missing)
            await site.stack.status_is("Rejected", "Gateway", "tcp", saying="No such file")
            await traffic.flows()

        renewed = site.issue(CATS)
        moved(renewed, missing)
        await eventually(lambda: https_get(port, CATS), until=lambda met: met.shows(renewed), within=30.0)
        await site.stack.status_is("Accepted", "Gateway", "tcp")


def moved(certificate: Certificate, folder: Path) -> None:
    """Put copies in their place as renewing tools do: written beside it, then moved."""
    folder.mkdir(exist_ok=True)
    for name, source in (("cert.pem", certificate.cert), ("key.pem", certificate.key)):
        scratch = folder / f"{name}.new"
        scratch.write_bytes(source.read_bytes())
        scratch.replace(folder / name)


async def test_with_vault_away_everything_stays_as_it_is(site: Site, tmp_path: Path) -> None:
    stack = site.stack
    await stack.stop_process("gloo")
    stack.start_role("gloo", flags=["--state-dir", str(tmp_path / "state")])
    await stack.ready("gloo")
    cats = site.issue(CATS)
    await site.store("cats", cats)
    await site.serve("cats", CATS)
    await site.shows(CATS, cats)
    await eventually(lambda: list((tmp_path / "state").glob("*.snapshot")))

    async with undisturbed(site.port, CATS, saying=["this is cats"], tls=client_context(site.authority)):
        await site.vault.stop()
        ready = f"http://127.0.0.1:{stack.admins['gloo']}/readyz"
        await eventually(
            lambda: fetch(ready), until=lambda answer: "does not answer" in answer.text, within=30
        )
        assert (await fetch(ready)).status == 200
        await stack.put("VirtualService", "plain", virtual_service(direct("/", "plain"), domains=["plain"]))
        await stack.answers("/", host="plain", saying="plain")

        await stack.stop_process("gloo")
        stack.start_role("gloo", flags=["--state-dir", str(tmp_path / "state")])
        await stack.ready("gloo")
        await stack.put("VirtualService", "plain", virtual_service(direct("/", "again"), domains=["plain"]))
        await stack.answers("/", host="plain", saying="again")
        await stack.status_is("Rejected", "VirtualService", "cats", saying="does not answer")

    assert (await site.get(CATS)).shows(cats)


async def test_a_gloo_that_remembers_nothing_waits_for_vault(site: Site) -> None:
    stack = site.stack
    cats = site.issue(CATS)
    await site.store("cats", cats)
    await site.serve("cats", CATS)
    await site.shows(CATS, cats)

    async with undisturbed(site.port, CATS, saying=["this is cats"], tls=client_context(site.authority)):
        await stack.stop_process("gloo")
        await site.vault.stop()
        stack.start_role("gloo")
        ready = f"http://127.0.0.1:{stack.admins['gloo']}/readyz"
        waiting = await eventually(
            lambda: fetch(ready),
            until=lambda answer: "waiting for 1 secrets: Vault at" in answer.text,
            within=30,
        )
        assert waiting.status == 503

        await site.vault.start()  # with nothing in it: it is not durable
        await site.store("cats", cats)
        await stack.ready("gloo")
    assert (await site.get(CATS)).shows(cats)


async def test_nobody_is_shown_a_key(site: Site, tmp_path: Path) -> None:
    stack = site.stack
    await stack.stop_process("gloo")
    stack.start_role("gloo", flags=["--state-dir", str(tmp_path / "state"), "--log-level", "debug"])
    await stack.ready("gloo")
    cats = site.issue(CATS)
    await site.store("cats", cats)
    await site.serve("cats", CATS)
    await site.shows(CATS, cats)
    await site.vault.put("gloo-system", "cats", tls=f"{cats.key.read_text()}")
    await stack.status_is("Rejected", "VirtualService", "cats", saying="cannot be decoded as a Secret: tls")
    await site.store("cats", cats)
    await stack.status_is("Accepted", "VirtualService", "cats")
    await eventually(lambda: list((tmp_path / "state").glob("*.snapshot")))
    await stack.stop_process("gateway")

    secret = cats.key.read_text().splitlines()[1]
    admin = f"http://127.0.0.1:{stack.admins['gloo']}"
    pages = json.loads((await fetch(f"{admin}/debug")).text)["pages"]
    pages += ["/metrics", "/readyz", "/debug/snapshot/gloo-system~gateway-proxy"]
    told = [(await fetch(f"{admin}{page}")).text for page in pages if "…" not in page]
    assert len(told) > 5
    told.append((await fetch(f"{stack.consul.url}/v1/kv/?recurse")).text)
    await stack.stop_process("gloo")
    told += [each.read_text(errors="replace") for each in (tmp_path / "state").iterdir()]
    told += [(tmp_path / f"{role}.log").read_text() for role in ("gloo", "gateway", "discovery")]
    assert not [text[:200] for text in told if secret in text]
    assert any("secret:gloo-system/cats" in text for text in told)
