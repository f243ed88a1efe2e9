"""Virtual hosts are translated by themselves, incrementally, and joined without encoding anything again."""

from __future__ import annotations

from typing import Any

from protos import gloo
from protos.envoy import route
from services.gloo.plugin import Policy
from services.gloo.translator.virtual_host import (
    TranslatedHost,
    find_conflicts,
    join_route_configuration,
    translate_virtual_host,
)
from shared.codec.decode import decode
from shared.codec.encode import encode
from shared.ref import Ref, Source
from shared.report import Report

PROXY = Source("Proxy", Ref("ns", "p"))
SERVICE = Source("VirtualService", Ref("ns", "vs"))
SOURCES = {"sources": [{"kind": "*v1.VirtualService", "name": "vs", "namespace": "ns"}]}


class World:
    """The objects there are, and which of them were looked at."""

    def __init__(self, **upstreams: gloo.Upstream) -> None:
        self.upstreams = upstreams
        self.reads: list[str] = []

    def __call__(self, kind: str, ref: Ref, /) -> object:
        self.reads.append(f"{kind} {ref}")
        return self.upstreams.get(ref.name)


def to(upstream: str, path: str = "/", **options: Any) -> dict[str, Any]:
    action = {"single": {"upstream": {"name": upstream, "namespace": "ns"}}}
    return {"matchers": [{"prefix": path}], "routeAction": action, "options": options}


def host(*routes: dict[str, Any], name: str = "ns.vs", **more: Any) -> gloo.VirtualHost:
    document = {"name": name, "metadata": SOURCES, "routes": list(routes), **more}
    decoded = decode(gloo.VirtualHost, document, report := Report())
    assert decoded is not None, report
    return decoded


def translate(given: gloo.VirtualHost, world: World, **more: Any) -> TranslatedHost:
    policy = more.pop("policy", Policy())
    return translate_virtual_host(given, "listeners[0]", PROXY, world, policy, **more)


def errors(translated: TranslatedHost, source: Source = SERVICE) -> list[str]:
    return [str(problem) for problem in translated.reports.get(source, Report()).errors]


def paths(translated: TranslatedHost) -> list[str | None]:
    return [each.match.prefix for each in route.VirtualHost.parse(translated.body).routes if each.match]


def test_a_broken_route_costs_only_itself() -> None:
    given = host(to("a", "/a"), to("a", "/b", waf={}), to("a", "/c"))

    translated = translate(given, World(a=gloo.Upstream()))

    assert paths(translated) == ["/a", "/c"]
    assert translated.broken
    assert errors(translated) == ["virtualHost.routes[1].options.waf: enterprise feature, not supported"]


def test_a_host_with_broken_options_of_its_own_is_not_served() -> None:
    translated = translate(host(to("a"), options={"waf": {}}), World(a=gloo.Upstream()))

    assert translated.body == b""
    assert errors(translated) == ["virtualHost.options.waf: enterprise feature, not supported"]


def test_a_missing_upstream_is_a_warning_and_its_absence_is_on_record() -> None:
    world = World()

    translated = translate(host(to("gone")), world)

    assert not translated.broken
    assert [str(w) for w in translated.reports[SERVICE].warnings] == [
        "virtualHost.routes[0].routeAction.single.upstream: *v1.Upstream { ns.gone } not found"
    ]
    assert world.reads == ["Upstream ns.gone"]
    assert translated.clusters == {"gone_ns"}


def test_only_what_changed_is_translated_again() -> None:
    world = World(a=gloo.Upstream(), b=gloo.Upstream())
    first = translate(host(to("a", "/1"), to("b", "/2"), to("a", "/3")), world)
    world.reads.clear()

    second = translate(host(to("a", "/1"), to("b", "/x"), to("a", "/3")), world, previous=first)

    kept = [now is then for now, then in zip(second.served, first.served, strict=True)]
    assert kept == [True, False, True]
    assert paths(second) == ["/1", "/x", "/3"]
    assert world.reads == ["Upstream ns.a", "Upstream ns.b", "Upstream ns.a"]


def test_a_changed_upstream_retranslates_its_routes_alone() -> None:
    world = World(a=gloo.Upstream(), b=gloo.Upstream())
    given = host(to("a", "/1"), to("b", "/2"))
    first = translate(given, world)
    world.upstreams["b"] = gloo.Upstream()

    second = translate(given, world, previous=first)

    assert [now is then for now, then in zip(second.served, first.served, strict=True)] == [True, False]


def test_another_policy_reuses_nothing() -> None:
    world = World()
    first = translate(host(to("gone")), world)

    second = translate(host(to("gone")), world, previous=first, policy=Policy(replace_invalid_routes=True))

    assert second.clusters == {"fallback_cluster_for_invalid_routes"}


UNION = {"corsPolicyMergeSettings": {"exposeHeaders": "UNION"}}
ORIGIN = {"allowOrigin": ["https://a.com"]}


def test_a_hosts_option_that_its_routes_look_at_translates_them_again() -> None:
    routes = [to("a", "/1", cors={**ORIGIN, "exposeHeaders": ["x-b"]}), to("a", "/2")]
    first = translate(host(*routes, options={"cors": {**ORIGIN, "exposeHeaders": ["x-a"]}, **UNION}), World())

    given = host(*routes, options={"cors": {**ORIGIN, "exposeHeaders": ["x-c"]}, **UNION})
    second = translate(given, World(), previous=first)

    assert second == translate(given, World())
    assert second.body != first.body


def test_other_options_of_a_host_leave_its_routes_as_they_are() -> None:
    routes = [to("a", "/1", cors=ORIGIN), to("a", "/2")]
    first = translate(host(*routes, options={"cors": ORIGIN}), World())

    second = translate(host(*routes, options={"cors": ORIGIN, "csrf": {}}), World(), previous=first)

    assert [now is then for now, then in zip(second.served, first.served, strict=True)] == [True, True]


def test_a_host_without_sources_answers_to_the_proxy() -> None:
    translated = translate(host({"matchers": [{}]}, metadata={}), World())

    assert translated.sources == {PROXY}
    assert [error.partition(":")[0] for error in errors(translated, PROXY)] == [
        "listeners[0].routes[0]",
        "listeners[0].routes[0].matchers[0]",
    ]


def test_a_joined_configuration_is_what_encoding_it_whole_gives() -> None:
    hosts = [translate(host(to("a", f"/{i}"), name=f"h{i}", domains=[f"{i}.com"]), World()) for i in range(3)]

    joined = join_route_configuration("l-routes", hosts)

    whole = route.RouteConfiguration(
        name="l-routes", virtual_hosts=[route.VirtualHost.parse(each.body) for each in hosts]
    )
    assert joined.body == encode(whole)
    assert joined.sources == {SERVICE}


def test_a_host_of_which_nothing_can_be_served_is_left_out() -> None:
    joined = join_route_configuration("r", [translate(host(to("a"), name=""), World())])

    assert joined.body == encode(route.RouteConfiguration(name="r"))


def hosts_of(*domains: str) -> list[TranslatedHost]:
    return [translate(host(name=f"h{i}", domains=[each]), World()) for i, each in enumerate(domains)]


def test_the_first_of_two_hosts_keeps_a_domain() -> None:
    conflicts = find_conflicts(hosts_of("a.com", "A.com", "b.com"))

    assert conflicts == {1: ["domain A.com is shared by virtual host h0"]}


def test_who_already_serves_a_domain_keeps_it() -> None:
    conflicts = find_conflicts(hosts_of("a.com", "a.com"), serving={"a.com": "h1"})

    assert conflicts == {0: ["domain a.com is shared by virtual host h1"]}


def test_two_names_that_differ_in_dots_only_are_one_to_envoy() -> None:
    pair = [translate(host(name=name, domains=[name]), World()) for name in ("a.b", "a_b")]

    assert find_conflicts(pair) == {1: ["another virtual host of this listener is named a_b, too"]}


def test_a_conflict_is_reported_to_the_owner_of_the_host() -> None:
    [translated] = hosts_of("a.com")

    found = translated.report_of("clash")

    assert [str(problem) for problem in found[SERVICE].errors] == ["virtualHost: clash"]


def table_routes(*bodies: str) -> gloo.VirtualHost:
    """A host of the VirtualService's own route and those of a RouteTable it delegates to."""
    own = {"matchers": [{"prefix": "/own"}], "directResponseAction": {"status": 200}}
    service = {"kind": "*v1.VirtualService", "name": "vs", "namespace": "ns", "path": "virtualHost.routes[1]"}
    return host(
        own,
        *(
            {
                "matchers": [{"prefix": f"/{i}"}],
                "directResponseAction": {"status": 200, "body": body},
                "metadata": {
                    "sources": [
                        service,
                        {"kind": "*v1.RouteTable", "name": "t", "namespace": "ns", "path": f"routes[{i}]"},
                    ]
                },
            }
            for i, body in enumerate(bodies)
        ),
    )


def test_an_envoys_refusal_is_told_to_the_table_that_all_new_routes_are_from() -> None:
    table = Source("RouteTable", Ref("ns", "t"))
    good = translate(table_routes("a", "b"), World()).body

    one = translate(table_routes("a", "new"), World()).refused("no", good)
    several = translate(table_routes("new", "new"), World()).refused("no", good)

    assert list(map(str, one[table].errors)) == ["routes[1]: no"]
    assert list(map(str, several[table].errors)) == ["no"]
    for told in (one, several):
        assert not told[SERVICE].errors
        assert str(told[SERVICE].warnings[0]).startswith("virtualHost.routes[1]: RouteTable ns.t: ")


def test_an_envoys_refusal_of_what_is_new_in_several_objects_is_the_hosts() -> None:
    good = translate(table_routes("a"), World()).body
    given = table_routes("new")
    given.routes[0].matchers[0].prefix = "/other"

    told = translate(given, World()).refused("no", good)

    assert list(map(str, told[SERVICE].errors)) == ["virtualHost: no"]
    assert translate(given, World()).refused("no", None).keys() == {SERVICE}
