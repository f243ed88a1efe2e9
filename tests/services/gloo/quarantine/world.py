"""A role and its Envoys as a script: they answer what is served, as the xDS server would tell of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from envoy.config.route.v3 import route_pb2

from services.gloo.quarantine.held import Blame, Place
from services.gloo.quarantine.quarantine import Quarantine
from services.gloo.resources import ROUTES, Resource, Snapshot, TypeUrl, resource
from shared.ref import Ref, Source

ROLE = "gloo-system~gateway-proxy"
RETRY = 300.0
NAMELESS = "missing ): a(b"
Hosts = Mapping[str, str]


def routes(hosts: Hosts, *, domains: Mapping[str, tuple[str, ...]] | None = None, limit: int = 0) -> Resource:
    """A route configuration whose hosts differ by the name of their one route."""
    made = route_pb2.RouteConfiguration(name="routes")
    for name, content in hosts.items():
        host = made.virtual_hosts.add(name=name, domains=(domains or {}).get(name, (f"{name}.example.com",)))
        host.routes.add(name=content).match.prefix = "/"
    if limit:
        made.max_direct_response_body_size_bytes.value = limit
    body = made.SerializeToString(deterministic=True)
    return resource("routes", body, [Source("VirtualService", Ref("n", name)) for name in hosts])


def contents(served: Resource | None) -> dict[str, str]:
    """Each host's route by its name, as a client reads it."""
    assert served is not None
    hosts = route_pb2.RouteConfiguration.FromString(served.body).virtual_hosts
    return {host.name: host.routes[0].name for host in hosts}


Verdict = Callable[[Resource], str | None]
"""What an Envoy says against a resource; None when it takes it."""


def dislikes(*bad: str, text: str = NAMELESS) -> Verdict:
    return lambda given: text if set(bad) & set(contents(given).values()) else None


class Envoy:
    """A client that answers what it is served of one type, as the xDS server would tell of it."""

    def __init__(self, world: World, name: str, verdict: Verdict, type_url: TypeUrl = ROUTES) -> None:
        self.world, self.name, self.verdict, self.type_url = world, name, verdict, type_url
        self.has: dict[str, Resource] = {}
        self.no: dict[str, int] = {}
        self.refusals: list[Resource] = []
        world.quarantine.connected(name)

    def answer(self) -> bool:
        """Take or refuse what is news; whether there was any."""
        news = self.take()
        for each in news:
            self.say(each)
        return bool(news)

    def take(self) -> list[Resource]:
        served = self.world.served(self.type_url)
        self.has = {name: each for name, each in self.has.items() if name in served}
        return [
            each
            for name, each in served.items()
            if self.has.get(name) != each and self.no.get(name) != each.digest
        ]

    def say(self, each: Resource) -> None:
        place, blame = Place(ROLE, self.type_url, each.name), self.verdict(each)
        self.no.pop(each.name, None)
        if blame is None:
            self.has[each.name] = each
            self.world.quarantine.accepted(self.name, ROLE, self.type_url, [each], self.world.now)
            return
        self.no[each.name] = each.digest
        self.has.pop(each.name, None)  # the server is unsure and sends again what stands in
        self.refusals.append(each)
        who = Blame(client=self.name, node=f"node-{self.name}", text=blame)
        self.world.quarantine.refused(place, who, each, self.world.now)


class World:
    def __init__(self) -> None:
        self.quarantine = Quarantine(retry=RETRY)
        self.now = 0.0
        self._wanted = Snapshot()

    def want(self, *resources: Resource, type_url: TypeUrl = ROUTES) -> None:
        old = self._wanted.of(type_url)
        gone = old.by_name.keys() - {each.name for each in resources}
        self._wanted = self._wanted.replaced({type_url: old.patched(put=resources, drop=gone)})
        self.quarantine.want(ROLE, self._wanted)

    def served(self, type_url: TypeUrl = ROUTES) -> dict[str, Resource]:
        snapshot = self.quarantine.served(ROLE)
        assert snapshot is not None
        return dict(snapshot.of(type_url).by_name)

    def hosts(self) -> dict[str, str]:
        return contents(self.served().get("routes"))

    def settle(self, *envoys: Envoy, rounds: int = 100) -> None:
        for _ in range(rounds):
            moved = [envoy.answer() for envoy in envoys]
            if not any(moved):
                return
        raise AssertionError("the conversation does not end")

    def held(self) -> list[str]:
        return [held.part for held in self.quarantine.held(ROLE)]


def many(count: int, changes: Hosts | None = None) -> dict[str, str]:
    return {f"h{i}": "old" for i in range(count)} | dict(changes or {})


def begun(hosts: Hosts, verdict: Verdict) -> tuple[World, Envoy]:
    """A role whose one Envoy has accepted *hosts*."""
    world = World()
    envoy = Envoy(world, "1", verdict)
    world.want(routes(hosts))
    world.settle(envoy)
    return world, envoy
