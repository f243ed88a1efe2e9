from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import orjson
import pytest

from shared.errors import InvalidSettings
from shared.ref import Ref
from shared.telemetry.admin import Admin
from shared.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Asking:
    admin: Admin
    session: aiohttp.ClientSession
    url: str

    async def get(self, path: str) -> tuple[int, object]:
        async with self.session.get(self.url + path) as answer:
            return answer.status, await answer.json()


@pytest.fixture
async def asking() -> AsyncIterator[Asking]:
    admin = Admin(Metrics())
    port = await admin.start("127.0.0.1", 0)
    async with aiohttp.ClientSession() as session:
        yield Asking(admin, session, f"http://127.0.0.1:{port}")
    await admin.close()


async def test_what_is_held_is_said_and_is_no_reason_not_to_be_ready(asking: Asking) -> None:
    asking.admin.ready("consul", True)
    asking.admin.held = lambda: ["2 of gloo/things/ since then"]

    told = {"ready": True, "waiting": {}, "held": ["2 of gloo/things/ since then"]}
    assert await asking.get("/readyz") == (200, told)


async def test_alive_before_it_is_ready(asking: Asking) -> None:
    assert await asking.get("/healthz") == (200, {"alive": True})
    assert await asking.get("/readyz") == (503, {"ready": False, "waiting": {"start": "starting"}})


async def test_ready_when_every_part_is(asking: Asking) -> None:
    asking.admin.ready("consul", False, "consul is away")
    asking.admin.ready("xds", True)

    assert await asking.get("/readyz") == (503, {"ready": False, "waiting": {"consul": "consul is away"}})
    asking.admin.ready("consul", True)
    assert await asking.get("/readyz") == (200, {"ready": True, "waiting": {}})


async def test_debug_pages_are_listed_and_served(asking: Asking) -> None:
    async def later() -> object:
        return {Ref("a", "b")}, orjson.Fragment(b'{"parts": "done before"}')

    asking.admin.debug("xds", lambda: {Ref("gloo-system", "proxy"): 1})
    asking.admin.debug("/debug/late/page", later)

    assert await asking.get("/debug") == (200, {"pages": ["/debug/late/page", "/debug/xds"]})
    assert await asking.get("/debug/xds") == (200, {"gloo-system.proxy": 1})
    assert await asking.get("/debug/late/page") == (200, [["a.b"], {"parts": "done before"}])


async def test_pages_below_a_path_are_given_the_rest_of_it(asking: Asking) -> None:
    asking.admin.debug("roles", lambda: "all")
    asking.admin.debug_below("roles", lambda rest: rest.split("/"))

    assert await asking.get("/debug/roles") == (200, "all")
    assert await asking.get("/debug/roles/a/b") == (200, ["a", "b"])
    assert (await asking.get("/debug/other/a"))[0] == 404
    assert (await asking.get("/debug"))[1] == {"pages": ["/debug/roles", "/debug/roles/…"]}


async def test_it_says_where_others_find_it(asking: Asking) -> None:
    everywhere = Admin(Metrics())
    port = await everywhere.start("0.0.0.0", 0)
    await everywhere.close()

    assert asking.url == f"http://{asking.admin.address}"
    assert everywhere.address == f"{socket.gethostname()}:{port}"
    assert (await asking.get("/debug/none"))[0] == 404


async def test_metrics_are_prometheus_text(asking: Asking) -> None:
    asking.admin.ready("all", True)

    async with asking.session.get(asking.url + "/metrics") as answer:
        body = await answer.text()

    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert "\nready 1.0\n" in body


async def test_the_log_level_is_moved_by_a_put(asking: Asking) -> None:
    before = logging.getLogger().level
    try:
        async with asking.session.put(asking.url + "/logging?level=debug") as answer:
            assert (answer.status, await answer.json()) == (200, {"level": "debug"})
        assert logging.getLogger().level == logging.DEBUG
        async with asking.session.put(asking.url + "/logging?level=loud") as answer:
            assert answer.status == 400
            assert "choose one of" in (await answer.json())["error"]
        assert await asking.get("/logging") == (200, {"level": "debug"})
    finally:
        logging.getLogger().setLevel(before)


async def test_a_taken_port_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(InvalidSettings) as caught:
            await Admin(Metrics()).start("127.0.0.1", port)

    assert str(caught.value) == (
        f"cannot serve the admin endpoints on 127.0.0.1:{port}: another process listens there; "
        "choose another address with --admin-addr or ADMIN_ADDR"
    )


def test_who_heeds_readiness_is_told_when_it_turns() -> None:
    told: list[bool] = []
    admin = Admin(Metrics(), told.append)

    admin.ready("consul", False)
    admin.ready("consul", True)
    admin.ready("xds", True)
    admin.ready("consul", False)

    assert told == [True, False]
