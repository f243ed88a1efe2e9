"""Worlds of random objects, and the translation of them by gateway and gloo, with no process between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from protos import gloo
from services.gateway.inputs import KINDS as GATEWAYS
from services.gateway.translation import Changes as GatewayChanges
from services.gateway.translation import Translation
from services.gloo.pipeline import Changes, Pipeline, role_of
from services.gloo.plugin import Policy
from services.gloo.resources import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from services.gloo.secrets.source import Answer
from shared.codec.text import render_json
from shared.ref import Ref, Source
from shared.report import Report
from shared.store.keys import ARTIFACT, GATEWAY, PROXY, UPSTREAM, UPSTREAM_GROUP, Kind, key
from shared.store.objects import Stored, decode_value
from tests.services.gateway.support import documents
from tests.services.gloo.test_pipeline import Catalog, Instance
from tests.support.certificates import any_pair
from tests.support.golden import World as GoldenWorld
from tests.support.random_documents import Case, message

NAMESPACE = "ns"
KINDS = {kind.name: kind for kind in (*GATEWAYS, UPSTREAM, UPSTREAM_GROUP, ARTIFACT)}
NAMES = ("a", "b", "consul")
SERVICES = ("petstore", "web")

PARTS = {"listeners": LISTENER, "routes": ROUTES, "clusters": CLUSTER, "endpoints": ENDPOINTS}

Document = dict[str, Any]
World = dict[Source, Document]


def random_edits(random: Case, count: int) -> Iterator[tuple[Source, Document | None]]:
    """Objects that come, go, and come back otherwise; None for one that goes."""
    for _ in range(count):
        kind, name = random.choice(list(KINDS.values())), random.choice(NAMES)
        source = Source(kind.name, Ref(NAMESPACE, name))
        yield source, None if random.random() < 0.2 else random_object(kind, name, random)


def random_object(kind: Kind, name: str, random: Case) -> Document:
    labels = {"tag_v1": random.choice(("x", "y"))}
    return message(kind.message, random) | {
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels}
    }


def random_world(random: Case) -> World:
    """An object of every kind and name, or most of them, and Gateways that serve all VirtualServices."""
    everything = ((kind, name) for kind in KINDS.values() for name in NAMES)
    world = {
        Source(kind.name, Ref(NAMESPACE, name)): random_object(kind, name, random)
        for kind, name in everything
        if random.random() < 0.8
    }
    delegated = {"delegatedHttpGateways": {"selector": {}}, "delegatedTcpGateways": {"selector": {}}}
    for name, port in (("plain", 80), ("secure", 443), ("shared", 90)):
        gateway = {"hybridGateway": delegated} if name == "shared" else {"httpGateway": {}}
        document = {"bindAddress": "::", "bindPort": port, "ssl": name == "secure", **gateway}
        metadata = {"name": name, "namespace": NAMESPACE}
        world[Source(GATEWAY.name, Ref(NAMESPACE, name))] = {"metadata": metadata, **document}
    return world


def secret(ref: Ref) -> Answer:
    """What is in every secret that objects refer to: a key of AWS, or certificates."""
    if ref.name == "b":
        return Answer(secret=gloo.Secret(aws=gloo.AwsSecret(access_key="key", secret_key="secret")))
    certificate, private_key, _ = any_pair()
    tls = gloo.TlsSecret(cert_chain=certificate, private_key=private_key, root_ca=certificate)
    return Answer(secret=gloo.Secret(tls=tls))


class System:
    """Both translations and the Proxies between them; services are there, and secrets, but *lost* ones."""

    def __init__(self) -> None:
        catalog = Catalog()
        catalog.services = {name: (Instance("127.0.0.1", 80, tags=("v1",)),) for name in SERVICES}
        self.translation = Translation(NAMESPACE)
        self.pipeline = Pipeline(catalog, Policy())
        self.proxies: dict[str, Document] = {}
        self.lost: frozenset[Ref] = frozenset()
        self._stored: dict[Source, Stored] = {}
        self._index = 0

    async def apply(self, edits: Mapping[Source, Document | None], *, secrets: Iterable[Ref] = ()) -> None:
        """Take *edits*; *secrets* are known before, all others once something refers to them."""
        above, below = GatewayChanges(), Changes(secrets={ref: secret(ref) for ref in secrets})
        for source, document in edits.items():
            kind = KINDS[source.kind]
            if kind in GATEWAYS:
                put, gone = self._change(kind, source, document)
                above.add(put, gone)
            else:
                self._add(below, kind, source, document)
        self.translation.update(above)
        now = documents(self.translation)
        for name in self.proxies.keys() | now.keys():
            if self.proxies.get(name) != now.get(name):
                self._add(below, PROXY, Source("Proxy", Ref(NAMESPACE, name)), now.get(name))
        self.proxies = now
        await self.pipeline.apply(below)
        await self._read(self.pipeline.secrets_wanted - self.pipeline.secrets.known.keys())

    async def lose(self, lost: frozenset[Ref]) -> None:
        """Have these secrets be away, and all others there."""
        moved, self.lost = self.lost ^ lost, lost
        await self._read(moved & self.pipeline.secrets_wanted)

    async def _read(self, refs: frozenset[Ref]) -> None:
        away = Answer(problem="not there", absent=True)
        if refs:
            found = {ref: away if ref in self.lost else secret(ref) for ref in refs}
            await self.pipeline.apply(Changes(secrets=found))

    def reports(self) -> dict[Source, Report]:
        """What is said of each object, by gateway and by gloo."""
        found = {source: self.translation.report(source) for source in self.translation.objects}
        told = [
            self.pipeline.reports,
            *(self.pipeline.found_in(Ref(NAMESPACE, name)) for name in self.proxies),
        ]
        for source, report in (pair for reports in told for pair in reports.items()):
            found.setdefault(source, Report()).add(report)
        return found

    def served(self) -> dict[str, dict[str, bytes]]:
        """What Envoys get, by role and by type and name."""
        found = {}
        for name in self.proxies:
            snapshot = self.pipeline.snapshot(Ref(NAMESPACE, name))
            found[role_of(Ref(NAMESPACE, name))] = {
                f"{kind} {each.name}": each.body
                for kind, resources in snapshot.by_type.items()
                for each in resources.by_name.values()
            }
        return found

    def worlds(self) -> Iterator[GoldenWorld]:
        """What Envoys get, for ``tests.support.golden.static_resources``."""
        for name in self.proxies:
            snapshot = self.pipeline.snapshot(Ref(NAMESPACE, name))
            yield {part: list(snapshot.of(kind).by_name.values()) for part, kind in PARTS.items()}

    def _add(self, changes: Changes, kind: Kind, source: Source, document: Document | None) -> None:
        put, gone = self._change(kind, source, document)
        changes.add(kind, {each.ref: each for each in put}, {each.ref for each in gone})

    def _change(
        self, kind: Kind, source: Source, document: Document | None
    ) -> tuple[list[Stored], list[Source]]:
        if document is None:
            self._stored.pop(source, None)
            return [], [source]
        self._index += 1
        previous, path = self._stored.get(source), key("gloo", kind, source.ref)
        stored = decode_value("gloo", path, render_json(document), self._index, previous=previous)
        assert stored is not None
        self._stored[source] = stored
        return [stored], []
