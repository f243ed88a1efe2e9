"""Where requests go: matchers and their order, destinations, answers without one, options, delegation."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from tests.support.backends import Backend, Echo
from tests.support.ports import free_port, free_ports
from tests.support.site import Site
from tests.support.stack import GATEWAY, Stack, direct, to_upstream, virtual_service
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

NAMES = ("red", "green", "blue")
Backends = Mapping[str, Backend]
Document = dict[str, Any]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """One stack for all stories here: each has a domain of its own."""
    async with Stack(tmp_path_factory.mktemp("routing")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backends(stack: Stack) -> AsyncIterator[Backends]:
    """Three services in Consul, each with its Upstream."""
    async with AsyncExitStack() as running:
        found = {name: await running.enter_async_context(Backend(name)) for name in NAMES}
        for name, backend in found.items():
            await stack.register(name, backend.port)
            await stack.status_is("Accepted", "Upstream", name)
        yield found


@pytest.fixture
def site(stack: Stack, request: pytest.FixtureRequest) -> Site:
    """A domain named after the story."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())
    return Site(stack, words[-60:].strip("-"))


def to(upstream: str) -> Document:
    """A single destination in gloo-system."""
    return {"upstream": {"name": upstream, "namespace": "gloo-system"}}


def forward(prefix: str, action: Mapping[str, Any], **options: Any) -> Document:
    return {"matchers": [{"prefix": prefix}], "routeAction": dict(action), "options": options}


# -- matchers -------------------------------------------------------------------------------------------

MATCHERS: dict[str, tuple[Document, list[Document], list[Document]]] = {
    "prefix": (
        {"prefix": "/api"},
        [{"path": "/api"}, {"path": "/api/pets"}, {"path": "/apis"}, {"path": "/api?q=1"}],
        [{"path": "/ap"}, {"path": "/API"}, {"path": "/x/api"}],
    ),
    "exact": (
        {"exact": "/api"},
        [{"path": "/api"}, {"path": "/api?q=1"}],
        [{"path": "/api/"}, {"path": "/api/pets"}, {"path": "/Api"}],
    ),
    "a regex has to match all of the path": (
        {"regex": "/pets/[0-9]+"},
        [{"path": "/pets/12"}, {"path": "/pets/12?q=x"}],
        [{"path": "/pets/12/name"}, {"path": "/x/pets/12"}, {"path": "/pets/dog"}],
    ),
    "prefix in any case": (
        {"prefix": "/Api", "caseSensitive": False},
        [{"path": "/api/x"}, {"path": "/API/X"}],
        [{"path": "/ap"}],
    ),
    "exact in this case": (
        {"exact": "/Api", "caseSensitive": True},
        [{"path": "/Api"}],
        [{"path": "/api"}],
    ),
    "header with a value": (
        {"prefix": "/", "headers": [{"name": "x-user", "value": "ann"}]},
        [{"x-user": "ann"}],
        [{}, {"x-user": "anna"}, {"x-user": "bob"}],
    ),
    "header by regex": (
        {"prefix": "/", "headers": [{"name": "x-user", "value": "a[n]+", "regex": True}]},
        [{"x-user": "ann"}],
        [{}, {"x-user": "anna"}, {"x-user": "bob"}],
    ),
    "header that is there": (
        {"prefix": "/", "headers": [{"name": "x-user"}]},
        [{"x-user": "ann"}, {"x-user": ""}],
        [{}],
    ),
    "header that has another value": (
        {"prefix": "/", "headers": [{"name": "x-user", "value": "ann", "invertMatch": True}]},
        [{"x-user": "bob"}],
        [{}, {"x-user": "ann"}],
    ),
    "header that is not there": (
        {"prefix": "/", "headers": [{"name": "x-user", "invertMatch": True}]},
        [{}],
        [{"x-user": "ann"}],
    ),
    "all of several headers": (
        {"prefix": "/", "headers": [{"name": "x-a", "value": "1"}, {"name": "x-b", "value": "2"}]},
        [{"x-a": "1", "x-b": "2"}],
        [{"x-a": "1"}, {"x-b": "2"}, {"x-a": "2", "x-b": "1"}],
    ),
    "query parameter with a value": (
        {"prefix": "/", "queryParameters": [{"name": "q", "value": "1"}]},
        [{"path": "/?q=1"}, {"path": "/?a=2&q=1"}],
        [{"path": "/"}, {"path": "/?q=11"}, {"path": "/?q"}],
    ),
    "query parameter by regex": (
        {"prefix": "/", "queryParameters": [{"name": "q", "value": "[0-9]+", "regex": True}]},
        [{"path": "/?q=12"}],
        [{"path": "/"}, {"path": "/?q=1x"}],
    ),
    "query parameter that is there": (
        {"prefix": "/", "queryParameters": [{"name": "q"}]},
        [{"path": "/?q"}, {"path": "/?q=1"}],
        [{"path": "/"}, {"path": "/?p=q"}],
    ),
    "methods": (
        {"prefix": "/", "methods": ["POST", "PUT"]},
        [{"method": "POST"}, {"method": "PUT"}],
        [{"method": "GET"}, {"method": "DELETE"}, {"method": "PATCH"}],
    ),
}


@pytest.mark.parametrize("kind", MATCHERS)
async def test_a_matcher_takes_its_requests_and_no_others(site: Site, kind: str) -> None:
    matcher, taken, left = MATCHERS[kind]
    await site.serve({**direct("/", "taken"), "matchers": [matcher]}, direct("/", "left"))

    for request in taken:
        assert (await site.get(**{"path": "/", **request})).text == "taken", request
    for request in left:
        assert (await site.get(**{"path": "/", **request})).text == "left", request


async def test_one_of_several_matchers_is_enough_and_none_at_all_takes_everything(site: Site) -> None:
    several = {**direct("/", "several"), "matchers": [{"exact": "/a"}, {"prefix": "/b", "methods": ["POST"]}]}
    await site.serve(several, {"directResponseAction": {"status": 200, "body": "rest"}})

    assert (await site.get("/a")).text == "several"
    assert (await site.get("/b/x", method="POST")).text == "several"
    assert (await site.get("/b/x")).text == "rest"


async def test_what_no_route_takes_is_not_found(site: Site) -> None:
    await site.serve(direct("/here", "here"))

    assert (await site.get("/there")).status == 404
    assert (await site.get("/here", host="nobody.example.com")).status == 404


# -- order ----------------------------------------------------------------------------------------------


async def test_the_first_route_that_matches_wins_as_written_until_they_are_sorted(site: Site) -> None:
    await site.serve(direct("/", "all"), direct("/pets", "pets"), direct("/pets/dog", "dog"))
    assert (await site.get("/pets/dog")).text == "all"

    environment = {**os.environ, "CONSUL_HTTP_ADDR": site.stack.consul.address}
    command = [sys.executable, "-m", "glooctl", "route", "sort", site.name]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, env=environment, check=False
    )

    assert done.returncode == 0, done.stderr
    await site.stack.answers("/pets/dog", host=site.domain, saying="dog")
    assert (await site.get("/pets/cat")).text == "pets"
    assert (await site.get("/other")).text == "all"


async def test_virtual_services_of_the_same_domains_become_one_with_the_most_specific_first(
    stack: Stack,
) -> None:
    domains = ["merged.example.com", "also-merged.example.com"]
    one = virtual_service(direct("/", "all"), direct("/a/b", "deep"), domains=domains)
    exact = {**direct("/", "exact"), "matchers": [{"exact": "/a"}]}
    regex = {**direct("/", "regex"), "matchers": [{"regex": "/a/[x-z]"}]}
    two = virtual_service(direct("/a", "prefix"), exact, regex, domains=domains[::-1])
    await stack.put("VirtualService", "merged-one", one)
    await stack.put("VirtualService", "merged-two", two)

    await stack.answers("/a", host=domains[0], saying="exact")
    for path, text in (("/a/c", "prefix"), ("/a/b/c", "deep"), ("/a/x", "regex"), ("/", "all")):
        for domain in domains:
            assert (await stack.get(path, host=domain)).text == text
    await stack.status_is("Accepted", "VirtualService", "merged-one")
    await stack.status_is("Accepted", "VirtualService", "merged-two")

    await stack.delete("VirtualService", "merged-two")
    await stack.answers("/a", host=domains[0], saying="all")


# -- destinations ---------------------------------------------------------------------------------------


async def shares(site: Site, path: str, requests: int = 200) -> Counter[str]:
    """Which backends answered how many of *requests*."""
    answers = [await site.get(path) for _ in range(requests)]
    assert {answer.status for answer in answers} == {200}
    return Counter(answer.headers["x-backend"] for answer in answers)


async def test_a_single_destination_gets_the_request_as_it_came(site: Site, backends: Backends) -> None:
    await site.serve(to_upstream("/", "red"))

    echo = await site.echo("/some/path?q=1", method="PUT", **{"x-mine": "1"})

    assert (echo.backend, echo.method, echo.path, echo.host) == ("red", "PUT", "/some/path?q=1", site.domain)
    assert echo.headers["x-mine"] == "1"


async def test_several_destinations_share_by_weight(site: Site, backends: Backends) -> None:
    members = [{"weight": 3, "destination": to("red")}, {"weight": 1, "destination": to("green")}]
    members.append({"weight": 0, "destination": to("blue")})
    await site.serve(forward("/", {"multi": {"destinations": members}}))

    found = await shares(site, "/")

    assert set(found) == {"red", "green"}
    assert 119 <= found["red"] <= 181  # 150 expected, five standard deviations either way


async def test_a_group_is_shared_by_routes_and_its_edit_reaches_all_of_them(
    site: Site, backends: Backends
) -> None:
    group = {"upstreamGroup": {"name": "shop", "namespace": "gloo-system"}}
    members = [{"weight": 9, "destination": to("red")}, {"weight": 1, "destination": to("green")}]
    await site.stack.put("UpstreamGroup", "shop", {"destinations": members})
    await site.stack.status_is("Accepted", "UpstreamGroup", "shop")
    await site.serve(forward("/a", group), forward("/b", group))

    found = await shares(site, "/a")
    assert 158 <= found["red"] <= 199  # 180 expected
    assert found["green"] == 200 - found["red"]

    await site.stack.put(
        "UpstreamGroup", "shop", {"destinations": [{"weight": 1, "destination": to("blue")}]}
    )
    for path in ("/a", "/b"):
        await site.reaches(path, "blue")
        assert set(await shares(site, path, 20)) == {"blue"}


async def test_a_missing_group_and_a_missing_member_are_told_and_mend_themselves(
    site: Site, backends: Backends
) -> None:
    await site.serve(forward("/", {"upstreamGroup": {"name": "late", "namespace": "gloo-system"}}))
    await site.says("Warning", "gloo-system.late } not found")
    assert (await site.get("/")).status == 503

    await site.stack.put("UpstreamGroup", "late", {"destinations": [{"weight": 1, "destination": to("red")}]})
    await site.reaches("/", "red")
    await site.says("Accepted")
    await site.stack.put(
        "UpstreamGroup", "late", {"destinations": [{"weight": 1, "destination": to("nope")}]}
    )
    await site.stack.status_is("Rejected", "UpstreamGroup", "late", saying="gloo-system.nope } not found")


async def test_a_consul_destination_needs_no_upstream_and_takes_the_instances_with_just_its_tags(
    site: Site, backends: Backends
) -> None:
    consul = site.stack.consul
    for name, tags in (("red", ["v1"]), ("green", ["v2"]), ("blue", ["v2", "canary"])):
        await site.stack.register("tagged", backends[name].port, Tags=tags)
    try:
        await site.serve(
            forward("/any", {"single": {"consul": {"serviceName": "tagged"}}}),
            forward("/v1", {"single": {"consul": {"serviceName": "tagged", "tags": ["v1"]}}}),
            forward("/v2", {"single": {"consul": {"serviceName": "tagged", "tags": ["v2"]}}}),
            forward("/both", {"single": {"consul": {"serviceName": "tagged", "tags": ["canary", "v2"]}}}),
            forward("/none", {"single": {"consul": {"serviceName": "tagged", "tags": ["v3"]}}}),
            forward("/dc", {"single": {"consul": {"serviceName": "tagged", "dataCenters": ["elsewhere"]}}}),
        )
        for path, wanted in (("/any", set(NAMES)), ("/v1", {"red"}), ("/v2", {"green"}), ("/both", {"blue"})):
            await eventually(
                lambda path=path: shares_or_none(site, path), until=lambda found, want=wanted: found == want
            )
        assert (await site.get("/none")).status == 503
        assert (await site.get("/dc")).status == 503

        await site.stack.register("tagged", backends["red"].port, Tags=["v3"])
        await site.reaches("/none", "red")
        await eventually(lambda: site.get("/v1"), until=lambda answer: answer.status == 503)
    finally:
        for backend in backends.values():
            await consul.call("PUT", f"/v1/agent/service/deregister/tagged-{backend.port}")


async def shares_or_none(site: Site, path: str) -> set[str | None]:
    """The backends that answer, None among them for an answer that is not of any."""
    answers = [await site.get(path) for _ in range(12)]
    return {answer.headers.get("x-backend") for answer in answers}


async def test_a_subset_is_the_instances_with_its_tags(site: Site, backends: Backends) -> None:
    for name, tags in (("red", ["stable"]), ("green", ["stable", "eu"]), ("blue", ["beta"])):
        await site.stack.register("parted", backends[name].port, Tags=tags)
    upstream = {"consul": {"serviceName": "parted", "subsetTags": ["stable", "eu"]}}
    await site.stack.put("Upstream", "parted-by-tags", upstream)
    await site.stack.status_is("Accepted", "Upstream", "parted-by-tags")

    def part(prefix: str, stable: str, eu: str) -> Document:
        values = {"tag_stable": stable, "tag_eu": eu}
        return forward(prefix, {"single": {**to("parted-by-tags"), "subset": {"values": values}}})

    await site.serve(part("/a", "1", "0"), part("/b", "1", "1"), part("/c", "0", "0"))

    for path, name in (("/a", "red"), ("/b", "green"), ("/c", "blue")):
        await site.reaches(path, name)
        assert await shares_or_none(site, path) == {name}
    for backend in backends.values():
        await site.stack.deregister("parted", backend.port)


async def test_static_upstreams_are_reached_by_address_and_by_name(site: Site) -> None:
    async with Backend("fixed", host="localhost") as backend:
        for name, address in (("by-address", "127.0.0.1"), ("by-name", "localhost")):
            host = {"addr": address, "port": backend.port}
            await site.stack.put("Upstream", name, {"static": {"hosts": [host]}})
            await site.stack.status_is("Accepted", "Upstream", name)
        await site.serve(to_upstream("/address", "by-address"), to_upstream("/name", "by-name"))

        assert (await site.echo("/address")).path == "/address"
        assert (await site.echo("/name")).path == "/name"


async def test_static_hosts_share_by_weight(site: Site, backends: Backends) -> None:
    hosts: list[Document] = [
        {"addr": "127.0.0.1", "port": backends["red"].port, "loadBalancingWeight": 4},
        {"addr": "127.0.0.1", "port": backends["green"].port, "loadBalancingWeight": 1},
    ]
    await site.stack.put("Upstream", "weighted-hosts", {"static": {"hosts": hosts}})
    await site.stack.status_is("Accepted", "Upstream", "weighted-hosts")
    await site.serve(to_upstream("/", "weighted-hosts"))

    found = await shares(site, "/", 100)

    assert abs(found["red"] - 80) <= 2  # Envoy's weighted round robin keeps close to the weights


# -- answers without a destination ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "status", "location"),
    [
        ({"hostRedirect": "other.example.com"}, 301, "http://other.example.com/old/x?q=1"),
        ({"pathRedirect": "/new", "responseCode": "FOUND"}, 302, "http://{host}/new?q=1"),
        ({"pathRedirect": "/new?a=b", "stripQuery": True}, 301, "http://{host}/new?a=b"),
        ({"prefixRewrite": "/new", "responseCode": "SEE_OTHER"}, 303, "http://{host}/new/x?q=1"),
        (
            {"httpsRedirect": True, "responseCode": "TEMPORARY_REDIRECT"},
            307,
            "https://{host}/old/x?q=1",
        ),
        (
            {"hostRedirect": "other.example.com", "portRedirect": 8443, "responseCode": "PERMANENT_REDIRECT"},
            308,
            "http://other.example.com:8443/old/x?q=1",
        ),
    ],
    ids=["host", "path", "path without query", "prefix", "https", "port"],
)
async def test_a_redirect_says_where_to(site: Site, action: Document, status: int, location: str) -> None:
    await site.serve({"matchers": [{"prefix": "/old"}], "redirectAction": action})

    answer = await site.get("/old/x?q=1")

    assert answer.status == status
    assert answer.headers["location"] == location.format(host=site.domain)


async def test_a_direct_response_has_status_and_body(site: Site) -> None:
    await site.serve(direct("/teapot", "short and stout", 418), {"directResponseAction": {"status": 204}})

    teapot, empty = await site.get("/teapot"), await site.get("/")

    assert (teapot.status, teapot.text) == (418, "short and stout")
    assert (empty.status, empty.text) == (204, "")


# -- options --------------------------------------------------------------------------------------------


async def test_rewrites_change_what_the_upstream_sees(site: Site, backends: Backends) -> None:
    named = {"static": {"hosts": [{"addr": "localhost", "port": backends["red"].port}]}}
    await site.stack.put("Upstream", "named", named)
    await site.stack.status_is("Accepted", "Upstream", "named")
    await site.serve(
        to_upstream("/prefix", "red", prefixRewrite="/api"),
        to_upstream("/strip/", "red", prefixRewrite="/"),
        to_upstream("/host", "red", hostRewrite="inside.example.org:81"),
        to_upstream("/auto", "named", autoHostRewrite=True),
        to_upstream("/", "named"),
    )

    assert (await site.echo("/prefix/pets?q=1")).path == "/api/pets?q=1"
    assert (await site.echo("/strip/pets")).path == "/pets"
    assert (await site.echo("/host")).host == "inside.example.org:81"
    assert (await site.echo("/auto")).host == "localhost"
    assert (await site.echo("/plain")).host == site.domain


async def test_a_timeout_ends_waiting(site: Site) -> None:
    async with Backend("slow") as slow:
        slow.delay = 0.6
        await site.stack.register("slow", slow.port)
        await site.stack.status_is("Accepted", "Upstream", "slow")
        await site.serve(to_upstream("/short", "slow", timeout="0.2s"), to_upstream("/", "slow"))
        await site.reaches("/", "slow")

        began = time.monotonic()
        answer = await site.get("/short")

        assert answer.status == 504
        assert 0.19 <= time.monotonic() - began < 0.6  # Envoy's timers count whole milliseconds
        await site.stack.deregister("slow", slow.port)


async def test_failures_are_tried_again_as_often_as_allowed(site: Site) -> None:
    async with Backend("shaky") as shaky:
        await site.stack.register("shaky", shaky.port)
        await site.stack.status_is("Accepted", "Upstream", "shaky")
        retries = {"retryOn": "5xx", "numRetries": 2}
        await site.serve(
            to_upstream("/retried", "shaky", retries=retries),
            to_upstream("/timed", "shaky", retries={**retries, "perTryTimeout": "0.2s"}),
            to_upstream("/", "shaky"),
        )
        await site.reaches("/", "shaky")

        for path, failures, status, asked in (
            ("/retried", 2, 200, 3),
            ("/retried", 3, 503, 3),
            ("/", 1, 503, 1),
        ):
            shaky.asked, shaky.failures = 0, failures
            assert ((await site.get(path)).status, shaky.asked) == (status, asked)
            shaky.failures = 0

        shaky.asked, shaky.delay = 0, 0.5
        assert ((await site.get("/timed")).status, shaky.asked) == (504, 3)
        await site.stack.deregister("shaky", shaky.port)


async def test_retries_of_a_virtual_host_are_those_of_its_routes(site: Site) -> None:
    async with Backend("shaken") as shaken:
        await site.stack.register("shaken", shaken.port)
        await site.stack.status_is("Accepted", "Upstream", "shaken")
        retries = {"retryOn": "5xx", "numRetries": 2}
        await site.serve(to_upstream("/", "shaken"), options={"retries": retries})
        await site.reaches("/", "shaken")

        shaken.asked, shaken.failures = 0, 2

        assert ((await site.get("/")).status, shaken.asked) == (200, 3)
        await site.stack.deregister("shaken", shaken.port)


async def test_headers_are_added_and_removed_on_every_level(site: Site, backends: Backends) -> None:
    def adding(name: str, value: str, **more: Any) -> list[Document]:
        return [{"header": {"key": name, "value": value}, **more}]

    route = {
        "requestHeadersToAdd": [
            *adding("x-route", "1"),
            *adding("x-both", "new"),
            *adding("x-instead", "new", append=False),
        ],
        "requestHeadersToRemove": ["x-secret"],
        "responseHeadersToAdd": adding("x-answered", "%RESPONSE_CODE%"),
        "responseHeadersToRemove": ["x-backend"],
    }
    member = {
        "weight": 1,
        "destination": to("red"),
        "options": {"headerManipulation": {"requestHeadersToAdd": adding("x-member", "1")}},
    }
    await site.serve(
        forward("/", {"multi": {"destinations": [member]}}, headerManipulation=route),
        options={"headerManipulation": {"responseHeadersToAdd": adding("x-host", "1")}},
    )

    sent = {"x-secret": "s", "x-both": "old", "x-instead": "old"}
    answer = await site.get("/", **sent)

    seen = Echo.of(answer).headers
    assert "x-secret" not in seen
    assert (seen["x-route"], seen["x-member"], seen["x-instead"]) == ("1", "1", "new")
    assert "new" in (await site.echo("/", **{"x-both": "old"})).headers["x-both"]
    assert (answer.headers["x-answered"], answer.headers["x-host"]) == ("200", "1")
    assert "x-backend" not in answer.headers


async def test_faults_fail_and_delay_requests_of_their_route_alone(site: Site, backends: Backends) -> None:
    await site.serve(
        to_upstream("/abort", "red", faults={"abort": {"percentage": 100, "httpStatus": 418}}),
        to_upstream("/some", "red", faults={"abort": {"percentage": 50, "httpStatus": 503}}),
        to_upstream("/late", "red", faults={"delay": {"percentage": 100, "fixedDelay": "0.3s"}}),
        to_upstream("/", "red"),
    )

    asked = backends["red"].asked
    assert (await site.get("/abort")).status == 418
    assert backends["red"].asked == asked
    began = time.monotonic()
    assert (await site.get("/late")).status == 200
    assert time.monotonic() - began >= 0.29  # Envoy's timers count whole milliseconds
    statuses = Counter([(await site.get("/some")).status for _ in range(100)])
    assert 25 <= statuses[503] <= 75
    assert statuses[200] + statuses[503] == 100
    began = time.monotonic()
    assert (await site.get("/")).status == 200
    assert time.monotonic() - began < 0.3


# -- domains --------------------------------------------------------------------------------------------


async def test_the_most_specific_domain_takes_the_request(stack: Stack) -> None:
    hosts = {
        "exact": ["www.shop.test"],
        "longer": ["*.eu.shop.test"],
        "shorter": ["*.shop.test", "shop.*"],
        "port": ["www.shop.test:81"],
    }
    for name, domains in hosts.items():
        await stack.put(
            "VirtualService", f"domain-{name}", virtual_service(direct("/", name), domains=domains)
        )
        await stack.status_is("Accepted", "VirtualService", f"domain-{name}")

    for host, name in (
        ("www.shop.test", "exact"),
        ("WWW.Shop.Test", "exact"),
        ("www.shop.test:81", "port"),
        ("a.shop.test", "shorter"),
        ("a.eu.shop.test", "longer"),
        ("a.b.shop.test", "shorter"),
        ("shop.org", "shorter"),
    ):
        await stack.answers("/", host=host, saying=name)
    assert (await stack.get("/", host="shop-test")).status == 404
    await stack.put("VirtualService", "domain-rest", virtual_service(direct("/", "rest"), domains=["*"]))
    await stack.answers("/", host="shop-test", saying="rest")
    assert (await stack.get("/", host="www.shop.test")).text == "exact"
    await stack.delete("VirtualService", "domain-rest")
    await stack.answers("/", 404, host="shop-test")


# -- delegation -----------------------------------------------------------------------------------------


async def test_route_tables_are_found_by_reference_and_by_label(site: Site, backends: Backends) -> None:
    stack = site.stack
    await stack.put("RouteTable", "pets", {"routes": [to_upstream("/api/pets", "red")]})
    by_label = {"metadata": {"name": "users", "namespace": "team", "labels": {"team": "users"}}}
    users: Document = {**by_label, "routes": [to_upstream("/team/users", "green", prefixRewrite="/u")]}
    await stack.put("RouteTable", "users", users, namespace="team")
    selector = {"selector": {"labels": {"team": "users"}, "namespaces": ["*"]}}
    await site.serve(
        {
            "matchers": [{"prefix": "/api"}],
            "delegateAction": {"ref": {"name": "pets", "namespace": "gloo-system"}},
            "options": {"hostRewrite": "from.parent"},
        },
        {"matchers": [{"prefix": "/team"}], "delegateAction": selector},
    )
    await site.says("Accepted")
    await site.reaches("/api/pets/1", "red")
    await site.reaches("/team/users/1", "green")

    pets = await site.echo("/api/pets/1")
    assert (pets.backend, pets.path, pets.host) == ("red", "/api/pets/1", "from.parent")
    assert (await site.echo("/team/users/1")).path == "/u/1"
    assert (await site.get("/api/other")).status == 404
    assert (await stack.status_is("Accepted", "RouteTable", "pets"))["reportedBy"] == "gateway"
    await stack.status_is("Accepted", "RouteTable", "users", "team")

    await stack.put("RouteTable", "pets", {"routes": [to_upstream("/api/pets", "blue")]})
    await site.reaches("/api/pets", "blue")
    late: Document = {"metadata": {"name": "late", "namespace": "gloo-system", "labels": {"team": "users"}}}
    await stack.put("RouteTable", "late", {**late, "routes": [direct("/team/late", "late")]})
    await stack.answers("/team/late", host=site.domain, saying="late")
    await stack.delete("RouteTable", "late")
    await stack.answers("/team/late", 404, host=site.domain)


async def test_a_table_that_is_missing_or_wrong_costs_only_its_own_routes(site: Site) -> None:
    stack = site.stack
    delegate = {"delegateAction": {"ref": {"name": "missing", "namespace": "gloo-system"}}}
    await site.serve({"matchers": [{"prefix": "/gone"}], **delegate}, direct("/", "stays"))
    await site.says("Warning", "route table gloo-system.missing not found")
    assert (await site.get("/gone")).text == "stays"

    await stack.put("RouteTable", "missing", {"routes": [direct("/gone", "found")]})
    await stack.answers("/gone", host=site.domain, saying="found")
    await site.says("Accepted")

    await stack.put(
        "RouteTable", "missing", {"routes": [direct("/gone", "bad", options={"prefixRewrit": "/"})]}
    )
    await stack.status_is("Rejected", "RouteTable", "missing", saying="did you mean prefixRewrite?")
    await site.says("Warning", "its last good version serves")
    assert (await site.get("/gone")).text == "found"
    assert (await site.get("/")).text == "stays"

    await stack.put("RouteTable", "missing", {"routes": [direct("/elsewhere", "outside")]})
    await site.says("Warning")
    await stack.answers("/gone", host=site.domain, saying="stays")


async def test_delegation_in_a_circle_is_told_and_ends(site: Site) -> None:
    stack = site.stack
    for name, other in (("round", "about"), ("about", "round")):
        delegate = {"delegateAction": {"ref": {"name": other, "namespace": "gloo-system"}}}
        await stack.put("RouteTable", name, {"routes": [{"matchers": [{"prefix": "/"}], **delegate}]})
    delegate = {"delegateAction": {"ref": {"name": "round", "namespace": "gloo-system"}}}
    await site.serve(direct("/ok", "ok"), {"matchers": [{"prefix": "/"}], **delegate})

    await stack.status_is("Rejected", "RouteTable", "round", saying="delegation goes in a circle")
    assert (await site.get("/ok")).text == "ok"


# -- gateways and proxies -------------------------------------------------------------------------------


async def test_a_second_gateway_of_a_proxy_serves_what_it_selects(stack: Stack) -> None:
    port = free_port()
    labels = {"metadata": {"name": "labelled", "namespace": "gloo-system", "labels": {"zone": "inner"}}}
    labelled = virtual_service(direct("/", "inner"), domains=["inner.example.com"])
    await stack.put("VirtualService", "labelled", {**labelled, **labels})
    others = virtual_service(direct("/", "outer"), domains=["outer.example.com"])
    await stack.put("VirtualService", "unlabelled", others)
    gateway = {**GATEWAY, "bindPort": port, "httpGateway": {"virtualServiceSelector": {"zone": "inner"}}}
    await stack.put("Gateway", "inner", gateway)

    await eventually(
        lambda: stack.get("/", host="inner.example.com", port=port), until=lambda found: found.text == "inner"
    )
    assert (await stack.get("/", host="outer.example.com", port=port)).status == 404
    await stack.answers("/", host="inner.example.com", saying="inner")
    await stack.answers("/", host="outer.example.com", saying="outer")
    await stack.status_is("Accepted", "Gateway", "inner")

    await stack.delete("Gateway", "inner")
    await eventually(lambda: stack.get("/", port=port), until=lambda found: found.status == 0)
    await stack.answers("/", host="outer.example.com", saying="outer")


async def test_each_envoy_gets_the_proxy_of_its_role(stack: Stack, backends: Backends) -> None:
    port, admin = free_ports(2)
    stack.start_envoy("second", admin, metadata={"role": "gloo-system~second"})
    only = {"virtualServices": [{"name": "second-only", "namespace": "gloo-system"}]}
    gateway = {**GATEWAY, "bindPort": port, "proxyNames": ["second"], "httpGateway": only}
    await stack.put("Gateway", "second", gateway)
    both = virtual_service(to_upstream("/", "red"), domains=["second.example.com"])
    await stack.put("VirtualService", "second-only", both)
    try:
        answer = await eventually(
            lambda: stack.get("/", host="second.example.com", port=port),
            until=lambda found: found.status == 200,
        )
        assert answer.headers["x-backend"] == "red"
        await stack.answers("/", host="second.example.com")
        await stack.status_is("Accepted", "Proxy", "second")
        clients = (await stack.debug("gloo", "xds"))["clients"]
        assert {client["role"] for client in clients} == {"gloo-system~gateway-proxy", "gloo-system~second"}
        status = await eventually(
            lambda: stack.status("VirtualService", "second-only"),
            until=lambda found: len(found.get("subresourceStatuses", {})) == 2,
        )
        assert {part["state"] for part in status["subresourceStatuses"].values()} == {"Accepted"}
        names = await stack.envoy("/config_dump?resource=dynamic_listeners", admin)
        assert str(stack.http_port) not in names
    finally:
        await stack.delete("Gateway", "second")
        await stack.stop_process("second")
