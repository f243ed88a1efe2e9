"""Clusters: one for each Upstream, and one for each choice of instances by a `consul` destination."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from protos import gloo
from protos.envoy import cluster, core, endpoint, http_protocol, tls
from services.gloo import checks
from services.gloo.features import aws_lambda
from services.gloo.features.aws_ec2 import DEFAULT_PORT, FLEET, Fleet
from services.gloo.features.circuit_breakers import break_circuits
from services.gloo.features.dns import dns_fields
from services.gloo.features.upstream_proxy_protocol import announce_clients
from services.gloo.plugin import Policy, Reader, Scope, read_nothing
from services.gloo.resources import Resource, resource
from services.gloo.translator.ads import ADS
from services.gloo.translator.consul import (
    SUBSET_KEY,
    ConsulSelection,
    destination_cluster_name,
    subset_keys,
)
from services.gloo.translator.functions import check_service, with_http2
from services.gloo.translator.names import cluster_name, proxy_cluster_name
from services.gloo.translator.patches import Joined, join_patches
from services.gloo.translator.ssl import tls_socket, upstream_tls
from services.gloo.translator.supported import refuse_unread
from services.gloo.translator.tunnel import (
    entrance_fields,
    proxy_hosts,
    proxy_socket,
    socket_fields,
    tunnel_listener,
)
from shared.codec.encode import encode, pack
from shared.codec.wellknown import struct_of
from shared.ref import Ref, Source
from shared.report import Report

CONNECT_TIMEOUT = timedelta(seconds=5)
HTTP1 = http_protocol.HttpProtocolOptionsExplicitHttpConfig(http_protocol_options=core.Http1ProtocolOptions())
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
SOCKET_MATCH = "envoy.transport_socket_match"
HTTPS_PORT = 443
MAX_WEIGHT = 2**32 - 1
MAX_SOCKET_PATH = 107  # bytes, says Linux
# Of the clusters on both sides of a tunnel's listener.
ON_BOTH_SIDES = ("connect_timeout", "circuit_breakers", "per_connection_buffer_limit_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class TranslatedUpstream:
    """An upstream's cluster; where it leads into a tunnel also the listener there and the proxy's cluster."""

    cluster: Resource
    proxy: Resource | None = None
    listener: Resource | None = None


def translate_upstream(
    upstream: gloo.Upstream, policy: Policy, read: Reader = read_nothing
) -> tuple[TranslatedUpstream | None, Report]:
    """What Envoy gets of an upstream, None when something is wrong with it."""
    report = Report()
    scope = Scope(path="", report=report, policy=policy, read=read)
    refuse_unread(upstream, report)
    check_service(upstream, scope)
    upstream = with_http2(upstream)
    if upstream.aws is not None:
        upstream = aws_lambda.as_static(upstream, upstream.aws, scope)
    metadata = upstream.metadata or gloo.Metadata()
    ref = Ref(metadata.namespace, metadata.name)
    joined = join_patches("on_upstream", upstream, scope)
    name, source = cluster_name(ref), Source("Upstream", ref)
    tunnelled = upstream.http_proxy_hostname is not None
    if tunnelled:
        own = own_fields(proxy_hosts(upstream), proxy_cluster_name(name), scope)
        own |= proxy_socket(upstream, scope)
        entrance = entrance_fields(upstream, name, scope)
    else:
        own = own_fields(upstream, name, scope)
    if not metadata.name:
        report.error("metadata.name", "required")
    if upstream.circuit_breakers is None:
        default_circuit_breakers(joined, policy, report)
    if report.errors:
        return None, report
    with report.collect():
        if not tunnelled:
            made = build_cluster(name, announce_clients(upstream, own), joined, source)
            return TranslatedUpstream(cluster=made), report
        if "eds_cluster_config" in own:
            own["eds_cluster_config"].service_name = name
        shared = {field: joined.fields[field] for field in ON_BOTH_SIDES if field in joined.fields}
        of_http = Joined(fields=shared, protocol=joined.protocol)
        return TranslatedUpstream(
            cluster=build_cluster(name, announce_clients(upstream, entrance), of_http, source),
            proxy=build_cluster(proxy_cluster_name(name), own, Joined(fields=joined.fields), source),
            listener=tunnel_listener(upstream, name, source),
        ), report
    return None, report


def own_fields(upstream: gloo.Upstream, name: str, scope: Scope) -> dict[str, Any]:
    """What follows from an upstream's type: the cluster's hosts, and how they are spoken to."""
    if upstream.static is not None:
        return static_fields(upstream, upstream.static, name, scope)
    if upstream.consul is not None:
        return consul_fields(upstream, scope)
    if upstream.pipe is not None:
        return pipe_fields(upstream, upstream.pipe, name, scope)
    if upstream.aws_ec2 is not None:
        return fleet_fields(upstream, upstream.aws_ec2, name, scope)
    if not scope.report.errors:
        scope.error("", "no upstream type; one of static, consul, pipe, aws, awsEc2")
    return {}


def translate_selection(selection: ConsulSelection, policy: Policy) -> Resource:
    """The cluster of a `consul` destination."""
    joined = Joined()
    default_circuit_breakers(joined, policy, Report())
    own = {"type": cluster.ClusterDiscoveryType.EDS, "eds_cluster_config": eds()}
    return build_cluster(destination_cluster_name(selection), own, joined)


def build_cluster(name: str, own: Mapping[str, Any], joined: Joined, *sources: Source) -> Resource:
    out = cluster.Cluster(name=name, connect_timeout=CONNECT_TIMEOUT, **own)
    joined.write(out)
    if joined.protocol:
        if not joined.protocol.keys() & {"explicit_http_config", "use_downstream_protocol_config"}:
            joined.protocol["explicit_http_config"] = HTTP1
        options = http_protocol.HttpProtocolOptions(**joined.protocol)
        out.typed_extension_protocol_options = {HTTP_OPTIONS: pack(options)}
    return resource(name, encode(out), sources)


def default_circuit_breakers(joined: Joined, policy: Policy, report: Report) -> None:
    if policy.circuit_breakers is not None:
        scope = Scope(path="settings.gloo.circuitBreakers", report=report, policy=policy)
        joined.add(break_circuits(policy.circuit_breakers, scope))


def eds() -> cluster.ClusterEdsClusterConfig:
    return cluster.ClusterEdsClusterConfig(eds_config=ADS)


def consul_fields(upstream: gloo.Upstream, scope: Scope) -> dict[str, Any]:
    """A cluster whose endpoints follow Consul's health."""
    if upstream.consul is None or not upstream.consul.service_name:
        scope.error("consul.serviceName", "required")
    fields: dict[str, Any] = {"type": cluster.ClusterDiscoveryType.EDS, "eds_cluster_config": eds()}
    if subset_keys(upstream):
        fields["lb_subset_config"] = cluster.ClusterLbSubsetConfig(
            fallback_policy=cluster.ClusterLbSubsetConfigLbSubsetFallbackPolicy.ANY_ENDPOINT,
            subset_selectors=[cluster.ClusterLbSubsetConfigLbSubsetSelector(keys=[SUBSET_KEY])],
            list_as_any=True,
        )
    if upstream.ssl_config is not None:
        context = upstream_tls(upstream.ssl_config, replace(scope, path="sslConfig"))
        fields["transport_socket"] = tls_socket(context)
    return fields


def static_fields(
    upstream: gloo.Upstream, spec: gloo.StaticUpstreamSpec, name: str, scope: Scope
) -> dict[str, Any]:
    """A cluster whose hosts stand in the upstream; names are resolved by Envoy."""
    report = scope.report
    if not spec.hosts:
        report.error("static.hosts", "needs at least one host")
    for i, host in enumerate(spec.hosts):
        check_host(host, f"static.hosts[{i}]", report)
    if sum(host.load_balancing_weight or 1 for host in spec.hosts) > MAX_WEIGHT:
        report.error("static.hosts", f"the weights sum up to more than {MAX_WEIGHT}")
    all_ips = all(checks.is_ip(host.addr) for host in spec.hosts)
    static = {"type": cluster.ClusterDiscoveryType.STATIC}
    fields: dict[str, Any] = static if all_ips else dns_fields(upstream)
    config = upstream.ssl_config
    if config is not None and spec.use_tls is False:
        report.warn("static.useTls", "has no effect beside sslConfig")
    secure = config is not None or spec.use_tls
    if secure is None:
        secure = any(host.port == HTTPS_PORT for host in spec.hosts)
    per_host = secure and spec.auto_sni_rewrite is not False
    if secure:
        context = upstream_tls(config or gloo.UpstreamSslConfig(), replace(scope, path="sslConfig"))
        fields |= tls_fields(spec, per_host, context)
    else:
        for i, host in enumerate(spec.hosts):
            if host.sni_addr:
                report.warn(f"static.hosts[{i}].sniAddr", "has no effect without TLS (static.useTls)")
        if spec.auto_sni_rewrite is not None:
            report.warn("static.autoSniRewrite", "has no effect without TLS (static.useTls)")
    fields["load_assignment"] = endpoint.ClusterLoadAssignment(
        cluster_name=name,
        endpoints=[
            endpoint.LocalityLbEndpoints(
                lb_endpoints=[static_endpoint(host, per_host) for host in spec.hosts]
            )
        ],
    )
    return fields


def pipe_fields(
    upstream: gloo.Upstream, spec: gloo.PipeUpstreamSpec, name: str, scope: Scope
) -> dict[str, Any]:
    """A cluster of one Unix domain socket on Envoy's machine."""
    if not spec.path:
        scope.error("pipe.path", "required")
    elif problem := checks.text_value(spec.path, MAX_SOCKET_PATH):
        scope.error("pipe.path", problem)
    fields = socket_fields(spec.path, name)
    if upstream.ssl_config is not None:
        context = upstream_tls(upstream.ssl_config, replace(scope, path="sslConfig"))
        fields["transport_socket"] = tls_socket(context)
    return fields


def fleet_fields(
    upstream: gloo.Upstream, spec: gloo.AwsEc2UpstreamSpec, name: str, scope: Scope
) -> dict[str, Any]:
    """A cluster of the instances that were found in EC2, which is asked for what is read here."""
    if scope.report.errors:
        return {}
    metadata = upstream.metadata or gloo.Metadata()
    found: Fleet = scope.read(FLEET, Ref(metadata.namespace, metadata.name)) or Fleet()
    if not found.asked:
        scope.error("awsEc2", found.problem or "EC2 was not asked yet")
    elif found.problem:
        scope.warn("awsEc2", f"instances are those of before: {found.problem}")
    elif not found.addresses:
        scope.warn("awsEc2", "no running instance has all these tags and such an address")
    members = [
        static_endpoint(gloo.StaticHost(addr=address, port=spec.port or DEFAULT_PORT), per_host=False)
        for address in found.addresses
    ]
    fields: dict[str, Any] = {
        "type": cluster.ClusterDiscoveryType.STATIC,
        "load_assignment": endpoint.ClusterLoadAssignment(
            cluster_name=name, endpoints=[endpoint.LocalityLbEndpoints(lb_endpoints=members)]
        ),
    }
    if upstream.ssl_config is not None:
        context = upstream_tls(upstream.ssl_config, replace(scope, path="sslConfig"))
        fields["transport_socket"] = tls_socket(context)
    return fields


def check_host(host: gloo.StaticHost, path: str, report: Report) -> None:
    if not host.addr:
        report.error(f"{path}.addr", "required")
    elif problem := checks.host_name(host.addr):
        report.error(f"{path}.addr", problem)
    if problem := checks.port(host.port):
        report.error(f"{path}.port", problem)
    if host.sni_addr and (problem := checks.host_name(host.sni_addr)):
        report.error(f"{path}.sniAddr", problem)
    if SOCKET_MATCH in host.metadata:
        report.error(f"{path}.metadata.{SOCKET_MATCH}", "cannot be set; sniAddr chooses the TLS of a host")
    if host.load_balancing_weight == 0:
        report.error(f"{path}.loadBalancingWeight", "must be more than 0")


def static_endpoint(host: gloo.StaticHost, per_host: bool) -> endpoint.LbEndpoint:
    address = core.Address(socket_address=core.SocketAddress(address=host.addr, port_value=host.port))
    metadata = dict(host.metadata)
    if host.sni_addr and per_host:
        metadata[SOCKET_MATCH] = struct_of({"sni": host.sni_addr})
    return endpoint.LbEndpoint(
        endpoint=endpoint.Endpoint(address=address, hostname="" if checks.is_ip(host.addr) else host.addr),
        metadata=core.Metadata(filter_metadata=metadata) if metadata else None,
        load_balancing_weight=host.load_balancing_weight,
    )


def tls_fields(
    spec: gloo.StaticUpstreamSpec, per_host: bool, context: tls.UpstreamTlsContext
) -> dict[str, Any]:
    """TLS to the hosts. The server name is each host's own, else *context*'s, else the first host's."""
    first = next(iter(spec.hosts), gloo.StaticHost())
    default = context.sni or first.sni_addr or ("" if checks.is_ip(first.addr) else first.addr)
    automatic = per_host and not context.sni
    fields: dict[str, Any] = {
        "transport_socket": tls_socket(replace(context, sni=default, auto_host_sni=automatic))
    }
    if names := sorted({host.sni_addr for host in spec.hosts if host.sni_addr and per_host}):
        fields["transport_socket_matches"] = [
            cluster.ClusterTransportSocketMatch(
                name=name,
                match=struct_of({"sni": name}),
                transport_socket=tls_socket(replace(context, sni=name)),
            )
            for name in names
        ]
    return fields
