"""Access logs: a line or a record for each request, in a file, over gRPC or in OpenTelemetry's protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import betterproto2

from protos import gloo
from protos.envoy import access_log, access_log_file, access_log_grpc, access_log_otel, core, otel_common
from services.gloo import checks
from services.gloo.commands import problem_with
from services.gloo.features import access_log_filters
from services.gloo.plugin import ALL, Feature, Patch, Scope, within
from shared.codec.encode import pack
from shared.codec.wellknown import dict_of
from shared.report import join

FILE = "envoy.access_loggers.file"
HTTP_GRPC, TCP_GRPC = "envoy.access_loggers.http_grpc", "envoy.access_loggers.tcp_grpc"
OPEN_TELEMETRY = "envoy.access_loggers.open_telemetry"
STAT_PREFIX, AUTHORITY = "access_log", "grpc.default_authority"


def log_requests(given: gloo.AccessLoggingService, scope: Scope) -> Patch:
    return Patch(manager={"access_log": access_logs(given, scope)})


def log_connections(given: gloo.AccessLoggingService, scope: Scope) -> Patch:
    return Patch(fields={"access_log": access_logs(given, replace(scope, tcp=True))})


def access_logs(given: gloo.AccessLoggingService, outer: Scope) -> list[access_log.AccessLog]:
    found = []
    for i, each in enumerate(given.access_log):
        scope = within(outer, f"accessLog[{i}]")
        name, config = sink(each, scope)
        out = access_log.AccessLog(name=name, typed_config=pack(config))
        if each.filter is not None:
            out.filter = access_log_filters.translate_filter(each.filter, within(scope, "filter"))
        found.append(out)
    return found


def sink(given: gloo.AccessLog, scope: Scope) -> tuple[str, betterproto2.Message]:
    if given.file_sink is not None:
        return FILE, to_file(given.file_sink, within(scope, "fileSink"))
    if given.grpc_service is not None:
        return over_grpc(given.grpc_service, within(scope, "grpcService"))
    if given.open_telemetry_service is not None:
        at = within(scope, "openTelemetryService")
        return OPEN_TELEMETRY, to_collector(given.open_telemetry_service, at)
    scope.error("", "no destination; one of fileSink, grpcService, openTelemetryService")
    return FILE, access_log_file.FileAccessLog()


def to_file(given: gloo.FileSink, scope: Scope) -> access_log_file.FileAccessLog:
    if not given.path:
        scope.error("path", "required")
    elif problem := checks.text_value(given.path):
        scope.error("path", problem)
    out = access_log_file.FileAccessLog(path=given.path)
    if given.string_format is not None:
        check_commands(given.string_format, "stringFormat", scope)
        line = core.DataSource(inline_string=given.string_format)
        out.log_format = core.SubstitutionFormatString(text_format_source=line)
    elif given.json_format is not None:
        check_commands(dict_of(given.json_format), "jsonFormat", scope)
        out.log_format = core.SubstitutionFormatString(json_format=given.json_format)
    return out


def check_commands(value: object, where: str, scope: Scope) -> None:
    """The texts in *value*, however deep, may have Envoy's commands in them."""
    if isinstance(value, str):
        if problem := problem_with(value):
            scope.error(where, problem)
    elif isinstance(value, Mapping):
        for key, each in value.items():
            check_commands(each, join(where, key), scope)
    elif isinstance(value, list):
        for i, each in enumerate(value):
            check_commands(each, f"{where}[{i}]", scope)


def over_grpc(given: gloo.AccessLogGrpcService, scope: Scope) -> tuple[str, betterproto2.Message]:
    if not given.log_name:
        scope.error("logName", "required")
    if not given.static_cluster_name:
        scope.error("staticClusterName", "required")
    headers = {
        "additionalRequestHeadersToLog": given.additional_request_headers_to_log,
        "additionalResponseHeadersToLog": given.additional_response_headers_to_log,
        "additionalResponseTrailersToLog": given.additional_response_trailers_to_log,
    }
    for name, members in headers.items():
        if members and scope.tcp:
            scope.warn(name, "has no effect on connections")
        for i, header in enumerate(members):
            if problem := checks.header_name(header, pseudo=True):
                scope.error(f"{name}[{i}]", problem)
    cluster = core.GrpcServiceEnvoyGrpc(cluster_name=given.static_cluster_name or "")
    common = access_log_grpc.CommonGrpcAccessLogConfig(
        log_name=given.log_name,
        grpc_service=core.GrpcService(envoy_grpc=cluster),
        transport_api_version=core.ApiVersion.V3,
        filter_state_objects_to_log=list(given.filter_state_objects_to_log),
    )
    if scope.tcp:
        return TCP_GRPC, access_log_grpc.TcpGrpcAccessLogConfig(common_config=common)
    return HTTP_GRPC, access_log_grpc.HttpGrpcAccessLogConfig(
        common_config=common,
        additional_request_headers_to_log=list(given.additional_request_headers_to_log),
        additional_response_headers_to_log=list(given.additional_response_headers_to_log),
        additional_response_trailers_to_log=list(given.additional_response_trailers_to_log),
    )


def to_collector(
    given: gloo.OpenTelemetryService, scope: Scope
) -> access_log_otel.OpenTelemetryAccessLogConfig:
    if not given.log_name:
        scope.error("logName", "required")
    out = access_log_otel.OpenTelemetryAccessLogConfig(
        common_config=access_log_grpc.CommonGrpcAccessLogConfig(
            log_name=given.log_name,
            grpc_service=collector(given.collector, within(scope, "collector")),
            transport_api_version=core.ApiVersion.V3,
            filter_state_objects_to_log=list(given.filter_state_objects_to_log),
        ),
        disable_builtin_labels=given.disable_builtin_labels,
    )
    if given.body is not None:
        out.body = any_value(dict_of(given.body), within(scope, "body"))
    if given.attributes is not None:
        out.attributes = key_values(dict_of(given.attributes), within(scope, "attributes"))
    return out


def collector(given: gloo.OpenTelemetryGrpcCollector | None, scope: Scope) -> core.GrpcService:
    """Envoy's own gRPC needs a cluster; Google's in it takes an address."""
    given = given or gloo.OpenTelemetryGrpcCollector()
    host, _, port = given.endpoint.rpartition(":")
    if not given.endpoint:
        scope.error("endpoint", "required")
    elif checks.authority(given.endpoint) or not host or not port.isdecimal() or checks.port(int(port)):
        scope.error("endpoint", f"{checks.shown(given.endpoint)} is no host and port, such as collector:4317")
    if given.authority and (problem := checks.authority(given.authority)):
        scope.error("authority", problem)
    for name, value in given.headers.items():
        if problem := checks.header_name(name) or checks.text_value(value):
            scope.error(f"headers[{name}]", problem)
    if given.timeout is not None and (problem := checks.duration(given.timeout)):
        scope.error("timeout", problem)
    google = core.GrpcServiceGoogleGrpc(target_uri=given.endpoint, stat_prefix=STAT_PREFIX)
    if not given.insecure:
        google.channel_credentials = core.GrpcServiceGoogleGrpcChannelCredentials(
            ssl_credentials=certificates(given.ssl_config, within(scope, "sslConfig"))
        )
    elif given.ssl_config is not None:
        scope.error("sslConfig", "contradicts insecure")
    if given.authority:
        authority = core.GrpcServiceGoogleGrpcChannelArgsValue(string_value=given.authority)
        google.channel_args = core.GrpcServiceGoogleGrpcChannelArgs(args={AUTHORITY: authority})
    headers = [
        core.HeaderValue(key=name.lower(), value=given.headers[name]) for name in sorted(given.headers)
    ]
    return core.GrpcService(google_grpc=google, timeout=given.timeout, initial_metadata=headers)


def certificates(
    given: gloo.UpstreamSslConfig | None, scope: Scope
) -> core.GrpcServiceGoogleGrpcSslCredentials:
    """In files, since nothing else can be given to Google's gRPC but the keys themselves."""
    found = core.GrpcServiceGoogleGrpcSslCredentials()
    if given is None:
        return found
    if given.ssl_files is None:
        scope.error("sslFiles", "required; a secretRef or sds cannot be handed to the gRPC of this collector")
        return found
    if given != gloo.UpstreamSslConfig(ssl_files=given.ssl_files):
        scope.error("", "takes nothing but sslFiles")
    files = given.ssl_files
    if bool(files.tls_cert) != bool(files.tls_key):
        scope.error("sslFiles", "a certificate and its key go together: tlsCert, tlsKey")
    if files.ocsp_staple:
        scope.error("sslFiles.ocspStaple", "goes with the certificate of a server")
    for name, path, attribute in (
        ("rootCa", files.root_ca, "root_certs"),
        ("tlsCert", files.tls_cert, "cert_chain"),
        ("tlsKey", files.tls_key, "private_key"),
    ):
        if problem := checks.text_value(path):
            scope.error(f"sslFiles.{name}", problem)
        if path:
            setattr(found, attribute, core.DataSource(filename=path))
    return found


def any_value(given: object, scope: Scope) -> otel_common.AnyValue:
    """A value as OpenTelemetry writes it: ``{stringValue: "%PROTOCOL%"}``."""
    match given:
        case {"stringValue": str(text), **others} if not others:
            check_commands(text, "stringValue", scope)
            return otel_common.AnyValue(string_value=text)
        case {"kvlistValue": dict(members), **others} if not others:
            return otel_common.AnyValue(kvlist_value=key_values(members, within(scope, "kvlistValue")))
        case {"arrayValue": {"values": list(members), **more}, **others} if not others and not more:
            scopes = [within(scope, f"arrayValue.values[{i}]") for i in range(len(members))]
            values = [any_value(each, at) for each, at in zip(members, scopes, strict=True)]
            return otel_common.AnyValue(array_value=otel_common.ArrayValue(values=values))
    scope.error(
        "", "no value; one of {stringValue: …}, {kvlistValue: {values: […]}}, {arrayValue: {values: […]}}"
    )
    return otel_common.AnyValue()


def key_values(given: Mapping[str, object], scope: Scope) -> otel_common.KeyValueList:
    found = []
    members = given.get("values")
    if given.keys() - {"values"} or not isinstance(members, list):
        scope.error("", "must be {values: [{key: …, value: …}]}")
        return otel_common.KeyValueList()
    for i, member in enumerate(members):
        match member:
            case {"key": str(key), "value": value, **others} if key and not others:
                at = within(scope, f"values[{i}].value")
                found.append(otel_common.KeyValue(key=key, value=any_value(value, at)))
            case _:
                scope.error(f"values[{i}]", "must be {key: …, value: …}")
    return otel_common.KeyValueList(values=found)


READS = {
    **access_log_filters.READS,
    **dict.fromkeys(
        ("AccessLoggingService", "AccessLog", "FileSink", "AccessLogGrpcService", "OpenTelemetryService"), ALL
    ),
    "OpenTelemetryGrpcCollector": ALL,
}
FEATURES = (
    Feature(name="accessLoggingService", reads=READS, on_any_listener=log_requests),
    Feature(name="listenerAccessLoggingService", on_any_listener=log_connections),
)
