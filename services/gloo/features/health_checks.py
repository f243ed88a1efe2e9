"""Health checks: Envoy itself asks an upstream's instances whether they are well."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from protos import gloo
from protos.envoy import core, envoy_type, health_check_file, matcher
from services.gloo import checks
from services.gloo.features.headers import added, removed
from services.gloo.features.upstream_http import speaks_http2
from services.gloo.plugin import ALL, Feature, Patch, Scope
from shared.codec.encode import pack
from shared.report import join

FILE_SINK = "envoy.health_check.event_sinks.file"
HEX = re.compile(r"([0-9A-Fa-f]{2})+")
METHODS = {
    method.name: method
    for method in core.RequestMethod
    if method.name not in ("METHOD_UNSPECIFIED", "CONNECT")
}
WITH_BODY = ("POST", "PUT", "PATCH")
MAX_FILE_NAME = 4096
LONG = timedelta(seconds=5)
STATUSES = range(100, 600)
TIMES = {
    "timeout": "timeout",
    "interval": "interval",
    "noTrafficInterval": "no_traffic_interval",
    "unhealthyInterval": "unhealthy_interval",
    "unhealthyEdgeInterval": "unhealthy_edge_interval",
    "healthyEdgeInterval": "healthy_edge_interval",
}
JITTERS = {"initialJitter": "initial_jitter", "intervalJitter": "interval_jitter"}
THRESHOLDS = {"unhealthyThreshold": "unhealthy_threshold", "healthyThreshold": "healthy_threshold"}
REQUIRED = ("timeout", "interval", *THRESHOLDS)


def check_health(upstream: gloo.Upstream, scope: Scope) -> Patch:
    fields: dict[str, Any] = {}
    if upstream.health_checks:
        first, at = upstream.health_checks[0], replace(scope, path=join(scope.path, "healthChecks[0]"))
        fields["health_checks"] = [health_check(first, at, http2=speaks_http2(upstream))]
        if first.grpc_health_check is not None and upstream.http_proxy_hostname is not None:
            at.error("grpcHealthCheck", "cannot go with httpProxyHostname; the proxy's hosts are checked")
    for i in range(1, len(upstream.health_checks)):
        scope.error(f"healthChecks[{i}]", "Envoy takes only one health check of an upstream")
    if upstream.ignore_health_on_host_removal:
        fields["ignore_health_on_host_removal"] = True
        if not upstream.health_checks:
            scope.warn("ignoreHealthOnHostRemoval", "has no effect without healthChecks")
    return Patch(fields=fields)


def health_check(given: gloo.HealthCheck, scope: Scope, *, http2: bool) -> core.HealthCheck:
    out = core.HealthCheck(
        reuse_connection=given.reuse_connection,
        interval_jitter_percent=given.interval_jitter_percent,
        always_log_health_check_failures=given.always_log_health_check_failures,
    )
    for name, attribute in (TIMES | JITTERS | THRESHOLDS).items():
        value = getattr(given, attribute)
        setattr(out, attribute, value)
        if value is None:
            problem = "required" if name in REQUIRED else None
        elif name in THRESHOLDS:
            problem = None if value else "must be more than 0"
        else:
            problem = checks.duration(value, positive=name in TIMES)
        if problem:
            scope.error(name, problem)
    if given.timeout is not None and given.timeout > LONG:
        scope.warn(
            "timeout", f"routes to any new upstream wait for first checks; best {LONG.seconds}s at most"
        )
    if given.event_log_path:
        out.event_logger = [file_sink(given.event_log_path, scope)]
    elif given.always_log_health_check_failures:
        scope.warn("alwaysLogHealthCheckFailures", "has no effect without eventLogPath")
    if given.http_health_check is not None:
        out.http_health_check = over_http(given.http_health_check, scope)
    elif given.tcp_health_check is not None:
        out.tcp_health_check = over_tcp(given.tcp_health_check, scope)
    elif given.grpc_health_check is not None:
        out.grpc_health_check = over_grpc(given.grpc_health_check, scope)
        if not http2:
            scope.error("grpcHealthCheck", "gRPC needs HTTP/2; set useHttp2 of the upstream")
    elif given.custom_health_check is None:
        scope.error("", "no checker; one of httpHealthCheck, tcpHealthCheck, grpcHealthCheck")
    return out


def file_sink(path: str, scope: Scope) -> core.TypedExtensionConfig:
    if problem := checks.text_value(path, MAX_FILE_NAME):
        scope.error("eventLogPath", problem)
    sink = health_check_file.HealthCheckEventFileSink(event_log_path=path)
    return core.TypedExtensionConfig(name=FILE_SINK, typed_config=pack(sink))


def over_http(given: gloo.HealthCheckHttpHealthCheck, outer: Scope) -> core.HealthCheckHttpHealthCheck:
    scope = replace(outer, path=join(outer.path, "httpHealthCheck"))
    if not given.path.startswith("/"):
        scope.error("path", f"{checks.shown(given.path)} does not begin with /" if given.path else "required")
    elif problem := checks.text_value(given.path):
        scope.error("path", problem)
    if given.host and (problem := checks.authority(given.host)):
        scope.error("host", problem)
    if given.method and given.method not in METHODS:
        scope.error("method", f"{checks.shown(given.method)} is none of {', '.join(METHODS)}")
    if given.send is not None and given.method not in WITH_BODY:
        scope.error("send", f"only {', '.join(WITH_BODY)} have a body; see method")
    if problem := checks.text_value(given.service_name):
        scope.error("serviceName", problem)
    out = core.HealthCheckHttpHealthCheck(
        host=given.host,
        path=given.path,
        method=METHODS.get(given.method, core.RequestMethod.METHOD_UNSPECIFIED),
        send=payload(given.send, "send", scope),
        request_headers_to_add=added(given.request_headers_to_add, "requestHeadersToAdd", scope),
        request_headers_to_remove=removed(given.request_headers_to_remove, "requestHeadersToRemove", scope),
        codec_client_type=envoy_type.CodecClientType.HTTP2
        if given.use_http2
        else envoy_type.CodecClientType.HTTP1,
        expected_statuses=statuses(given.expected_statuses, scope),
    )
    if expected := payload(given.receive, "receive", scope):
        out.receive = [expected]
    if given.service_name:
        out.service_name_matcher = matcher.StringMatcher(prefix=given.service_name)
    return out


def statuses(ranges: Sequence[gloo.HealthCheckInt64Range], scope: Scope) -> list[envoy_type.Int64Range]:
    for i, each in enumerate(ranges):
        if each.start not in STATUSES or each.end - 1 not in STATUSES or each.start >= each.end:
            scope.error(
                f"expectedStatuses[{i}]",
                f"{each.start} until {each.end} are no statuses; 100 or more until 600 at most",
            )
    return [envoy_type.Int64Range(start=each.start, end=each.end) for each in ranges]


def over_tcp(given: gloo.HealthCheckTcpHealthCheck, scope: Scope) -> core.HealthCheckTcpHealthCheck:
    received = [payload(each, f"tcpHealthCheck.receive[{i}]", scope) for i, each in enumerate(given.receive)]
    return core.HealthCheckTcpHealthCheck(
        send=payload(given.send, "tcpHealthCheck.send", scope), receive=[each for each in received if each]
    )


def over_grpc(given: gloo.HealthCheckGrpcHealthCheck, scope: Scope) -> core.HealthCheckGrpcHealthCheck:
    if problem := checks.text_value(given.service_name):
        scope.error("grpcHealthCheck.serviceName", problem)
    if given.authority and (problem := checks.authority(given.authority)):
        scope.error("grpcHealthCheck.authority", problem)
    return core.HealthCheckGrpcHealthCheck(service_name=given.service_name, authority=given.authority)


def payload(
    given: gloo.HealthCheckPayload | None, where: str, scope: Scope
) -> core.HealthCheckPayload | None:
    if given is None:
        return None
    if given.text is not None and not HEX.fullmatch(given.text):
        scope.error(f"{where}.text", f"{checks.shown(given.text)} are no hexadecimal digits in pairs")
    elif not given.text and not given.binary:
        scope.error(where, "no bytes; one of text, binary")
    return core.HealthCheckPayload(text=given.text, binary=given.binary)


FEATURES = (
    Feature(
        name="healthChecks",
        beside=("ignoreHealthOnHostRemoval",),
        reads={
            "HealthCheck": (
                *TIMES,
                *JITTERS,
                *THRESHOLDS,
                *("intervalJitterPercent", "reuseConnection", "eventLogPath", "alwaysLogHealthCheckFailures"),
                *("httpHealthCheck", "tcpHealthCheck", "grpcHealthCheck"),
            ),
            "HealthCheck.HttpHealthCheck": ALL,
            "HealthCheck.TcpHealthCheck": ALL,
            "HealthCheck.GrpcHealthCheck": ALL,
            "HealthCheck.Payload": ALL,
            "HealthCheck.Int64Range": ALL,
        },
        on_upstream=check_health,
    ),
)
