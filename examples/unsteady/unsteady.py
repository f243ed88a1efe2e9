"""Unsteady: a service that fails and dawdles as it is told to, for recipes about what to do then.

``/fails/{n}`` fails n times with 503 and succeeds once, again and again. ``/hangs/{n}`` does not answer n
times, then once. ``/slow/{seconds}`` takes its time, ``/drips`` sends a line ten times a second for ever. All
else is fine; or, with ``--broken``, nothing is.

usage: unsteady.py [--host HOST] [--port PORT] [--broken]
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter

from aiohttp import web

ASKED = web.AppKey("asked", Counter[str])
FOREVER = 3600.0


def make_app(*, broken: bool) -> web.Application:
    app = web.Application()
    app[ASKED] = Counter()
    if not broken:
        app.add_routes([web.route("*", f"/{each.__name__}/{{how}}", each) for each in (fails, hangs, slow)])
        app.add_routes([web.get("/drips", drips)])
    app.add_routes([web.route("*", "/{path:.*}", breaks if broken else fine)])
    return app


def is_due(request: web.Request) -> bool:
    """Whether it is the turn of the one good answer after some bad ones."""
    asked, bad = request.app[ASKED], int(request.match_info["how"])
    asked[request.path] += 1
    return asked[request.path] % (bad + 1) == 0


async def fails(request: web.Request) -> web.Response:
    return await fine(request) if is_due(request) else await breaks(request)


async def hangs(request: web.Request) -> web.Response:
    if not is_due(request):
        await asyncio.sleep(FOREVER)
    return await fine(request)


async def slow(request: web.Request) -> web.Response:
    await asyncio.sleep(float(request.match_info["how"]))
    return await fine(request)


async def drips(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    while True:
        await answer.write(b"drip\n")
        await asyncio.sleep(0.1)


async def fine(request: web.Request) -> web.Response:
    return web.Response(text="fine\n")


async def breaks(request: web.Request) -> web.Response:
    return web.Response(status=503, text="broken\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="unsteady", description="A service that fails as it is told to.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8091)
    parser.add_argument("--broken", action="store_true", help="fail always")
    given = parser.parse_args()
    app = make_app(broken=given.broken)
    web.run_app(app, host=given.host, port=given.port, print=None, access_log=None, shutdown_timeout=0.1)


if __name__ == "__main__":
    main()
