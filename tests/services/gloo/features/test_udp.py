"""Datagrams through a real Envoy: to the upstream and back, in sessions, of what length."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.support.datagrams import Client, echoing
from tests.support.envoy import Envoy, running_envoy
from tests.support.golden import static_resources, translate_world
from tests.support.ports import free_port, free_ports
from tests.support.waiting import eventually

Document = dict[str, Any]


@contextlib.asynccontextmanager
async def serving(
    folder: Path, upstreams: dict[str, list[int]], *listeners: Document
) -> AsyncIterator[tuple[Envoy, list[int]]]:
    """An Envoy with UDP *listeners*, and their ports; *upstreams* are ports of this machine by name."""
    ports, admin = free_ports(len(listeners)), free_port()
    placed = [
        {"name": f"udp-{i}", "bindAddress": "127.0.0.1", "bindPort": port, **listener}
        for i, (port, listener) in enumerate(zip(ports, listeners, strict=True))
    ]
    static = [
        {
            "metadata": {"name": name, "namespace": "ns"},
            "static": {"hosts": [{"addr": "127.0.0.1", "port": port} for port in members]},
            "loadBalancerConfig": {"ringHash": {}},
        }
        for name, members in upstreams.items()
    ]
    world, reports = translate_world({"proxy": {"listeners": placed}, "upstreams": static})
    assert all(report.clean for report in reports.values()), reports
    resources = static_resources({"": world}, port=1)
    for each, port in zip(resources["listeners"], ports, strict=True):
        each["address"]["socketAddress"]["portValue"] = port
    bootstrap = {
        "node": {"id": "envoy", "cluster": "gateway"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "static_resources": resources,
    }
    async with running_envoy(folder, bootstrap) as envoy:
        yield envoy, ports


def udp(upstream: str, **options: Any) -> Document:
    to = {"upstream": {"name": upstream, "namespace": "ns"}}
    return {"udpListener": {"destination": to, "statPrefix": f"to-{upstream}", "options": options}}


async def test_datagrams_go_to_the_upstream_and_back(tmp_path: Path) -> None:
    log = {"fileSink": {"path": str(tmp_path / "log"), "stringFormat": "%UPSTREAM_HOST%\n"}}
    logged = {**udp("one", idleTimeout="2s"), "options": {"accessLoggingService": {"accessLog": [log]}}}
    async with (
        echoing("one") as one,
        echoing("two") as two,
        serving(
            tmp_path,
            {"one": [one.port], "both": [one.port, two.port]},
            logged,
            udp("one", maxDatagramSize=9000),
            udp("both", hashSourceIp=True),
            udp("both", perPacketLoadBalancing=True),
        ) as (envoy, [short, long, hashed, spread]),
        Client.to(short) as brief,
    ):
        assert await brief.ask(b"hello") == b"one hears hello"
        assert await brief.ask(b"again") == b"one hears again"
        assert len(one.clients) == 1  # one session
        await eventually(lambda: (tmp_path / "log").read_text(), until=lambda text: f":{one.port}" in text)
        assert await brief.ask(b"later") == b"one hears later"
        assert len(one.clients) == 2  # it was silent for too long
        assert (await envoy.stats("^udp.to-one.downstream_sess_total$")).popitem()[1] >= 2

        brief.send(b"a" * 8000)  # longer than by default
        await eventually(lambda: envoy.stats("rx_datagram_dropped$"), until=lambda told: 1 in told.values())
        async with Client.to(long) as talker:
            assert len(await talker.ask(b"a" * 8000)) == 8000 + len(b"one hears ")

        met = set()
        for _ in range(6):
            async with Client.to(hashed) as client:
                met.add((await client.ask(b"hello"))[:3])
        assert len(met) == 1

        async with Client.to(spread) as client:
            met = {(await client.ask(b"hello"))[:3] for _ in range(20)}
        assert met == {b"one", b"two"}
