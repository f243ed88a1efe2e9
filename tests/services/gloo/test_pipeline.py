"""From objects to snapshots: what is served, what is said, and how little is translated again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.route.v3 import route_pb2

from services.gloo.memory import Memory
from services.gloo.parts import parts_of
from services.gloo.pipeline import Changes, Outcome, Pipeline
from services.gloo.plugin import Policy
from services.gloo.quarantine.held import Blame, Held, Place
from services.gloo.resources import CLUSTER, ENDPOINTS, LISTENER, ROUTES, Snapshot
from services.gloo.translator.endpoints import Endpoint
from shared.codec.text import render_json
from shared.ref import Ref, Source
from shared.store.keys import PROXY, UPSTREAM, UPSTREAM_GROUP, Kind, key
from shared.store.objects import Stored, decode_value

ROLE = "gloo-system~gateway-proxy"
PROXY_SOURCE = Source("Proxy", Ref("gloo-system", "gateway-proxy"))
ROUTES_NAME = "listener-routes"


@dataclass(frozen=True)
class Instance:
    """An endpoint as the table gives it."""

    address: str
    port: int
    weight: int = 1
    tags: tuple[str, ...] = ()
    datacenter: str = "dc1"
    hostname: str = ""


class Catalog:
    """The instances of each service."""

    def __init__(self) -> None:
        self.services: dict[str, tuple[Instance, ...]] = {}
        self.unread: frozenset[str] = frozenset()

    def endpoints(
        self,
        service: str,
        *,
        datacenters: Collection[str] = (),
        instance_tags: Collection[str] = (),
        blacklist_tags: Collection[str] = (),
    ) -> tuple[Endpoint, ...]:
        return self.services.get(service, ())


class World:
    """A pipeline and what stands in Consul; each edit applies one change and gives its outcome."""

    def __init__(
        self, policy: Policy | None = None, memory: Memory | None = None, catalog: Catalog | None = None
    ) -> None:
        self.catalog = catalog or Catalog()
        self.stand_ins: list[bytes] = []
        self.pipeline = Pipeline(
            self.catalog, policy or Policy(), memory=memory, stand_ins=lambda: self.stand_ins
        )
        self.index = 0
        self.stored: dict[Source, Stored] = {}

    def restarted(self) -> World:
        """Another process that remembers what this one serves, and sees the same instances."""
        served = {PROXY_SOURCE.ref: self.pipeline.snapshot(PROXY_SOURCE.ref)}
        partial = self.pipeline.proxies.served[PROXY_SOURCE.ref].partial
        memory = Memory(
            served, self.pipeline.clusters.following, [(PROXY_SOURCE.ref, *host) for host in partial]
        )
        return World(memory=memory, catalog=self.catalog)

    async def put(self, kind: Kind, name: str, document: dict[str, Any] | bytes) -> Outcome:
        return await self.put_all((kind, name, document))

    async def put_all(self, *objects: tuple[Kind, str, dict[str, Any] | bytes]) -> Outcome:
        changes = Changes()
        for kind, name, document in objects:
            self.index += 1
            raw = document if isinstance(document, bytes) else render_json(document)
            ref = Ref("gloo-system", name)
            previous = self.stored.get(Source(kind.name, ref))
            stored = decode_value("gloo", key("gloo", kind, ref), raw, self.index, previous=previous)
            assert stored is not None
            self.stored[stored.source] = stored
            changes.add(kind, {ref: stored}, frozenset())
        return await self.pipeline.apply(changes)

    async def delete(self, kind: Kind, name: str) -> Outcome:
        changes = Changes()
        changes.add(kind, {}, frozenset({Ref("gloo-system", name)}))
        return await self.pipeline.apply(changes)

    async def move(self, service: str, *instances: Instance) -> Outcome:
        self.catalog.services[service] = instances
        return await self.pipeline.apply(Changes(services={service}))


def proxy(*hosts: dict[str, Any], **options: Any) -> dict[str, Any]:
    listener = {
        "name": "listener",
        "bindAddress": "::",
        "bindPort": 8080,
        "httpListener": {"virtualHosts": list(hosts), "options": options},
    }
    return {"metadata": {"name": "gateway-proxy", "namespace": "gloo-system"}, "listeners": [listener]}


def host(name: str, *routes: dict[str, Any], domain: str = "") -> dict[str, Any]:
    source = {"kind": "*v1.VirtualService", "name": name, "namespace": "gloo-system"}
    return {
        "name": f"gloo-system.{name}",
        "domains": [domain or f"{name}.example.com"],
        "routes": list(routes),
        "metadata": {"sources": [source]},
    }


def answer(body: str, **fields: Any) -> dict[str, Any]:
    return {"matchers": [{"prefix": "/"}], "directResponseAction": {"status": 200, "body": body}, **fields}


def forward(upstream: str) -> dict[str, Any]:
    ref = {"name": upstream, "namespace": "gloo-system"}
    return {"matchers": [{"prefix": "/"}], "routeAction": {"single": {"upstream": ref}}}


def consul(service: str, **fields: Any) -> dict[str, Any]:
    return {"consul": {"serviceName": service}, **fields}


def bodies(snapshot: Snapshot | None) -> dict[str, list[str]]:
    """Each virtual host's answers."""
    assert snapshot is not None
    config = route_pb2.RouteConfiguration.FromString(snapshot.of(ROUTES).by_name[ROUTES_NAME].body)
    return {
        each.name: [route.direct_response.body.inline_string or route.route.cluster for route in each.routes]
        for each in config.virtual_hosts
    }


def ports(snapshot: Snapshot | None, cluster: str) -> list[int]:
    assert snapshot is not None
    found = endpoint_pb2.ClusterLoadAssignment.FromString(snapshot.of(ENDPOINTS).by_name[cluster].body)
    return [
        member.endpoint.address.socket_address.port_value
        for locality in found.endpoints
        for member in locality.lb_endpoints
    ]


async def test_a_proxy_and_an_upstream_become_a_whole_snapshot() -> None:
    world = World()
    world.catalog.services["web"] = (Instance("127.0.0.1", 80),)

    outcome = await world.put_all(
        (UPSTREAM, "web", consul("web")), (PROXY, "gateway-proxy", proxy(host("a", forward("web"))))
    )

    snapshot = outcome.snapshots[ROLE]
    assert snapshot is not None
    assert set(snapshot.of(CLUSTER).by_name) == {"web_gloo-system"}
    assert set(snapshot.of(LISTENER).by_name) == {"listener"}
    assert ports(snapshot, "web_gloo-system") == [80]
    assert bodies(snapshot) == {"gloo-system_a": ["web_gloo-system"]}
    assert outcome.reported == {PROXY_SOURCE, Source("Upstream", Ref("gloo-system", "web"))}


async def test_one_edited_host_among_many_is_one_unit() -> None:
    world = World()
    hosts = [host(f"vs-{i}", answer("old")) for i in range(50)]
    await world.put(PROXY, "gateway-proxy", proxy(*hosts))
    before = world.pipeline.proxies.computed

    outcome = await world.put(
        PROXY, "gateway-proxy", proxy(*hosts[:7], host("vs-7", answer("new")), *hosts[8:])
    )

    assert world.pipeline.proxies.computed == before + 1
    assert bodies(outcome.snapshots[ROLE])["gloo-system_vs-7"] == ["new"]


LIMITED = {"ratelimit": {"localRatelimit": {"maxTokens": 5}}}
POLICIES: list[dict[str, Any]] = [
    {"cors": {"allowOrigin": ["*"]}},
    {"csrf": {}},
    {"bufferPerRoute": {"buffer": {"maxRequestBytes": 5}}},
    {"faults": {"abort": {"percentage": 5, "httpStatus": 503}}},
    {"upgrades": [{"websocket": {"enabled": False}}]},
    {"envoyMetadata": {"team": {"name": "pets"}}},
    LIMITED,
]


async def test_policies_of_hosts_and_routes_leave_the_listener_alone() -> None:
    world = World()
    first = await world.put(PROXY, "gateway-proxy", proxy(host("a", forward("web"))))
    snapshot = first.snapshots[ROLE]
    assert snapshot is not None

    for options in POLICIES:
        of_host = {name: value for name, value in options.items() if name in ("cors", "csrf", "ratelimit")}
        given = {**host("a", {**forward("web"), "options": options}), "options": of_host}
        now = (await world.put(PROXY, "gateway-proxy", proxy(given))).snapshots[ROLE]
        assert now is not None
        assert now.of(LISTENER) == snapshot.of(LISTENER)
        assert now.of(ROUTES) != snapshot.of(ROUTES)


async def test_what_a_listener_says_of_local_limits_reaches_its_routes() -> None:
    world = World()
    hosts = [host("a", answer("x", options=LIMITED)), host("b", answer("y"))]
    first = await world.put(PROXY, "gateway-proxy", proxy(*hosts))
    before = world.pipeline.proxies.computed

    limits = {"enableXRatelimitHeaders": True}
    second = await world.put(PROXY, "gateway-proxy", proxy(*hosts, httpLocalRatelimit=limits))
    changed = world.pipeline.proxies.computed
    third = await world.put(
        PROXY, "gateway-proxy", proxy(*hosts, httpLocalRatelimit=limits, healthCheck={"path": "/z"})
    )

    then, now = first.snapshots[ROLE], second.snapshots[ROLE]
    assert then is not None
    assert now is not None
    assert now.of(ROUTES) != then.of(ROUTES)
    assert changed == before + 2
    assert world.pipeline.proxies.computed == changed, "no route looks at health checks"
    assert third.snapshots[ROLE]


async def test_a_host_that_comes_or_goes_costs_no_other_unit() -> None:
    world = World()
    hosts = [host(f"vs-{i}", answer("x")) for i in range(20)]
    await world.put(PROXY, "gateway-proxy", proxy(*hosts))
    before = world.pipeline.proxies.computed

    await world.put(PROXY, "gateway-proxy", proxy(*hosts[1:]))
    await world.put(PROXY, "gateway-proxy", proxy(host("aa", answer("y")), *hosts[1:]))

    assert world.pipeline.proxies.computed == before + 1


async def test_endpoints_move_without_touching_routes_or_clusters() -> None:
    world = World()
    first = await world.put_all(
        (UPSTREAM, "web", consul("web")), (PROXY, "gateway-proxy", proxy(host("a", forward("web"))))
    )
    computed = world.pipeline.proxies.computed

    outcome = await world.move("web", Instance("127.0.0.1", 81))

    then, now = first.snapshots[ROLE], outcome.snapshots[ROLE]
    assert then is not None
    assert now is not None
    assert ports(now, "web_gloo-system") == [81]
    assert (now.of(CLUSTER), now.of(ROUTES), now.of(LISTENER)) == (
        then.of(CLUSTER),
        then.of(ROUTES),
        then.of(LISTENER),
    )
    assert world.pipeline.proxies.computed == computed


async def test_a_status_written_into_an_object_translates_nothing() -> None:
    world = World()
    document = proxy(host("a", answer("x")))
    await world.put(PROXY, "gateway-proxy", document)
    computed = world.pipeline.proxies.computed

    outcome = await world.put(PROXY, "gateway-proxy", {**document, "status": {"state": "Accepted"}})

    assert outcome.snapshots == {}
    assert world.pipeline.proxies.computed == computed


async def test_an_upstream_that_appears_wakes_only_the_host_that_wanted_it() -> None:
    world = World()
    await world.put(PROXY, "gateway-proxy", proxy(host("a", forward("web")), host("b", answer("x"))))
    owner = Source("VirtualService", Ref("gloo-system", "a"))
    assert [str(problem) for problem in world.pipeline.found_in(PROXY_SOURCE.ref)[owner].warnings]
    computed = world.pipeline.proxies.computed

    await world.put(UPSTREAM, "web", consul("web"))

    assert world.pipeline.proxies.computed == computed + 1
    assert owner not in world.pipeline.found_in(PROXY_SOURCE.ref)


async def test_a_broken_host_keeps_its_last_good_version_and_costs_nobody_else() -> None:
    world = World()
    await world.put(PROXY, "gateway-proxy", proxy(host("a", answer("good")), host("b", answer("old"))))

    broken = answer("bad", options={"waf": {}})
    outcome = await world.put(PROXY, "gateway-proxy", proxy(host("a", broken), host("b", answer("new"))))

    assert bodies(outcome.snapshots[ROLE]) == {"gloo-system_a": ["good"], "gloo-system_b": ["new"]}
    found = world.pipeline.found_in(PROXY_SOURCE.ref)
    assert [str(problem) for problem in found[Source("VirtualService", Ref("gloo-system", "a"))].errors]
    assert Source("VirtualService", Ref("gloo-system", "b")) not in found


async def test_a_new_host_with_a_broken_route_is_served_without_it() -> None:
    world = World()

    outcome = await world.put(
        PROXY, "gateway-proxy", proxy(host("a", answer("bad", options={"waf": {}}), answer("good")))
    )

    assert bodies(outcome.snapshots[ROLE]) == {"gloo-system_a": ["good"]}


async def test_a_broken_upstream_keeps_its_last_good_cluster() -> None:
    world = World()
    await world.put_all(
        (UPSTREAM, "web", consul("web")), (PROXY, "gateway-proxy", proxy(host("a", forward("web"))))
    )

    for broken in (b"\xff\xfe", {"consul": {"serviceNam": "web"}}, {"kube": {}}):
        outcome = await world.put(UPSTREAM, "web", broken)

        source = Source("Upstream", Ref("gloo-system", "web"))
        assert source in outcome.reported
        assert world.pipeline.reports[source].errors
        assert "web_gloo-system" in world.pipeline.clusters.clusters.by_name
    await world.put(UPSTREAM, "web", consul("web"))
    assert world.pipeline.reports[source].clean


async def test_deleted_objects_leave_nothing_behind() -> None:
    world = World()
    await world.put_all(
        (UPSTREAM, "web", consul("web")), (PROXY, "gateway-proxy", proxy(host("a", forward("web"))))
    )

    await world.delete(UPSTREAM, "web")
    outcome = await world.delete(PROXY, "gateway-proxy")

    assert outcome.snapshots == {ROLE: None}
    assert world.pipeline.clusters.clusters.by_name == {}
    assert world.pipeline.clusters.endpoints.by_name == {}
    assert world.pipeline.reports == {}


async def test_a_consul_destination_makes_its_own_cluster_as_long_as_it_is_wanted() -> None:
    world = World()
    world.catalog.services["web"] = (
        Instance("127.0.0.1", 80, tags=("v1",)),
        Instance("127.0.0.1", 81, tags=("v2",)),
    )
    destination = {"consul": {"serviceName": "web", "tags": ["v2"]}}
    route = {"matchers": [{"prefix": "/"}], "routeAction": {"single": destination}}

    outcome = await world.put(PROXY, "gateway-proxy", proxy(host("a", route)))

    (cluster,) = world.pipeline.clusters.clusters.by_name
    assert cluster.startswith("consul-svc:web")
    assert ports(outcome.snapshots[ROLE], cluster) == [81]
    await world.put(PROXY, "gateway-proxy", proxy(host("a", answer("x"))))
    assert world.pipeline.clusters.clusters.by_name == {}


async def test_a_groups_mistakes_are_its_own_and_an_upstream_mends_them() -> None:
    world = World()
    member = {"destination": {"upstream": {"name": "web", "namespace": "gloo-system"}}, "weight": 1}

    await world.put(UPSTREAM_GROUP, "group", {"destinations": [member]})

    source = Source("UpstreamGroup", Ref("gloo-system", "group"))
    assert "not found" in str(world.pipeline.reports[source].errors[0])
    outcome = await world.put(UPSTREAM, "web", consul("web"))
    assert source in outcome.reported
    assert world.pipeline.reports[source].clean


async def test_equal_objects_give_equal_versions_whatever_came_before() -> None:
    one, other = World(), World()
    hosts = [host("a", answer("1")), host("b", answer("2"))]
    await one.put(PROXY, "gateway-proxy", proxy(host("a", answer("0"))))
    await one.put(PROXY, "gateway-proxy", proxy(*hosts))
    await other.put(PROXY, "gateway-proxy", proxy(*hosts))

    first, second = (world.pipeline.snapshot(PROXY_SOURCE.ref) for world in (one, other))
    assert [first.of(kind).version for kind in (LISTENER, ROUTES)] == [
        second.of(kind).version for kind in (LISTENER, ROUTES)
    ]


def consul_answer(service: str, **fields: Any) -> dict[str, Any]:
    destination = {"consul": {"serviceName": service}}
    return {"matchers": [{"prefix": "/"}], "routeAction": {"single": destination}, **fields}


async def test_a_host_broken_at_the_start_keeps_what_was_served_before_it() -> None:
    before = World()
    before.catalog.services["web"] = (Instance("127.0.0.1", 80),)
    await before.put(PROXY, "gateway-proxy", proxy(host("a", consul_answer("web")), host("b", answer("old"))))
    (cluster,) = before.pipeline.clusters.clusters.by_name

    after = before.restarted()
    broken = host("a", consul_answer("web", options={"waf": {}}))
    outcome = await after.put(PROXY, "gateway-proxy", proxy(broken, host("b", answer("new"))))

    assert bodies(outcome.snapshots[ROLE]) == {"gloo-system_a": [cluster], "gloo-system_b": ["new"]}
    assert ports(outcome.snapshots[ROLE], cluster) == [80]
    owner = Source("VirtualService", Ref("gloo-system", "a"))
    assert after.pipeline.found_in(PROXY_SOURCE.ref)[owner].errors
    outcome = await after.move("web", Instance("127.0.0.1", 81))
    assert ports(outcome.snapshots[ROLE], cluster) == [81]
    outcome = await after.put(PROXY, "gateway-proxy", proxy(host("a", answer("mended"))))
    assert bodies(outcome.snapshots[ROLE]) == {"gloo-system_a": ["mended"]}
    assert after.pipeline.clusters.clusters.by_name == {}


async def test_a_host_that_was_served_in_part_stays_as_it_would_be_without_a_restart() -> None:
    broken = [answer("bad", options={"waf": {}}), answer("good")]
    before = World()
    await before.put(PROXY, "gateway-proxy", proxy(host("a", *broken)))

    after = before.restarted()
    await after.put(PROXY, "gateway-proxy", proxy(host("a", *broken)))
    outcome = await after.put(PROXY, "gateway-proxy", proxy(host("a", broken[0], answer("better"))))

    assert bodies(outcome.snapshots[ROLE]) == {"gloo-system_a": ["better"]}


async def test_a_restart_keeps_the_instances_of_a_datacenter_that_cannot_be_read_until_it_can() -> None:
    cluster, upstream = "pets_gloo-system", consul("pets")
    objects = [(UPSTREAM, "pets", upstream), (PROXY, "gateway-proxy", proxy(host("shop", forward("pets"))))]
    before = World()
    before.catalog.services["pets"] = (Instance("10.0.0.1", 1), Instance("10.0.0.2", 2, datacenter="dc2"))
    await before.put_all(*objects)

    after = before.restarted()
    after.catalog.services["pets"] = (Instance("10.0.0.3", 3),)
    after.catalog.unread = frozenset({"dc2"})
    outcome = await after.put_all(*objects)
    assert ports(outcome.snapshots[ROLE], cluster) == [3, 2]

    outcome = await after.move("pets")
    assert ports(outcome.snapshots[ROLE], cluster) == [2]

    outcome = await after.put(UPSTREAM, "pets", {"consul": {"serviceName": "pets", "dataCenters": ["dc1"]}})
    assert ports(outcome.snapshots[ROLE], cluster) == []
    outcome = await after.put(UPSTREAM, "pets", upstream)
    assert ports(outcome.snapshots[ROLE], cluster) == [2]

    after.catalog.unread = frozenset()
    outcome = await after.pipeline.apply(Changes())
    assert ports(outcome.snapshots[ROLE], cluster) == []


async def test_an_upstream_broken_at_the_start_keeps_its_cluster_and_follows_its_service() -> None:
    documents: list[dict[str, Any] | bytes] = [b"\xff\xfe", {"consul": {"serviceNam": "web"}}, {"kube": {}}]
    for broken in documents:
        before = World()
        before.catalog.services["web"] = (Instance("127.0.0.1", 80),)
        document = proxy(host("a", forward("web")))
        await before.put_all((UPSTREAM, "web", consul("web")), (PROXY, "gateway-proxy", document))

        after = before.restarted()
        outcome = await after.put_all((UPSTREAM, "web", broken), (PROXY, "gateway-proxy", document))

        assert ports(outcome.snapshots[ROLE], "web_gloo-system") == [80]
        outcome = await after.move("web", Instance("127.0.0.1", 81))
        assert ports(outcome.snapshots[ROLE], "web_gloo-system") == [81]
        await after.delete(UPSTREAM, "web")
        assert after.pipeline.clusters.clusters.by_name == {}
        await after.put(UPSTREAM, "web", broken)
        assert after.pipeline.clusters.clusters.by_name == {}


async def test_a_listener_broken_at_the_start_keeps_what_was_served_before_it() -> None:
    before = World()
    await before.put(PROXY, "gateway-proxy", proxy(host("a", answer("good"))))
    document = proxy(host("a", answer("good")))
    document["listeners"][0]["bindAddress"] = "nowhere"

    after = before.restarted()
    outcome = await after.put(PROXY, "gateway-proxy", document)

    snapshot = outcome.snapshots[ROLE]
    assert snapshot is not None
    assert snapshot.of(LISTENER) == before.pipeline.snapshot(PROXY_SOURCE.ref).of(LISTENER)
    assert bodies(snapshot) == {"gloo-system_a": ["good"]}
    await after.delete(PROXY, "gateway-proxy")
    outcome = await after.put(PROXY, "gateway-proxy", document)
    snapshot = outcome.snapshots[ROLE]
    assert snapshot is not None
    assert snapshot.of(LISTENER).by_name == {}


def held(part: str, good: bytes | None) -> Held:
    return Held(
        place=Place(ROLE, ROUTES, ROUTES_NAME),
        part=part,
        refused=1,
        good=good,
        blame=Blame(client="1", node="envoy", text="no good"),
        at=0.0,
        sources=frozenset(),
    )


async def test_an_envoys_refusal_of_a_host_is_told_to_the_route_that_is_new_in_it() -> None:
    world = World()
    table = {
        "sources": [{"kind": "*v1.RouteTable", "name": "t", "namespace": "gloo-system", "path": "routes[4]"}]
    }
    old = host("a", answer("one"), answer("two"), answer("three"))
    outcome = await world.put(PROXY, "gateway-proxy", proxy(old))
    snapshot = outcome.snapshots[ROLE]
    assert snapshot is not None
    good = parts_of(ROUTES, snapshot.of(ROUTES).by_name[ROUTES_NAME].body)["gloo-system_a"]

    service, table_source = (
        Source(kind, Ref("gloo-system", name))
        for kind, name in (("VirtualService", "a"), ("RouteTable", "t"))
    )
    for routes, expected in (
        ((answer("one"), answer("new"), answer("three")), {service}),
        ((answer("one"), answer("new", metadata=table), answer("three")), {table_source}),
        ((answer("new"), answer("new"), answer("three")), {service}),
    ):
        await world.put(PROXY, "gateway-proxy", proxy(host("a", *routes)))
        assert world.pipeline.trace(held("gloo-system_a", good)) == expected
        assert world.pipeline.trace(held("gloo-system_a", None)) == {service}


async def test_what_a_stand_in_forwards_to_is_kept_up_as_long_as_it_stands_in() -> None:
    world = World()
    world.catalog.services["web"] = (Instance("127.0.0.1", 80),)
    outcome = await world.put(PROXY, "gateway-proxy", proxy(host("a", consul_answer("web"))))
    snapshot = outcome.snapshots[ROLE]
    assert snapshot is not None
    (cluster,) = snapshot.of(CLUSTER).by_name
    parts = parts_of(ROUTES, snapshot.of(ROUTES).by_name[ROUTES_NAME].body)

    await world.put(PROXY, "gateway-proxy", proxy(host("a", answer("refused by Envoy"))))
    assert world.pipeline.clusters.clusters.by_name == {}
    world.stand_ins.append(parts["gloo-system_a"])
    outcome = await world.pipeline.apply(Changes())
    assert ports(outcome.snapshots[ROLE], cluster) == [80]

    world.stand_ins.clear()
    await world.pipeline.apply(Changes())
    assert world.pipeline.clusters.clusters.by_name == {}


TUNNEL = "solo_io_generated_self_listener_web_gloo-system"
TUNNELLED = {"web_gloo-system", "web_gloo-system_original"}


def names(snapshot: Snapshot | None) -> tuple[set[str], set[str]]:
    """The clusters and the listeners."""
    assert snapshot is not None
    return set(snapshot.of(CLUSTER).by_name), set(snapshot.of(LISTENER).by_name)


async def test_a_tunnel_comes_and_goes_with_its_upstream() -> None:
    world, through = World(), consul("squid", httpProxyHostname="pets.example.com:80")
    world.catalog.services["squid"] = (Instance("127.0.0.1", 3128),)

    first = await world.put_all(
        (UPSTREAM, "web", through), (PROXY, "gateway-proxy", proxy(host("a", forward("web"))))
    )
    elsewhere = await world.put(UPSTREAM, "web", through | {"httpProxyHostname": "cats.example.com:80"})
    broken = await world.put(UPSTREAM, "web", through | {"httpProxyHostname": "x"})
    direct = await world.put(UPSTREAM, "web", consul("squid"))
    await world.put(UPSTREAM, "web", through)
    gone = await world.delete(UPSTREAM, "web")

    assert names(first.snapshots[ROLE]) == (TUNNELLED, {"listener", TUNNEL})
    assert ports(first.snapshots[ROLE], "web_gloo-system") == [3128]
    moved = elsewhere.snapshots[ROLE]
    assert moved is not None
    assert b"cats.example.com:80" in moved.of(LISTENER).by_name[TUNNEL].body
    assert broken.snapshots == {}
    assert names(direct.snapshots[ROLE]) == ({"web_gloo-system"}, {"listener"})
    assert names(gone.snapshots[ROLE]) == (set(), {"listener"})


async def test_an_upstream_broken_at_the_start_keeps_its_tunnel() -> None:
    world, through = World(), consul("squid", httpProxyHostname="pets.example.com:80")
    forwarding = proxy(host("a", forward("web")))
    await world.put_all((UPSTREAM, "web", through), (PROXY, "gateway-proxy", forwarding))

    again = world.restarted()
    outcome = await again.put_all(
        (UPSTREAM, "web", through | {"httpProxyHostname": "x"}), (PROXY, "gateway-proxy", forwarding)
    )

    assert names(outcome.snapshots[ROLE]) == (TUNNELLED, {"listener", TUNNEL})
