"""Datacenters: each keeps its share of the requests while some of its instances are ill."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.backends import Backend
from tests.support.envoy import running_envoy
from tests.support.golden import static_resources, translate_world
from tests.support.ports import free_ports
from tests.support.waiting import eventually

INSTANCES = 3  # in each of two datacenters; all but one of the first are ill
ASKED = 240


def upstream(name: str, **balanced: Any) -> dict[str, Any]:
    checks = [
        {
            "timeout": "1s",
            "interval": "0.1s",
            "healthyThreshold": 1,
            "unhealthyThreshold": 1,
            "tcpHealthCheck": {},
        }
    ]
    return {
        "metadata": {"name": name, "namespace": "ns"},
        "consul": {"serviceName": "pets"},
        "healthChecks": checks,
        "loadBalancerConfig": {"healthyPanicThreshold": 0, **balanced},
    }


def to(name: str) -> dict[str, Any]:
    single = {"upstream": {"name": name, "namespace": "ns"}}
    return {"matchers": [{"prefix": f"/{name}"}], "routeAction": {"single": single}}


async def test_a_datacenter_keeps_more_of_its_share_than_its_healthy_instances_have(tmp_path: Path) -> None:
    port, admin, *ill = free_ports(1 + INSTANCES)
    async with contextlib.AsyncExitStack() as stack:
        there = [await stack.enter_async_context(Backend(f"dc2-{i}")) for i in range(INSTANCES)]
        here = await stack.enter_async_context(Backend("dc1"))
        members = [{"address": "127.0.0.1", "port": each, "datacenter": "dc1"} for each in (here.port, *ill)]
        members += [{"address": "127.0.0.1", "port": each.port, "datacenter": "dc2"} for each in there]
        world, reports = translate_world(
            {
                "routes": [to("weighed"), to("plain")],
                "upstreams": [upstream("weighed", localityWeightedLbConfig={}), upstream("plain")],
                "endpoints": {"weighed_ns": members, "plain_ns": members},
            }
        )
        assert all(report.clean for report in reports.values()), reports
        at = {"socket_address": {"address": "127.0.0.1", "port_value": admin}}
        bootstrap = {"admin": {"address": at}, "static_resources": static_resources({"": world}, port=port)}
        envoy = await stack.enter_async_context(running_envoy(tmp_path, bootstrap))
        client = await stack.enter_async_context(aiohttp.ClientSession(f"http://127.0.0.1:{port}"))

        async def healthy() -> int:
            stats = await envoy.stats("cluster.*membership_healthy")
            return sum(count for name, count in stats.items() if "_ns." in name)

        await eventually(healthy, until=lambda count: count == 2 * (1 + INSTANCES), within=20)

        async def share(path: str) -> float:
            met = Counter[str]()
            for _ in range(ASKED):
                async with client.get(path) as answer:
                    met[answer.headers.get("x-backend", str(answer.status))] += 1
            return met["dc1"] / ASKED

        # A third of dc1 is well, which counts as 1.4 thirds: 0.467 of the weight of dc2, not a third.
        assert abs(await share("/weighed") - 0.467 / 1.467) < 0.03
        assert abs(await share("/plain") - 1 / (1 + INSTANCES)) < 0.03
