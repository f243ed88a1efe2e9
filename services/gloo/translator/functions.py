"""Functions: what an Upstream tells of its service (``serviceSpec``), and the filters to call it with."""

from __future__ import annotations

import binascii
import contextlib
from base64 import b64decode
from dataclasses import replace

import betterproto2

from protos import gloo
from protos.envoy import grpc_json
from services.gloo import checks
from services.gloo.descriptors import VARIABLE, called_by, has_field, is_template, services_of
from services.gloo.features import aws_lambda
from services.gloo.features.grpc_json import FILTER, transcoder, usable
from services.gloo.features.upstream_http import speaks_http2
from services.gloo.plugin import Scope, within
from services.gloo.translator.names import ref_of
from shared.report import Report

ANY_PATH = "/**"

Filters = dict[str, betterproto2.Message]


def service_of(upstream: gloo.Upstream) -> tuple[str, gloo.ServiceSpec]:
    """Where an Upstream speaks of its service, and what it says."""
    for name, spec in (("static", upstream.static), ("consul", upstream.consul), ("pipe", upstream.pipe)):
        if spec is not None and spec.service_spec is not None:
            return f"{name}.serviceSpec", spec.service_spec
    return "", gloo.ServiceSpec()


def with_http2(upstream: gloo.Upstream) -> gloo.Upstream:
    """A service with methods of gRPC, as Gloo 1.2 discovers them, is spoken to over HTTP/2."""
    _, service = service_of(upstream)
    return replace(upstream, use_http2=True) if service.grpc and upstream.use_http2 is None else upstream


def check_service(upstream: gloo.Upstream, scope: Scope) -> None:
    """What is wrong with what an Upstream says of its service."""
    path, service = service_of(upstream)
    if service.grpc is not None or service.grpc_json_transcoder is not None:
        described(service, within(scope, path))
    if service.grpc_json_transcoder is not None and not speaks_http2(upstream):
        scope.warn(path, "gRPC needs HTTP/2; set useHttp2: true")


def filters_to(to: gloo.Destination, scope: Scope) -> Filters:
    """Filters, with their settings, that requests to a destination need; *scope* is the destination's."""
    if (calls := aws_lambda.filters_to(to, scope)) is not None:
        return calls
    function = to.destination_spec.grpc if to.destination_spec is not None else None
    if to.upstream is None:
        if function is not None:
            scope.error("destinationSpec", "goes with an upstream, whose serviceSpec says what can be called")
        return {}
    upstream: gloo.Upstream | None = scope.read("Upstream", ref_of(to.upstream))
    at, service = service_of(upstream or gloo.Upstream())
    if upstream is None or (function is None and service.grpc_json_transcoder is None):
        return {}
    its_own = replace(scope, path=at, report=Report())
    made: grpc_json.GrpcJsonTranscoder | None = described(service, its_own)
    if made is not None and made.proto_descriptor is not None and function is not None:
        its_own.error(
            "grpcJsonTranscoder.protoDescriptor", "only Envoy has it; destinationSpec needs another"
        )
    elif made is not None and function is not None:
        made = calling(function, made, within(scope, "destinationSpec.grpc"))
    for problem in its_own.report.errors:
        scope.error("upstream", f"Upstream {ref_of(to.upstream)}: {problem}")
    return {FILTER: made} if made is not None else {}


def described(service: gloo.ServiceSpec, scope: Scope) -> grpc_json.GrpcJsonTranscoder | None:
    """How a gRPC service is called with JSON; what Gloo 1.2 discovers has descriptors, and nothing else."""
    if service.grpc_json_transcoder is not None:
        return transcoder(service.grpc_json_transcoder, within(scope, "grpcJsonTranscoder"))
    if service.grpc is None:
        scope.error("", "says nothing of gRPC; it needs serviceSpec.grpcJsonTranscoder or serviceSpec.grpc")
        return None
    raw = service.grpc.descriptors
    with contextlib.suppress(binascii.Error):
        raw = b64decode(raw, validate=True)  # as Gloo writes it, base64 in base64
    return grpc_json.GrpcJsonTranscoder(proto_descriptor_bin=usable(raw, "grpc.descriptors", scope))


def calling(
    function: gloo.GrpcDestinationSpec, described: grpc_json.GrpcJsonTranscoder, scope: Scope
) -> grpc_json.GrpcJsonTranscoder | None:
    """Has every request call one method of what is *described*; None when it cannot be."""
    if (raw := described.proto_descriptor_bin) is None:
        return None
    services, service = services_of(raw), f"{function.package}.{function.service}".lstrip(".")
    if service not in services.names:
        known = ", ".join(sorted(services.names))
        scope.error(
            "service", f"{checks.shown(service)} is not in the Upstream's descriptors; there are {known}"
        )
        return None
    methods = {method.name: method for method in services.methods(service)}
    if function.function not in methods:
        known = ", ".join(sorted(methods))
        scope.error(
            "function", f"{checks.shown(function.function)} is no method of {service}; there are {known}"
        )
        return None
    parameters = function.parameters or gloo.Parameters()
    path = ANY_PATH if parameters.path is None else parameters.path
    message = methods[function.function].input_type
    if not is_template(path) or "?" in path:
        hint = "{x} stands for a whole step, and the query is not part of it"
        scope.error("parameters.path", f"{checks.shown(path)} is no template of a path; {hint}")
        return None
    for name in VARIABLE.findall(path):
        if not has_field(message, name):
            scope.error("parameters.path", f"{name} is no field of {message.full_name}")
    return replace(
        described,
        proto_descriptor_bin=called_by(raw, service, function.function, path),
        services=[service],
        auto_mapping=False,
        match_incoming_request_route=True,
        request_validation_options=grpc_json.GrpcJsonTranscoderRequestValidationOptions(
            reject_unknown_method=True
        ),
    )
