"""Stories of the gateway as a process on a real Consul."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from shared.store.chunks import ANNOTATION
from shared.store.spec import fingerprint, observed, spec_of
from tests.services.gateway.process import (
    GATEWAY_KIND,
    PROXY,
    SERVICE,
    SUBRESOURCE,
    TABLE,
    Objects,
    Replica,
    answer,
    report,
    running,
    service,
)
from tests.support.consul import ConsulServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.consul


@pytest.fixture
def objects(consul_server: ConsulServer) -> Objects:
    return Objects(consul_server)


async def test_default_gateways_are_made_where_there_are_none(objects: Objects, tmp_path: Path) -> None:
    async with running(objects.consul, tmp_path):
        secure = await eventually(lambda: objects.get(GATEWAY_KIND, "gateway-proxy-ssl"))
        plain = await objects.when_status(GATEWAY_KIND, "gateway-proxy", "Accepted")
        proxy = await eventually(lambda: objects.get(PROXY, "gateway-proxy"))

    assert plain == {"state": "Accepted", "reportedBy": "gateway"}
    assert (secure["bindPort"], secure["ssl"], secure["bindAddress"]) == (8443, True, "::")
    assert secure["metadata"]["annotations"] == {"origin": "default"}
    assert proxy["metadata"]["labels"] == {"created_by": "gateway"}


async def test_no_gateways_are_made_where_there_is_one_or_it_is_switched_off(
    objects: Objects, tmp_path: Path
) -> None:
    async with running(objects.consul, tmp_path, gateway={"disableAutoGenGateways": True}):
        await objects.put(SERVICE, "lonely", service("a.com"))
        lonely = await objects.when_status(SERVICE, "lonely", "Warning")
    await objects.put(GATEWAY_KIND, "mine", {"bindAddress": "::", "bindPort": 9000, "httpGateway": {}})
    async with running(objects.consul, tmp_path):
        await objects.when_status(SERVICE, "lonely", "Accepted")
        made = await objects.get(GATEWAY_KIND, "gateway-proxy")

    assert lonely["reason"] == "warning: no gateway serves this virtual service"
    assert made == {}


async def test_a_virtual_service_comes_changes_and_goes(objects: Objects, tmp_path: Path) -> None:
    async with running(objects.consul, tmp_path):
        await objects.put(SERVICE, "default", service("a.com", 201))
        made = (await eventually(objects.hosts))["gloo-system.default"]
        await objects.judge()
        status = await eventually(
            lambda: objects.status(SERVICE, "default"), until=lambda found: "subresourceStatuses" in found
        )

        await objects.put(SERVICE, "default", service("a.com", 202))
        await eventually(objects.hosts, until=lambda hosts: answer(hosts["gloo-system.default"]) == 202)
        judged = await objects.get(SERVICE, "default")
        await objects.delete(SERVICE, "default")
        await eventually(objects.hosts, until=lambda hosts: not hosts)

    assert answer(made) == 201
    assert status == {
        "state": "Accepted",
        "reportedBy": "gateway",
        "subresourceStatuses": {SUBRESOURCE: {"state": "Accepted", "reportedBy": "gloo"}},
        "details": {"observed": observed(status)},
    }
    assert observed(judged.get("status", {})) != fingerprint(spec_of(judged))


async def test_a_misspelt_option_is_reported_and_the_route_goes_on(objects: Objects, tmp_path: Path) -> None:
    async with running(objects.consul, tmp_path):
        await objects.put(SERVICE, "default", service("a.com", 201))
        await eventually(objects.hosts)

        await objects.put(SERVICE, "default", service("a.com", 202, timeuot="1s"))
        status = await objects.when_status(SERVICE, "default", "Rejected")
        await objects.put(SERVICE, "other", service("b.com", 203))
        hosts = await eventually(objects.hosts, until=lambda hosts: len(hosts) == 2)

    assert status["reason"].startswith("virtualHost.routes[0].options.timeuot: unknown field")
    assert answer(hosts["gloo-system.default"]) == 201


async def test_garbage_costs_only_itself(objects: Objects, tmp_path: Path) -> None:
    async with running(objects.consul, tmp_path) as (replica,):
        await objects.put(SERVICE, "good", service("a.com", 201))
        await eventually(objects.hosts)
        await objects.put(SERVICE, "good", b"virtualHost: [")
        await objects.put(SERVICE, "binary", bytes(range(256)))
        await objects.put(TABLE, "text", b"just words")
        await objects.put(GATEWAY_KIND, "binary", b"\xff\xfe")
        await objects.put(PROXY, "binary", b"\x00\x01")
        await objects.put(SERVICE, "deep/er", b"{}")

        await objects.put(SERVICE, "other", service("b.com", 202))
        hosts = await eventually(objects.hosts, until=lambda hosts: len(hosts) == 2)
        await objects.when_status(SERVICE, "other", "Accepted")
        page = await replica.page("/debug/gateway")
        assert replica.process is not None
        log = replica.process.output()

    assert answer(hosts["gloo-system.good"]) == 201
    assert page["objects"]["VirtualService gloo-system.good"]["errors"]
    for name in (
        "VirtualService/gloo-system/binary",
        "RouteTable/gloo-system/text",
        "Gateway/gloo-system/binary",
    ):
        assert name in log
    assert "Traceback" not in log


async def test_a_taken_domain_stays_with_its_owner(objects: Objects, tmp_path: Path) -> None:
    async with running(objects.consul, tmp_path):
        await objects.put(SERVICE, "owner", service("a.com", 201))
        await eventually(objects.hosts)

        await objects.put(SERVICE, "a-thief", {"virtualHost": {"domains": ["a.com", "b.com"], "routes": []}})
        thief = await objects.when_status(SERVICE, "a-thief", "Rejected")
        owner = await objects.when_status(SERVICE, "owner", "Warning")
        hosts = await objects.hosts()

    assert "a.com: already served by virtual service gloo-system.owner" in thief["reason"]
    assert "gloo-system.a-thief" in owner["reason"]
    assert set(hosts) == {"gloo-system.owner"}


async def test_a_missing_route_table_is_a_warning_until_it_comes(objects: Objects, tmp_path: Path) -> None:
    delegating = {"matchers": [{"prefix": "/t"}], "delegateAction": {"ref": {"name": "table"}}}
    async with running(objects.consul, tmp_path):
        await objects.put(SERVICE, "top", {"virtualHost": {"domains": ["a.com"], "routes": [delegating]}})
        missing = await objects.when_status(SERVICE, "top", "Warning")

        route = {"matchers": [{"prefix": "/t"}], "directResponseAction": {"status": 204}}
        await objects.put(TABLE, "table", {"routes": [route]})
        await objects.when_status(SERVICE, "top", "Accepted")
        await objects.when_status(TABLE, "table", "Accepted")
        hosts = await objects.hosts()

    assert missing["reason"] == (
        "warning: virtualHost.routes[0].delegateAction: route table gloo-system.table not found"
    )
    assert answer(hosts["gloo-system.top"]) == 204


async def test_what_gloo_finds_is_said_to_the_object_it_concerns(objects: Objects, tmp_path: Path) -> None:
    async with running(objects.consul, tmp_path):
        await objects.put(SERVICE, "bad", service("a.com"))
        await objects.put(SERVICE, "good", service("b.com"))
        await eventually(objects.hosts, until=lambda hosts: len(hosts) == 2)
        await objects.judge(report("bad", errors=("virtualHost.routes[0]: no such thing",)), state="Rejected")
        bad = await objects.when_status(SERVICE, "bad", "Rejected")
        good = await eventually(
            lambda: objects.status(SERVICE, "good"), until=lambda found: "subresourceStatuses" in found
        )

        await objects.judge(report("bad", warnings=("upstream x not found",)), state="Warning")
        warned = await objects.when_status(SERVICE, "bad", "Warning")

    assert bad["subresourceStatuses"][SUBRESOURCE] == {
        "state": "Rejected",
        "reportedBy": "gloo",
        "reason": "virtualHost.routes[0]: no such thing",
    }
    assert (good["state"], good["subresourceStatuses"][SUBRESOURCE]["state"]) == ("Accepted", "Accepted")
    assert warned["reason"] == "warning: upstream x not found"


async def test_a_status_is_not_written_twice_and_is_put_back(objects: Objects, tmp_path: Path) -> None:
    async with running(objects.consul, tmp_path):
        await objects.put(SERVICE, "one", "# mine\n" + "virtualHost: {domains: [a.com]} # here\n")
        await eventually(objects.hosts)
        await objects.judge()
        await eventually(
            lambda: objects.status(SERVICE, "one"), until=lambda found: "subresourceStatuses" in found
        )
        settled = await objects.row(SERVICE, "one")
        await objects.put(SERVICE, "two", service("b.com"))
        await eventually(objects.hosts, until=lambda hosts: len(hosts) == 2)
        await objects.judge()
        await eventually(
            lambda: objects.status(SERVICE, "two"), until=lambda found: "subresourceStatuses" in found
        )
        after = await objects.row(SERVICE, "one")

        await objects.put(SERVICE, "one", "# mine\n" + "virtualHost: {domains: [a.com]} # here\n")
        await objects.when_status(SERVICE, "one", "Accepted")
        written = (await objects.raw(SERVICE, "one")).decode()

    assert settled is not None
    assert after is not None
    assert settled["ModifyIndex"] == after["ModifyIndex"]
    assert written.startswith("# mine\nvirtualHost: {domains: [a.com]} # here\n")


async def test_a_restart_keeps_the_last_good_version_of_a_bad_object(
    objects: Objects, tmp_path: Path
) -> None:
    async with running(objects.consul, tmp_path):
        await objects.put(SERVICE, "one", service("a.com", 201))
        await objects.put(SERVICE, "two", service("b.com", 202))
        await eventually(objects.hosts, until=lambda hosts: len(hosts) == 2)
    await objects.put(SERVICE, "one", service("a.com", 203, timeuot="1s"))
    await objects.put(GATEWAY_KIND, "gateway-proxy", b"bindPort: {")

    async with running(objects.consul, tmp_path):
        await objects.when_status(SERVICE, "one", "Rejected")
        await objects.put(SERVICE, "two", service("b.com", 204))
        hosts = await eventually(objects.hosts, until=lambda hosts: answer(hosts["gloo-system.two"]) == 204)

    assert answer(hosts["gloo-system.one"]) == 201


async def test_a_restart_writes_nothing_that_is_right_already(objects: Objects, tmp_path: Path) -> None:
    async with running(objects.consul, tmp_path):
        for number in range(3):
            await objects.put(SERVICE, f"vs-{number}", service(f"{number}.com"))
        await eventually(objects.hosts, until=lambda hosts: len(hosts) == 3)
        await objects.judge()
        await eventually(
            lambda: objects.status(SERVICE, "vs-2"), until=lambda found: "subresourceStatuses" in found
        )
    before = [await objects.row(SERVICE, "vs-1"), await objects.row(PROXY, "gateway-proxy")]

    async with running(objects.consul, tmp_path) as (replica,):
        await eventually(replica.leads)
        await objects.put(SERVICE, "marker", {"virtualHost": {"domains": ["m.com"]}, "oops": 1})
        await objects.when_status(SERVICE, "marker", "Rejected")
        after = [await objects.row(SERVICE, "vs-1"), await objects.row(PROXY, "gateway-proxy")]

    assert before == after


async def test_only_proxies_of_ours_are_touched(objects: Objects, tmp_path: Path) -> None:
    gateway = {"bindAddress": "::", "bindPort": 8080, "httpGateway": {}}
    await objects.put(GATEWAY_KIND, "one", {**gateway, "proxyNames": ["mine", "theirs"]})
    await objects.put(PROXY, "theirs", {"listeners": []})
    await objects.put(PROXY, "stale", {"metadata": {"labels": {"created_by": "gateway"}}})
    async with running(objects.consul, tmp_path):
        await eventually(lambda: objects.get(PROXY, "mine"))
        await eventually(lambda: objects.raw(PROXY, "stale"), until=lambda raw: not raw)
        status = await objects.when_status(GATEWAY_KIND, "one", "Rejected")

        await objects.delete(PROXY, "mine")  # by hand: it comes back
        await eventually(lambda: objects.get(PROXY, "mine"))
        await objects.put(PROXY, "mine", {"metadata": {"labels": {"created_by": "gateway"}}})
        await eventually(lambda: objects.get(PROXY, "mine"), until=lambda found: "listeners" in found)
        await objects.put(GATEWAY_KIND, "one", {**gateway, "proxyNames": ["mine"]})
        await objects.when_status(GATEWAY_KIND, "one", "Accepted")
        theirs = await objects.get(PROXY, "theirs")

    assert "theirs" in status["reason"]
    assert theirs["listeners"] == []


def hosts_listed(proxy: Mapping[str, Any]) -> int:
    """How many virtual hosts the manifest of a large Proxy lists."""
    manifest = json.loads(proxy.get("metadata", {}).get("annotations", {}).get(ANNOTATION, "{}"))
    return sum(len(entries.split()) for entries in manifest.get("lists", {}).values())


async def test_a_large_proxy_is_written_in_chunks_and_an_edit_writes_one(
    objects: Objects, tmp_path: Path
) -> None:
    routes = [
        {"matchers": [{"prefix": f"/{i}"}], "directResponseAction": {"status": 200, "body": "x" * 400}}
        for i in range(200)
    ]
    async with running(objects.consul, tmp_path) as (replica,):
        for number in range(4):
            host = {"domains": [f"{number}.com"], "routes": routes}
            await objects.put(SERVICE, f"vs-{number}", {"virtualHost": host})
        await eventually(
            lambda: objects.get(PROXY, "gateway-proxy"), until=lambda found: hosts_listed(found) == 4
        )
        await objects.judge(report("vs-3", warnings=("look",)), state="Warning")
        await objects.when_status(SERVICE, "vs-3", "Warning")
        before = await objects.row(PROXY, "gateway-proxy")
    async with running(objects.consul, tmp_path) as (replica,):
        await eventually(replica.leads)
        await objects.put(SERVICE, "marker", {"virtualHost": {"domains": ["m.com"]}, "oops": 1})
        await objects.when_status(SERVICE, "marker", "Rejected")
        after = await objects.row(PROXY, "gateway-proxy")

    assert before == after


async def test_when_the_leader_dies_a_follower_goes_on(objects: Objects, tmp_path: Path) -> None:
    async with running(objects.consul, tmp_path, replicas=2) as (first, second):
        await eventually(first.leads)
        assert not await second.leads()
        await objects.put(SERVICE, "one", service("a.com", 201))
        await eventually(objects.hosts)

        assert first.process is not None
        await first.process.kill()
        await objects.put(SERVICE, "one", service("a.com", 202))
        hosts = await eventually(
            objects.hosts, until=lambda hosts: answer(hosts["gloo-system.one"]) == 202, within=30
        )
        await objects.put(SERVICE, "two", service("a.com", 203, timeuot=1))
        await objects.when_status(SERVICE, "two", "Rejected")
        leads = await second.leads()

    assert leads
    assert set(hosts) == {"gloo-system.one"}


async def test_settings_are_taken_over_without_a_restart(objects: Objects, tmp_path: Path) -> None:
    async with running(objects.consul, tmp_path, watchNamespaces=["team-a"]) as (replica,):
        await objects.put(SERVICE, "one", service("a.com"))
        await objects.consul.put(
            "gloo/gateway.solo.io/v1/VirtualService/team-b/two", b"virtualHost: {domains: [b]}"
        )
        await eventually(objects.hosts)
        narrow = await objects.hosts()

        replica.write_settings({"gateway": {"compressedProxySpec": True}})
        wide = await eventually(objects.hosts, until=lambda hosts: len(hosts) == 2, within=20)
        assert replica.process is not None
        log = replica.process.output()

    assert set(narrow) == {"gloo-system.one"}
    assert set(wide) == {"gloo-system.one", "team-b.two"}
    assert "settings.gateway.compressedProxySpec" in log


async def test_without_consul_it_waits_and_says_so(tmp_path: Path) -> None:
    server = ConsulServer(tmp_path / "consul")
    objects = Objects(server)
    replica = Replica(server, tmp_path / "gateway", {})
    replica.start()
    try:
        waiting = await eventually(
            lambda: replica.text("/metrics"), until=lambda page: b"ready 0.0" in page, within=20
        )
        async with server:
            await replica.ready()
            await objects.put(SERVICE, "one", service("a.com"))
            await eventually(objects.hosts, within=20)
        exit_code = await replica.stop()
    finally:
        await replica.stop()

    assert waiting
    assert exit_code == 0
