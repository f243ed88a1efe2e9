"""gRPC-Web, by which browsers speak gRPC; on for every listener that does not say otherwise."""

from __future__ import annotations

from protos import gloo
from protos.envoy import grpc_web
from services.gloo.plugin import ALL, Feature, HttpFilter, Patch, Policy, Scope, Stage

FILTER = "envoy.filters.http.grpc_web"


def speak(wanted: gloo.GrpcWeb, scope: Scope) -> Patch:
    return Patch() if wanted.disable else Patch(filters={FILTER: grpc_web.GrpcWeb()})


def default(policy: Policy) -> gloo.GrpcWeb:
    return gloo.GrpcWeb(disable=policy.disable_grpc_web)


FEATURES = (
    Feature(
        name="grpcWeb",
        reads={"GrpcWeb": ALL},
        default=default,
        on_listener=speak,
        filter=HttpFilter(name=FILTER, stage=Stage.AUTHZ, weight=1, config=grpc_web.GrpcWeb()),
    ),
)
