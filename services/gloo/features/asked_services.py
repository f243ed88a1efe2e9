"""Services that Envoy asks about requests: the cluster of each, and how long it may take."""

from __future__ import annotations

from datetime import timedelta

from protos import gloo
from protos.envoy import core
from services.gloo import checks
from services.gloo.features.upstream_http import speaks_http2
from services.gloo.plugin import Scope
from services.gloo.translator.names import cluster_name, ref_of

SHORTEST = timedelta(milliseconds=1)  # Envoy takes less for no limit


def asked_cluster(reference: gloo.ResourceRef | None, where: str, scope: Scope, *, grpc: bool = True) -> str:
    """The cluster of a service; while its upstream is not there, it fails like any that does not answer."""
    if reference is None or not reference.name:
        scope.error(where, "required")
        return ""
    ref = ref_of(reference)
    upstream = scope.read("Upstream", ref)
    if upstream is None:
        scope.warn(where, f"*v1.Upstream {{ {ref} }} not found, so asking it fails")
    elif grpc and not speaks_http2(upstream):
        scope.warn(where, "gRPC needs HTTP/2; set useHttp2 of the upstream")
    return cluster_name(ref)


def asked_over_grpc(
    reference: gloo.ResourceRef | None, where: str, authority: str, timeout: timedelta, scope: Scope
) -> core.GrpcService:
    if authority and (problem := checks.authority(authority)):
        scope.error("grpcService.authority", problem)
    cluster = asked_cluster(reference, where, scope)
    to = core.GrpcServiceEnvoyGrpc(cluster_name=cluster, authority=authority)
    return core.GrpcService(envoy_grpc=to, timeout=timeout)


def patience(given: timedelta | None, otherwise: timedelta, scope: Scope) -> timedelta:
    """How long a service may take."""
    if given is None:
        return otherwise
    if given < SHORTEST:
        scope.error("requestTimeout", "must be 1ms or more")
    elif problem := checks.duration(given):
        scope.error("requestTimeout", problem)
    return given
