"""Tracing: which requests are followed through the system, who collects that, and what is told of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Protocol

from protos import gloo
from protos.envoy import core, envoy_metadata, envoy_type, hcm, route, trace, tracing
from services.gloo import checks
from services.gloo.features.headers import added
from services.gloo.features.upstream_http import speaks_http2
from services.gloo.plugin import ALL, Feature, Patch, Scope, within
from services.gloo.translator.names import cluster_name, ref_of
from services.gloo.values import PER_MILLION
from shared.codec.encode import pack
from shared.codec.wellknown import dict_of

ZIPKIN, DATADOG = "envoy.tracers.zipkin", "envoy.tracers.datadog"
OPEN_TELEMETRY = "envoy.tracers.opentelemetry"
URL = re.compile(r"https?://[^\s/?#]+(/[^\s]*)?")
SECONDS = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s")
ENDPOINT = gloo.TracingTagMetadataKind.ENDPOINT
FORMS = gloo.ZipkinConfigCollectorEndpointVersion
SHARES = {
    "clientSamplePercentage": ("client_sample_percentage", "client_sampling"),
    "randomSamplePercentage": ("random_sample_percentage", "random_sampling"),
    "overallSamplePercentage": ("overall_sample_percentage", "overall_sampling"),
}


class WithCollector(Protocol):
    """What says where a collector is: an upstream, or a cluster of Envoy's bootstrap."""

    collector_upstream_ref: gloo.ResourceRef | None
    cluster_name: str | None


def follow(given: gloo.ListenerTracingSettings, scope: Scope) -> hcm.HttpConnectionManagerTracing | None:
    """What a listener traces; nothing while the collector is not there: Envoy would refuse it all."""
    out = hcm.HttpConnectionManagerTracing(
        verbose=bool(given.verbose),
        spawn_upstream_span=given.spawn_upstream_span or None,
        custom_tags=list(custom_tags(given, scope)),
    )
    for attribute, share in shares(given.trace_percentages, scope).items():
        setattr(out, attribute, envoy_type.Percent(value=share))
    cluster = ""
    if given.zipkin_config is not None:
        at = within(scope, "zipkinConfig")
        cluster = collector(given.zipkin_config, at)
        out.provider = to_zipkin(given.zipkin_config, cluster, at)
    elif given.datadog_config is not None:
        at = within(scope, "datadogConfig")
        cluster = collector(given.datadog_config, at)
        out.provider = to_datadog(given.datadog_config, cluster, at)
    elif given.open_telemetry_config is not None:
        at = within(scope, "openTelemetryConfig")
        cluster = collector(given.open_telemetry_config, at)
        out.provider = to_open_telemetry(given.open_telemetry_config, cluster, at)
    return out if cluster or out.provider is None else None


def collector(given: WithCollector, scope: Scope) -> str:
    """The collector's cluster, empty when there is none."""
    if given.cluster_name is not None:
        if not given.cluster_name:
            scope.error("clusterName", "required")
        return given.cluster_name
    if given.collector_upstream_ref is None:
        scope.error("", "no collector; one of collectorUpstreamRef, clusterName")
        return ""
    ref = ref_of(given.collector_upstream_ref)
    if scope.read("Upstream", ref) is None:
        scope.warn("collectorUpstreamRef", f"*v1.Upstream {{ {ref} }} not found, so nothing is traced")
        return ""
    return cluster_name(ref)


def to_zipkin(given: gloo.ZipkinConfig, cluster: str, scope: Scope) -> trace.TracingHttp:
    if problem := checks.text_value(given.collector_endpoint):
        scope.error("collectorEndpoint", problem)
    elif not given.collector_endpoint.startswith("/"):
        scope.error("collectorEndpoint", f"{checks.shown(given.collector_endpoint)} must begin with /")
    if given.collector_endpoint_version is FORMS.DEPRECATED_AND_UNAVAILABLE_DO_NOT_USE:
        scope.error("collectorEndpointVersion", "required: HTTP_JSON or HTTP_PROTO")
    config = trace.ZipkinConfig(
        collector_cluster=cluster,
        collector_endpoint=given.collector_endpoint,
        collector_endpoint_version=trace.ZipkinConfigCollectorEndpointVersion(
            given.collector_endpoint_version
        ),
        trace_id_128bit=bool(given.trace_id_128bit),
        shared_span_context=given.shared_span_context,
    )
    return trace.TracingHttp(name=ZIPKIN, typed_config=pack(config))


def to_datadog(given: gloo.DatadogConfig, cluster: str, scope: Scope) -> trace.TracingHttp:
    if given.collector_hostname and (problem := checks.authority(given.collector_hostname)):
        scope.error("collectorHostname", problem)
    config = trace.DatadogConfig(
        collector_cluster=cluster,
        service_name=given.service_name or "envoy",
        collector_hostname=given.collector_hostname or "",
    )
    if given.remote_config is not None:
        config.remote_config = trace.DatadogRemoteConfig(
            polling_interval=polling_interval(dict_of(given.remote_config), scope)
        )
    return trace.TracingHttp(name=DATADOG, typed_config=pack(config))


def polling_interval(given: Mapping[str, object], scope: Scope) -> timedelta | None:
    if not given:
        return None
    found = SECONDS.fullmatch(str(given.get("pollingInterval")))
    if given.keys() != {"pollingInterval"} or found is None or not float(found[1]):
        scope.error("remoteConfig", "must be {pollingInterval: …}, with more than 0 seconds such as 10s")
        return None
    return timedelta(seconds=float(found[1]))


def to_open_telemetry(given: gloo.OpenTelemetryConfig, cluster: str, scope: Scope) -> trace.TracingHttp:
    config = trace.OpenTelemetryConfig(service_name=given.service_name)
    if given.http_service is not None:
        at = within(scope, "httpService")
        config.http_service = over_http(given.http_service, cluster, at)
        if given.grpc_service is not None:
            scope.error("grpcService", "contradicts httpService")
    else:
        authority = given.grpc_service.authority if given.grpc_service is not None else ""
        if authority and (problem := checks.authority(authority)):
            scope.error("grpcService.authority", problem)
        to = core.GrpcServiceEnvoyGrpc(cluster_name=cluster, authority=authority)
        config.grpc_service = core.GrpcService(envoy_grpc=to)
        warn_of_http1(given, scope)
    return trace.TracingHttp(name=OPEN_TELEMETRY, typed_config=pack(config))


def warn_of_http1(given: gloo.OpenTelemetryConfig, scope: Scope) -> None:
    if given.collector_upstream_ref is not None:
        upstream = scope.read("Upstream", ref_of(given.collector_upstream_ref))
        if upstream is not None and not speaks_http2(upstream):
            scope.warn("collectorUpstreamRef", "gRPC needs HTTP/2; set useHttp2 of the upstream")


def over_http(given: gloo.OpenTelemetryConfigHttpService, cluster: str, scope: Scope) -> core.HttpService:
    to = given.http_uri or gloo.OpenTelemetryConfigHttpServiceHttpUri()
    if not URL.fullmatch(to.uri):
        scope.error(
            "httpUri.uri", f"{checks.shown(to.uri)} is no URL, such as http://collector:4318/v1/traces"
        )
    if to.timeout is None:
        scope.error("httpUri.timeout", "required")
    elif problem := checks.duration(to.timeout):
        scope.error("httpUri.timeout", problem)
    return core.HttpService(
        http_uri=core.HttpUri(uri=to.uri, cluster=to.cluster or cluster, timeout=to.timeout),
        request_headers_to_add=added(given.request_headers_to_add, "requestHeadersToAdd", scope),
    )


def shares(given: gloo.TracePercentages | None, scope: Scope) -> dict[str, float]:
    """The percentages that are set, by their names in Envoy's messages."""
    found: dict[str, float] = {}
    for name, (attribute, theirs) in SHARES.items():
        share = getattr(given, attribute) if given is not None else None
        if share is not None and not 0 <= share <= 100:
            scope.error(f"tracePercentages.{name}", f"{share:g} is no percentage; 0 to 100")
        elif share is not None:
            found[theirs] = share
    return found


def custom_tags(given: gloo.ListenerTracingSettings, scope: Scope) -> Iterator[tracing.CustomTag]:
    for i, name in enumerate(given.request_headers_for_tags):
        if problem := checks.header_name(name, pseudo=True):
            scope.error(f"requestHeadersForTags[{i}]", problem)
        yield tracing.CustomTag(tag=name, request_header=tracing.CustomTagHeader(name=name))
    for i, variable in enumerate(given.environment_variables_for_tags):
        at = f"environmentVariablesForTags[{i}]"
        require(at, scope, tag=variable.tag, name=variable.name)
        environment = tracing.CustomTagEnvironment(
            name=variable.name or "", default_value=variable.default_value or ""
        )
        yield tracing.CustomTag(tag=variable.tag or "", environment=environment)
    for i, literal in enumerate(given.literals_for_tags):
        require(f"literalsForTags[{i}]", scope, tag=literal.tag, value=literal.value)
        value = tracing.CustomTagLiteral(value=literal.value or "")
        yield tracing.CustomTag(tag=literal.tag or "", literal=value)
    for i, each in enumerate(given.metadata_for_tags):
        place = each.value or gloo.TracingTagMetadataMetadataValue()
        require(f"metadataForTags[{i}]", scope, tag=each.tag)
        require(f"metadataForTags[{i}].value", scope, namespace=place.namespace, key=place.key)
        yield tracing.CustomTag(tag=each.tag, metadata=metadata_tag(each, place))


def metadata_tag(
    given: gloo.TracingTagMetadata, place: gloo.TracingTagMetadataMetadataValue
) -> tracing.CustomTagMetadata:
    kind = envoy_metadata.MetadataKind(request=envoy_metadata.MetadataKindRequest())
    if given.kind is ENDPOINT:
        kind = envoy_metadata.MetadataKind(host=envoy_metadata.MetadataKindHost())
    steps = place.key.split(place.nested_field_delimiter) if place.nested_field_delimiter else [place.key]
    path = [envoy_metadata.MetadataKeyPathSegment(key=step) for step in steps]
    key = envoy_metadata.MetadataKey(key=place.namespace, path=path)
    return tracing.CustomTagMetadata(kind=kind, metadata_key=key, default_value=given.default_value)


def require(at: str, scope: Scope, **values: str | None) -> None:
    for name, value in values.items():
        if not value:
            scope.error(f"{at}.{name}", "required")


def on_route(given: gloo.RouteTracingSettings, scope: Scope) -> Patch:
    fields: dict[str, Any] = {}
    if problem := checks.text_value(given.route_descriptor):
        scope.error("routeDescriptor", problem)
    if given.route_descriptor:
        fields["decorator"] = route.Decorator(operation=given.route_descriptor, propagate=given.propagate)
    elif given.propagate is not None:
        scope.warn("propagate", "has no effect without routeDescriptor")
    if chosen := shares(given.trace_percentages, scope):
        fields["tracing"] = traced = route.Tracing()
        for name, share in chosen.items():
            parts = round(share * 10_000)
            setattr(traced, name, envoy_type.FractionalPercent(numerator=parts, denominator=PER_MILLION))
    return Patch(fields=fields)


FEATURES = (
    Feature(
        name="tracing",
        reads={
            "RouteTracingSettings": ALL,
            "TracePercentages": ALL,
            "ListenerTracingSettings": (
                *("tracePercentages", "zipkinConfig", "datadogConfig", "openTelemetryConfig", "verbose"),
                *("spawnUpstreamSpan", "requestHeadersForTags", "environmentVariablesForTags"),
                *("literalsForTags", "metadataForTags"),
            ),
            "TracingTagEnvironmentVariable": ALL,
            "TracingTagLiteral": ALL,
            "TracingTagMetadata": ALL,
            "TracingTagMetadata.MetadataValue": ALL,
            "ZipkinConfig": ALL,
            "DatadogConfig": ALL,
            "OpenTelemetryConfig": ALL,
            "OpenTelemetryConfig.GrpcService": ALL,
            "OpenTelemetryConfig.HttpService": ALL,
            "OpenTelemetryConfig.HttpService.HttpUri": ALL,
        },
        on_route=on_route,
    ),
)
