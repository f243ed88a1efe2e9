"""Buffering: a request's whole body is collected, up to a limit, before the upstream gets any of it."""

from __future__ import annotations

from protos import gloo
from protos.envoy import buffer
from services.gloo.plugin import ALL, Feature, HttpFilter, Patch, Scope, Stage

FILTER = "envoy.filters.http.buffer"
OFF = buffer.Buffer(max_request_bytes=1)  # a limit is required even while it is off


def collect(wanted: gloo.Buffer, scope: Scope) -> Patch:
    return Patch(filters={FILTER: limited(wanted, "maxRequestBytes", scope)})


def collect_here(wanted: gloo.BufferPerRoute, scope: Scope) -> Patch:
    if wanted.buffer is not None:
        limit = limited(wanted.buffer, "buffer.maxRequestBytes", scope)
        return Patch(filters={FILTER: buffer.BufferPerRoute(buffer=limit)})
    if not wanted.disabled:
        scope.error("", "says nothing; one of disabled: true, buffer")
    return Patch(filters={FILTER: buffer.BufferPerRoute(disabled=True)})


def limited(wanted: gloo.Buffer, where: str, scope: Scope) -> buffer.Buffer:
    if wanted.max_request_bytes is None:
        scope.error(where, "required")
    elif wanted.max_request_bytes == 0:
        scope.error(where, "must be more than 0")
    return buffer.Buffer(max_request_bytes=wanted.max_request_bytes)


FEATURES = (
    Feature(
        name="buffer",
        reads={"Buffer": ALL},
        on_listener=collect,
        filter=HttpFilter(name=FILTER, stage=Stage.ROUTE, config=OFF),
    ),
    Feature(
        name="bufferPerRoute",
        reads={"BufferPerRoute": ALL},
        on_virtual_host=collect_here,
        on_route=collect_here,
        on_destination=collect_here,
    ),
)
