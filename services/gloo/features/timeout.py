"""Timeouts: how long a route waits for the whole answer, for any sign of life, and for a stream's end."""

from __future__ import annotations

from datetime import timedelta

from protos import gloo
from protos.envoy import route
from services.gloo import checks
from services.gloo.plugin import ALL, Feature, Patch, Scope


def limit_answer(timeout: timedelta, scope: Scope) -> Patch:
    """Zero switches the limit off; without the option Envoy waits 15 seconds."""
    if problem := checks.duration(timeout):
        scope.error("", problem)
    return Patch(action={"timeout": timeout})


def limit_silence(timeout: timedelta, scope: Scope) -> Patch:
    if problem := checks.duration(timeout):
        scope.error("", problem)
    return Patch(action={"idle_timeout": timeout})


def limit_stream(limits: gloo.RouteOptionsMaxStreamDuration, scope: Scope) -> Patch:
    for name, value in (
        ("maxStreamDuration", limits.max_stream_duration),
        ("grpcTimeoutHeaderMax", limits.grpc_timeout_header_max),
        ("grpcTimeoutHeaderOffset", limits.grpc_timeout_header_offset),
    ):
        if value is not None and (problem := checks.duration(value)):
            scope.error(name, problem)
    if limits.grpc_timeout_header_offset is not None and limits.grpc_timeout_header_max is None:
        scope.warn("grpcTimeoutHeaderOffset", "has no effect without grpcTimeoutHeaderMax")
    found = route.RouteActionMaxStreamDuration(
        max_stream_duration=limits.max_stream_duration,
        grpc_timeout_header_max=limits.grpc_timeout_header_max,
        grpc_timeout_header_offset=limits.grpc_timeout_header_offset,
    )
    return Patch(action={"max_stream_duration": found})


FEATURES = (
    Feature(name="timeout", on_route=limit_answer),
    Feature(name="idleTimeout", on_route=limit_silence),
    Feature(name="maxStreamDuration", reads={"RouteOptions.MaxStreamDuration": ALL}, on_route=limit_stream),
)
