"""A collector of traces, as small as one can be: takes Zipkin's JSON and shows its spans as lines of text.

``POST /api/v2/spans`` takes spans, ``GET /traces/{id}`` shows those of a trace.

usage: collector.py [--host HOST] [--port PORT]
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from typing import Any

from aiohttp import web

Span = dict[str, Any]
TRACES = web.AppKey("traces", defaultdict[str, list[Span]])


def make_app() -> web.Application:
    app = web.Application()
    app[TRACES] = defaultdict(list)
    app.add_routes([web.post("/api/v2/spans", take), web.get("/traces/{id}", show)])
    return app


async def take(request: web.Request) -> web.Response:
    for span in await request.json():
        request.app[TRACES][span["traceId"]].append(span)
    return web.Response(status=202)


async def show(request: web.Request) -> web.Response:
    spans = sorted(request.app[TRACES][request.match_info["id"]], key=lambda span: span["timestamp"])
    return web.Response(text="".join(map(line, spans)))


def line(span: Span) -> str:
    tags = span["tags"]
    return f"{span['kind']} {span['name']}: {tags['http.status_code']}, team {tags['team']}\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="collector", description="Takes Zipkin's spans and shows them.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8092)
    given = parser.parse_args()
    web.run_app(make_app(), host=given.host, port=given.port, print=None, access_log=None)


if __name__ == "__main__":
    main()
