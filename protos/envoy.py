"""The Envoy messages we speak, by short module names: ``route.VirtualHost``, ``cluster.Cluster``.

Only gloo (and the offline tools) may import this: it loads a large part of Envoy's API.
"""

from protos._generated.envoy.config.accesslog import v3 as access_log
from protos._generated.envoy.config.cluster import v3 as cluster
from protos._generated.envoy.config.common.mutation_rules import v3 as mutation_rules
from protos._generated.envoy.config.core import v3 as core
from protos._generated.envoy.config.endpoint import v3 as endpoint
from protos._generated.envoy.config.listener import v3 as listener
from protos._generated.envoy.config.ratelimit import v3 as limit_service
from protos._generated.envoy.config.route import v3 as route
from protos._generated.envoy.config.trace import v3 as trace
from protos._generated.envoy.extensions.access_loggers.file import v3 as access_log_file
from protos._generated.envoy.extensions.access_loggers.grpc import v3 as access_log_grpc
from protos._generated.envoy.extensions.access_loggers.open_telemetry import v3 as access_log_otel
from protos._generated.envoy.extensions.clusters.common.dns import v3 as dns_common
from protos._generated.envoy.extensions.clusters.dns import v3 as dns_cluster
from protos._generated.envoy.extensions.clusters.dynamic_forward_proxy import v3 as forward_proxy_cluster
from protos._generated.envoy.extensions.common.aws import v3 as aws_common
from protos._generated.envoy.extensions.common.dynamic_forward_proxy import v3 as forward_proxy_dns
from protos._generated.envoy.extensions.common.ratelimit import v3 as limits_common
from protos._generated.envoy.extensions.compression.brotli.compressor import v3 as brotli
from protos._generated.envoy.extensions.compression.gzip.compressor import v3 as gzip
from protos._generated.envoy.extensions.compression.zstd.compressor import v3 as zstd
from protos._generated.envoy.extensions.filters.common.fault import v3 as fault_common
from protos._generated.envoy.extensions.filters.http.aws_request_signing import v3 as aws_signing
from protos._generated.envoy.extensions.filters.http.buffer import v3 as buffer
from protos._generated.envoy.extensions.filters.http.compressor import v3 as compressor
from protos._generated.envoy.extensions.filters.http.cors import v3 as cors
from protos._generated.envoy.extensions.filters.http.csrf import v3 as csrf
from protos._generated.envoy.extensions.filters.http.dynamic_forward_proxy import v3 as forward_proxy
from protos._generated.envoy.extensions.filters.http.ext_authz import v3 as ext_authz
from protos._generated.envoy.extensions.filters.http.fault import v3 as fault
from protos._generated.envoy.extensions.filters.http.grpc_json_transcoder import v3 as grpc_json
from protos._generated.envoy.extensions.filters.http.grpc_web import v3 as grpc_web
from protos._generated.envoy.extensions.filters.http.header_mutation import v3 as header_mutation
from protos._generated.envoy.extensions.filters.http.health_check import v3 as health_check
from protos._generated.envoy.extensions.filters.http.local_ratelimit import v3 as http_local_limit
from protos._generated.envoy.extensions.filters.http.lua import v3 as lua
from protos._generated.envoy.extensions.filters.http.ratelimit import v3 as http_limit
from protos._generated.envoy.extensions.filters.http.router import v3 as router
from protos._generated.envoy.extensions.filters.http.stateful_session import v3 as stateful_session
from protos._generated.envoy.extensions.filters.http.upstream_codec import v3 as upstream_codec
from protos._generated.envoy.extensions.filters.listener.proxy_protocol import v3 as proxy_protocol
from protos._generated.envoy.extensions.filters.listener.tls_inspector import v3 as tls_inspector
from protos._generated.envoy.extensions.filters.network.connection_limit import v3 as connection_limit
from protos._generated.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from protos._generated.envoy.extensions.filters.network.local_ratelimit import v3 as network_local_limit
from protos._generated.envoy.extensions.filters.network.sni_cluster import v3 as sni_cluster
from protos._generated.envoy.extensions.filters.network.tcp_proxy import v3 as tcp_proxy
from protos._generated.envoy.extensions.filters.udp.udp_proxy import v3 as udp_proxy
from protos._generated.envoy.extensions.health_check.event_sinks.file import v3 as health_check_file
from protos._generated.envoy.extensions.http.early_header_mutation.header_mutation import v3 as early_headers
from protos._generated.envoy.extensions.http.header_formatters.preserve_case import v3 as preserve_case
from protos._generated.envoy.extensions.http.stateful_session.cookie import v3 as session_cookie
from protos._generated.envoy.extensions.http.stateful_session.header import v3 as session_header
from protos._generated.envoy.extensions.network.dns_resolver.cares import v3 as cares_dns
from protos._generated.envoy.extensions.request_id.uuid import v3 as uuid_request_id
from protos._generated.envoy.extensions.retry.priority.previous_priorities import v3 as previous_priorities
from protos._generated.envoy.extensions.transport_sockets.proxy_protocol import v3 as proxy_protocol_socket
from protos._generated.envoy.extensions.transport_sockets.quic import v3 as quic
from protos._generated.envoy.extensions.transport_sockets.raw_buffer import v3 as raw_buffer
from protos._generated.envoy.extensions.transport_sockets.tcp_stats import v3 as tcp_stats
from protos._generated.envoy.extensions.transport_sockets.tls import v3 as tls
from protos._generated.envoy.extensions.upstreams.http import v3 as http_protocol
from protos._generated.envoy.service.discovery import v3 as discovery
from protos._generated.envoy.service.status import v3 as status
from protos._generated.envoy.type import v3 as envoy_type
from protos._generated.envoy.type.http import v3 as http_type
from protos._generated.envoy.type.matcher import v3 as matcher
from protos._generated.envoy.type.metadata import v3 as envoy_metadata
from protos._generated.envoy.type.tracing import v3 as tracing
from protos._generated.google import api as google_api
from protos._generated.google import protobuf
from protos._generated.opentelemetry.proto.common import v1 as otel_common
from protos._generated.xds.core import v3 as xds_core
from protos._generated.xds.type.matcher import v3 as xds_matcher

__all__ = [
    "access_log",
    "access_log_file",
    "access_log_grpc",
    "access_log_otel",
    "aws_common",
    "aws_signing",
    "brotli",
    "buffer",
    "cares_dns",
    "cluster",
    "compressor",
    "connection_limit",
    "core",
    "cors",
    "csrf",
    "discovery",
    "dns_cluster",
    "dns_common",
    "early_headers",
    "endpoint",
    "envoy_metadata",
    "envoy_type",
    "ext_authz",
    "fault",
    "fault_common",
    "forward_proxy",
    "forward_proxy_cluster",
    "forward_proxy_dns",
    "google_api",
    "grpc_json",
    "grpc_web",
    "gzip",
    "hcm",
    "header_mutation",
    "health_check",
    "health_check_file",
    "http_limit",
    "http_local_limit",
    "http_protocol",
    "http_type",
    "limit_service",
    "limits_common",
    "listener",
    "lua",
    "matcher",
    "mutation_rules",
    "network_local_limit",
    "otel_common",
    "preserve_case",
    "previous_priorities",
    "protobuf",
    "proxy_protocol",
    "proxy_protocol_socket",
    "quic",
    "raw_buffer",
    "route",
    "router",
    "session_cookie",
    "session_header",
    "sni_cluster",
    "stateful_session",
    "status",
    "tcp_proxy",
    "tcp_stats",
    "tls",
    "tls_inspector",
    "trace",
    "tracing",
    "udp_proxy",
    "upstream_codec",
    "uuid_request_id",
    "xds_core",
    "xds_matcher",
    "zstd",
]
