"""HTTP to an upstream: its version, and how each version is spoken."""

from __future__ import annotations

from typing import Any

from protos import gloo
from protos.envoy import core, http_protocol, preserve_case
from services.gloo import checks
from services.gloo.plugin import Feature, Patch, Scope
from shared.codec.encode import pack

PRESERVE_CASE = "envoy.http.stateful_header_formatters.preserve_case"
PRESERVING = preserve_case.PreserveCaseFormatterConfig()
DOWNSTREAM = gloo.UpstreamClusterProtocolSelection.USE_DOWNSTREAM_PROTOCOL
LEAST_WINDOW, LARGEST = 65535, 2**31 - 1
ONLY_HTTP2 = (
    ("initialStreamWindowSize", "initial_stream_window_size", LEAST_WINDOW),
    ("initialConnectionWindowSize", "initial_connection_window_size", LEAST_WINDOW),
    ("maxConcurrentStreams", "max_concurrent_streams", 1),
)
OVERRIDE = "override_stream_error_on_invalid_http_message"


def speak(upstream: gloo.Upstream, scope: Scope) -> Patch:
    """Envoy wants the version whenever anything is said of HTTP; without a word of it that is HTTP/1."""
    config = upstream.connection_config or gloo.ConnectionConfig()
    protocol: dict[str, Any] = {}
    if common := common_options(config, scope):
        protocol["common_http_protocol_options"] = core.HttpProtocolOptions(**common)
    http1, http2 = http1_options(config.http1_protocol_options), http2_options(upstream, scope)
    if upstream.protocol_selection is DOWNSTREAM:
        protocol["use_downstream_protocol_config"] = http_protocol.HttpProtocolOptionsUseDownstreamHttpConfig(
            http_protocol_options=http1, http2_protocol_options=http2
        )
    elif upstream.use_http2:
        if config.http1_protocol_options is not None:
            scope.warn("connectionConfig.http1ProtocolOptions", "has no effect with useHttp2")
        explicit = http_protocol.HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=http2)
        protocol["explicit_http_config"] = explicit
    elif protocol or config.http1_protocol_options is not None:
        explicit = http_protocol.HttpProtocolOptionsExplicitHttpConfig(http_protocol_options=http1)
        protocol["explicit_http_config"] = explicit
    return Patch(protocol=protocol)


def speaks_http2(upstream: gloo.Upstream) -> bool:
    """Whether some connection may be HTTP/2."""
    return bool(upstream.use_http2) or upstream.protocol_selection is DOWNSTREAM


def common_options(config: gloo.ConnectionConfig, scope: Scope) -> dict[str, Any]:
    options = config.common_http_protocol_options or gloo.HttpProtocolOptions()
    for name, time in (
        ("idleTimeout", options.idle_timeout),
        ("maxStreamDuration", options.max_stream_duration),
    ):
        if time is not None and (problem := checks.duration(time)):
            scope.error(f"connectionConfig.commonHttpProtocolOptions.{name}", problem)
    found = {
        "max_requests_per_connection": config.max_requests_per_connection or None,
        "idle_timeout": options.idle_timeout,
        "max_headers_count": options.max_headers_count or None,
        "max_stream_duration": options.max_stream_duration,
    }
    return {name: value for name, value in found.items() if value is not None}


def http1_options(given: gloo.Http1ProtocolOptions | None) -> core.Http1ProtocolOptions:
    if given is None:
        return core.Http1ProtocolOptions()
    return core.Http1ProtocolOptions(
        enable_trailers=given.enable_trailers,
        override_stream_error_on_invalid_http_message=given.override_stream_error_on_invalid_http_message,
        header_key_format=header_key_format(
            proper_case=given.proper_case_header_key_format,
            preserve_case=given.preserve_case_header_key_format,
        ),
    )


def header_key_format(
    *, proper_case: bool | None, preserve_case: bool | None
) -> core.Http1ProtocolOptionsHeaderKeyFormat | None:
    """How the names of HTTP/1 headers are written; without either, in lower case."""
    if proper_case:
        words = core.Http1ProtocolOptionsHeaderKeyFormatProperCaseWords()
        return core.Http1ProtocolOptionsHeaderKeyFormat(proper_case_words=words)
    if preserve_case:
        formatter = core.TypedExtensionConfig(name=PRESERVE_CASE, typed_config=pack(PRESERVING))
        return core.Http1ProtocolOptionsHeaderKeyFormat(stateful_formatter=formatter)
    return None


def http2_options(upstream: gloo.Upstream, scope: Scope) -> core.Http2ProtocolOptions:
    out, spoken = core.Http2ProtocolOptions(), speaks_http2(upstream)
    for name, attribute, least in ONLY_HTTP2:
        value = getattr(upstream, attribute)
        if value is None:
            continue
        if not least <= value <= LARGEST:
            scope.error(name, f"{value} is out of range; {least} to {LARGEST}")
        if not spoken:
            scope.warn(name, "has no effect without useHttp2")
        setattr(out, attribute, value)
    if (override := getattr(upstream, OVERRIDE)) is not None:
        if not spoken:
            scope.warn("overrideStreamErrorOnInvalidHttpMessage", "has no effect without useHttp2")
        setattr(out, OVERRIDE, override)
    return out


FEATURES = (
    Feature(
        name="useHttp2",
        beside=(
            *("protocolSelection", "connectionConfig", "overrideStreamErrorOnInvalidHttpMessage"),
            *(name for name, _, _ in ONLY_HTTP2),
        ),
        reads={
            "HttpProtocolOptions": ("idleTimeout", "maxHeadersCount", "maxStreamDuration"),
            "Http1ProtocolOptions": (
                *("enableTrailers", "properCaseHeaderKeyFormat", "preserveCaseHeaderKeyFormat"),
                "overrideStreamErrorOnInvalidHttpMessage",
            ),
        },
        on_upstream=speak,
    ),
)
