"""What translation takes into account, and the refusal by name of everything else that is set.

The table below and each feature's own (``Feature.reads``) name the fields that are read, message by
message. From them and the schema a check is compiled for each message class: every other field that is
set becomes an error at its path. So a field is either translated or refused; none is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from operator import attrgetter
from typing import Any

import betterproto2

from protos._generated.schema import MESSAGES
from services.gloo.features import FEATURES
from services.gloo.plugin import ALL
from shared.report import Problem, Report, join

PACKAGE = "gloo.solo.io."
NOT_YET = "not supported yet"
ENTERPRISE = "enterprise feature, not supported"

BOOKKEEPING = ("metadata", "status", "namespacedStatuses")
OWN = ("statPrefix", "customHttpFilters", "customNetworkFilters")
READ: Mapping[str, tuple[str, ...]] = {
    "Proxy": ("listeners", *BOOKKEEPING),
    "Listener": (
        *("name", "bindAddress", "bindPort", "useProxyProto", "httpListener", "tcpListener", "udpListener"),
        *("hybridListener", "sslConfigurations", "options", "routeOptions", "metadata", "metadataStatic"),
    ),
    "HybridListener": ALL,
    "MatchedListener": ALL,
    "ListenerMatcher": ("sslConfig", "sourcePrefixRanges", "prefixRanges", "destinationPort"),
    "CidrRange": ALL,
    "ListenerOptions": ("tcpStats", *(feature.name for feature in FEATURES if feature.on_any_listener)),
    "RouteConfigurationOptions": ALL,
    "SourceMetadata": ALL,
    "SourceMetadata.SourceRef": ALL,
    "ResourceRef": ALL,
    "HttpListener": ("virtualHosts", "options", *OWN, "metadata", "metadataStatic"),
    "HttpListenerOptions": tuple(feature.name for feature in FEATURES if feature.on_listener),
    "CustomEnvoyFilter": ALL,
    "FilterStage": ALL,
    "UdpListener": ALL,
    "UdpListenerOptions": ALL,
    "TcpListener": ALL,
    "TcpListenerOptions": ALL,
    "TcpProxySettings": ALL,
    "TcpProxySettings.TunnelingConfig": ALL,
    "TcpHost": ALL,
    "TcpHost.TcpAction": ALL,
    "VirtualHost": ("name", "domains", "routes", "options", "metadata", "metadataStatic"),
    "VirtualHostOptions": tuple(feature.name for feature in FEATURES if feature.on_virtual_host),
    "Route": ALL,
    "RouteOptions": tuple(feature.name for feature in FEATURES if feature.on_route),
    "Matcher": ALL,
    "Matcher.ConnectMatcher": ALL,
    "HeaderMatcher": ALL,
    "QueryParameterMatcher": ALL,
    "RouteAction": ALL,
    "MultiDestination": ALL,
    "WeightedDestination": ALL,
    "WeightedDestinationOptions": tuple(feature.name for feature in FEATURES if feature.on_destination),
    "Destination": ("upstream", "consul", "destinationSpec", "subset"),
    "DestinationSpec": ("aws", "grpc"),
    "GrpcDestinationSpec": ALL,
    "Parameters": ("path",),
    "ConsulServiceDestination": ALL,
    "Subset": ALL,
    "RedirectAction": ALL,
    "RegexMatchAndSubstitute": ALL,
    "RegexMatchAndSubstitute.Pattern": ("regex",),
    "DirectResponseAction": ALL,
    "UpstreamGroup": ("destinations", *BOOKKEEPING),
    "Upstream": (
        *("static", "consul", "pipe", "sslConfig", "discoveryMetadata", *BOOKKEEPING),
        *(name for feature in FEATURES if feature.on_upstream for name in (feature.name, *feature.beside)),
    ),
    "UpstreamSslConfig": ALL,
    "SslConfig": ALL,
    "SDSConfig": ("targetUri", "clusterName", "certificatesSecretName", "validationContextName"),
    "SSLFiles": ALL,
    "SslParameters": ALL,
    "DiscoveryMetadata": ALL,
    "StaticUpstreamSpec": ("hosts", "useTls", "autoSniRewrite", "serviceSpec"),
    "StaticHost": ("addr", "port", "sniAddr", "loadBalancingWeight", "metadata"),
    "PipeUpstreamSpec": ("path", "serviceSpec"),
    "ConsulUpstreamSpec": (
        *("serviceName", "serviceTags", "subsetTags", "dataCenters"),
        *("instanceTags", "instanceBlacklistTags", "serviceSpec"),
    ),
    "ServiceSpec": ("grpc", "grpcJsonTranscoder"),
    "GrpcServiceSpec": ALL,
    "GrpcServiceSpec.GrpcService": ALL,
    "Metadata": ALL,
    "Status": ALL,
    "NamespacedStatuses": ALL,
}
# Checked where they are translated, one by one, so that each answers for itself.
APART = {
    *(("Proxy", "listeners"), ("Listener", "sslConfigurations"), ("MatchedListener", "sslConfigurations")),
    *(("HybridListener", "matchedListeners"), ("ListenerMatcher", "sslConfig")),
    *(("HttpListener", "virtualHosts"), ("VirtualHost", "routes"), ("TcpListener", "tcpHosts")),
    *(("AndFilter", "filters"), ("OrFilter", "filters")),  # filters in filters, of which every field is read
}
# Not for translation: who owns an object and what was said of it.
UNCHECKED = frozenset(
    (
        *("Metadata", "Status", "NamespacedStatuses", "SourceMetadata", "DiscoveryMetadata"),
        "GrpcServiceSpec.GrpcService",  # what discovery found, for people
    )
)

# Set, but without effect on what Envoy does; worth telling, not worth refusing an object for.
WITHOUT_EFFECT: Mapping[tuple[str, str], str] = {
    (
        "ServiceSpec",
        "rest",
    ): "has no effect; the operations are called by routes with matchers and transformations of their own",
    ("ConsulUpstreamSpec", "connectEnabled"): "has no effect; instances are reached directly",
    ("ConsulUpstreamSpec", "consistencyMode"): "has no effect; all services are read by the same queries",
    ("ConsulUpstreamSpec", "queryOptions"): "has no effect; all services are read by the same queries",
    ("HttpProtocolOptions", "headersWithUnderscoresAction"): "has no effect towards an upstream",
    (
        "TransformationStages",
        "inheritTransformation",
    ): "has no effect here; there is nothing to inherit",
    ("SocketAddress", "protocol"): "has no effect; dnsResolverOptions.useTcpForDnsLookups has",
    ("SocketAddress", "ipv4Compat"): "has no effect on an address to connect to",
    ("Upstream", "disableIstioAutoMtls"): "has no effect; there is no Istio here",
    ("RegexMatchAndSubstitute.Pattern", "googleRe2"): "has no effect; settings.gloo.regexMaxProgramSize has",
}
_EXTERNAL = ("extProcEarly", "extProc", "extProcLate")
_LIMITS = ("ratelimitBasic", "rateLimitEarlyConfigs", "rateLimitConfigs", "rateLimitRegularConfigs")
ENTERPRISE_ONLY: Mapping[str, frozenset[str]] = {
    "RouteOptions": frozenset(
        ("waf", "jwt", "jwtStaged", "jwtProvidersStaged", "rbac", "dlp", "ai", *_EXTERNAL, *_LIMITS)
    ),
    "VirtualHostOptions": frozenset(("waf", "jwt", "jwtStaged", "rbac", "dlp", *_EXTERNAL, *_LIMITS)),
    "HttpListenerOptions": frozenset(
        (
            *("waf", "dlp", "wasm", "caching", "proxyLatency", "sanitizeClusterHeader", "leftmostXffAddress"),
            *("tap", "statefulSession", *_EXTERNAL),
            *("disableExtProcEarly", "disableExtProc", "disableExtProcLate"),
        )
    ),
    "Upstream": frozenset(("gcp", "ai", "failover")),
    "StaticHost": frozenset(("healthCheckConfig",)),
    "ProxyProtocol": frozenset(("allowRequestsWithoutProxyProtocol",)),
    "ListenerMatcher": frozenset(("passthroughCipherSuites",)),
    "AwsDestinationSpec": frozenset(("wrapAsApiGateway",)),
    "ExtAuthExtension": frozenset(("configRef",)),
    "RateLimitActions": frozenset(("setActions",)),
    "Transformation": frozenset(("xsltTransformation",)),
}
# Refused, with what to use instead.
REFUSED: Mapping[tuple[str, str], str] = {
    ("Listener", "aggregateListener"): "only Gloo's own gateway writes it; hybridListener says the same",
    ("Proxy", "compressedSpec"): "only Gloo's own gateway writes it; write the listeners as they are",
    ("Upstream", "kube"): "there is no Kubernetes here; use consul or static",
    ("Upstream", "azure"): "Azure functions are not supported; use static with the function app's host",
    ("Upstream", "gcp"): f"{ENTERPRISE}; use static with the service's host",
    **dict.fromkeys(
        (("AwsUpstreamSpec", "roleArn"), ("AwsUpstreamSpec", "disableRoleChaining")),
        "not supported; have Envoy assume the role by its environment (enableCredentialsDiscovey)",
    ),
    (
        "HeaderValueOption",
        "headerSecretRef",
    ): "it would be on disk and in Envoy's admin pages; have an external authorization service add it",
    ("AwsEc2UpstreamSpec", "roleArn"): "not supported; use a key of the role, with its session's token",
    (
        "SDSConfig",
        "callCredentials",
    ): "Envoy's own gRPC client sends no token; use clusterName, with TLS there",
    ("ListenerTracingSettings", "openCensusConfig"): "Envoy no longer has it; use openTelemetryConfig",
    ("Destination", "kube"): "there is no Kubernetes here; use upstream or consul",
    ("Address", "pipe"): "a DNS server has an IP address; use socketAddress",
    ("SocketAddress", "namedPort"): "not supported; use portValue",
    ("SocketAddress", "resolverName"): "not supported; Envoy looks up by DNS",
    ("DestinationSpec", "azure"): "Azure functions are not supported; use static with the app's host",
    (
        "DestinationSpec",
        "rest",
    ): "operations are not called by name; transformations of the route set :method, :path and body",
    ("Parameters", "headers"): "not supported; the service gets all headers as gRPC metadata, or use path",
    **dict.fromkeys(
        (("TransformationStages", "logRequestResponseInfo"), ("Transformation", "logRequestResponseInfo")),
        "not supported; use access logs, or the log of the service behind",
    ),
    **dict.fromkeys(
        (
            *(("ListenerOptions", "extensions"), ("HttpListenerOptions", "extensions")),
            *(("VirtualHostOptions", "extensions"), ("RouteOptions", "extensions")),
            ("WeightedDestinationOptions", "extensions"),
        ),
        "settings of Gloo's plugins, of which there are none; each feature has an option of its own",
    ),
    ("TransformationTemplate", "spanTransformer"): "not supported; name spans by the route's tracing options",
    (
        "HealthCheck",
        "customHealthCheck",
    ): "not supported; use httpHealthCheck, tcpHealthCheck or grpcHealthCheck",
}

Finding = tuple[str, str, bool]  # path, text, whether it refuses the object
Check = Callable[[Any], list[Finding]]


def refuse_unread(message: betterproto2.Message, report: Report, path: str = "") -> None:
    """Put into *report* every field of *message*, or below it, that is set and not read."""
    if check := checker(_SCHEMA_NAMES[type(message).__name__]):
        for where, text, refuses in check(message):
            (report.errors if refuses else report.warnings).append(Problem(join(path, where), text))


@cache
def checker(name: str) -> Check | None:
    """The check of one message type, None when nothing of it or below it can be wrong."""
    unread = [(attribute, json, unset, *verdict(name, json)) for json, attribute, unset in _unread(name)]
    below = list(_below(name))
    if not unread and not below:
        return None
    values = _getter([attribute for attribute, *_ in unread])
    defaults = tuple(unset for _, _, unset, _, _ in unread)

    def check(message: Any) -> list[Finding]:
        found = []
        if (now := values(message)) != defaults:
            for value, (_, json, unset, text, refuses) in zip(now, unread, strict=True):
                if value != unset:
                    found.append((json, text, refuses))
        for attribute, json, each in below:
            if (value := getattr(message, attribute)) is not None:
                found += each(value, json)
        return found

    return check


def verdict(name: str, field: str) -> tuple[str, bool]:
    """What is said of a field that is set and not read, and whether it refuses the object."""
    if text := WITHOUT_EFFECT.get((name, field)):
        return text, False
    if text := REFUSED.get((name, field)):
        return text, True
    return (ENTERPRISE if field in ENTERPRISE_ONLY.get(name, ()) else NOT_YET), True


def is_read(name: str, field: str) -> bool:
    fields = FIELDS_READ[name]
    return fields == ALL or field in fields


def _unread(name: str) -> Iterator[tuple[str, str, object]]:
    """JSON name, attribute and value when unset of the fields of a message that are not read."""
    for json, (attribute, kind, type_name, oneof, shape) in MESSAGES[PACKAGE + name].items():
        if not is_read(name, json):
            yield json, attribute, _unset(kind, type_name, oneof, shape)


def _unset(kind: str, type_name: str, oneof: str, shape: str) -> object:
    if shape != "one":
        return [] if shape == "list" else {}
    if oneof or kind not in ("scalar", "enum"):
        return None
    return {"string": "", "bytes": b"", "bool": False}.get(type_name, 0)


def _below(name: str) -> Iterator[tuple[str, str, Callable[[Any, str], list[Finding]]]]:
    """The fields of a message that are read and have fields themselves."""
    for json, (attribute, kind, type_name, _, shape) in MESSAGES[PACKAGE + name].items():
        child = type_name.removeprefix(PACKAGE)
        if kind != "message" or not is_read(name, json) or (name, json) in APART or child in UNCHECKED:
            continue
        if check := checker(child):
            yield attribute, json, {"one": _one, "list": _list, "map": _map}[shape](check)


def _one(check: Check) -> Callable[[Any, str], list[Finding]]:
    return lambda value, path: [(join(path, at), text, refuses) for at, text, refuses in check(value)]


def _list(check: Check) -> Callable[[Any, str], list[Finding]]:
    return lambda values, path: [
        (join(f"{path}[{i}]", at), text, refuses)
        for i, value in enumerate(values)
        for at, text, refuses in check(value)
    ]


def _map(check: Check) -> Callable[[Any, str], list[Finding]]:
    return lambda values, path: [
        (join(f"{path}[{key}]", at), text, refuses)
        for key, value in values.items()
        for at, text, refuses in check(value)
    ]


def _getter(attributes: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    if len(attributes) > 1:
        return attrgetter(*attributes)
    return lambda message: tuple(getattr(message, attribute) for attribute in attributes)


def _fields_read() -> dict[str, tuple[str, ...]]:
    merged = dict(READ)
    for feature in FEATURES:
        for message, fields in feature.reads.items():
            known = merged.get(message, ())
            merged[message] = ALL if ALL in (known, fields) else (*known, *fields)
    return merged


FIELDS_READ = _fields_read()
_SCHEMA_NAMES = {
    name.removeprefix(PACKAGE).replace(".", ""): name.removeprefix(PACKAGE)
    for name in MESSAGES
    if name.startswith(PACKAGE)
}
