"""gRPC-JSON: gRPC services for clients that speak JSON over HTTP."""

from __future__ import annotations

import binascii
from base64 import b64decode

from protos import gloo
from protos.envoy import grpc_json
from services.gloo import checks
from services.gloo.descriptors import problem_of, services_of
from services.gloo.plugin import ALL, Feature, HttpFilter, Patch, Scope, Stage
from shared.ref import Ref

FILTER = "envoy.filters.http.grpc_json_transcoder"
WAITING = grpc_json.GrpcJsonTranscoder(proto_descriptor_bin=b"")  # without services it lets all pass


def transcode(given: gloo.GrpcJsonTranscoder, scope: Scope) -> Patch:
    return Patch(filters={FILTER: transcoder(given, scope)})


def transcoder(given: gloo.GrpcJsonTranscoder, scope: Scope) -> grpc_json.GrpcJsonTranscoder:
    """What Envoy gets. The services are looked for in the descriptors, if those are no file of Envoy's."""
    raw = descriptors(given, scope)
    if not given.services:
        scope.error("services", "needs at least one")
    for i, service in enumerate(given.services if raw is not None else ()):
        if problem := problem_of(raw, service, given.auto_mapping):
            scope.error(f"services[{i}]", f"{checks.shown(service)}: {problem}")
    return grpc_json.GrpcJsonTranscoder(
        proto_descriptor=given.proto_descriptor if raw is None else None,
        proto_descriptor_bin=raw,
        services=list(given.services),
        print_options=printing(given.print_options) if given.print_options is not None else None,
        match_incoming_request_route=given.match_incoming_request_route,
        ignored_query_parameters=list(given.ignored_query_parameters),
        auto_mapping=given.auto_mapping,
        ignore_unknown_query_parameters=given.ignore_unknown_query_parameters,
        convert_grpc_status=given.convert_grpc_status,
    )


def printing(given: gloo.GrpcJsonTranscoderPrintOptions) -> grpc_json.GrpcJsonTranscoderPrintOptions:
    return grpc_json.GrpcJsonTranscoderPrintOptions(
        add_whitespace=given.add_whitespace,
        always_print_primitive_fields=given.always_print_primitive_fields,
        always_print_enums_as_ints=given.always_print_enums_as_ints,
        preserve_proto_field_names=given.preserve_proto_field_names,
    )


def descriptors(given: gloo.GrpcJsonTranscoder, scope: Scope) -> bytes | None:
    """A usable FileDescriptorSet as bytes; None when there is none, or only Envoy has it."""
    if given.proto_descriptor is not None:
        problem = checks.text_value(given.proto_descriptor, checks.MAX_PATH)
        if problem or not given.proto_descriptor:
            scope.error("protoDescriptor", problem or "required")
        return None
    if given.proto_descriptor_bin is not None:
        return usable(given.proto_descriptor_bin, "protoDescriptorBin", scope)
    if given.proto_descriptor_config_map is not None:
        return in_artifact(given.proto_descriptor_config_map, scope)
    scope.error("", "needs descriptors: protoDescriptorBin, protoDescriptorConfigMap or protoDescriptor")
    return None


def usable(raw: bytes, where: str, scope: Scope) -> bytes | None:
    if problem := services_of(raw).problem:
        scope.error(where, problem)
        return None
    return raw


def in_artifact(given: gloo.GrpcJsonTranscoderDescriptorConfigMap, scope: Scope) -> bytes | None:
    at = "protoDescriptorConfigMap"
    if given.config_map_ref is None:
        scope.error(f"{at}.configMapRef", "required")
        return None
    ref = Ref(given.config_map_ref.namespace, given.config_map_ref.name)
    found: gloo.Artifact | str | None = scope.read("Artifact", ref)
    if not isinstance(found, gloo.Artifact):
        scope.error(f"{at}.configMapRef", f"Artifact {ref}: {found or 'not found'}")
        return None
    texts = found.data
    key = given.key or (next(iter(texts)) if len(texts) == 1 else "")
    if key not in texts:
        there = f"there are {', '.join(sorted(texts))}" if texts else "there is none"
        scope.error(f"{at}.key", f"names no text of Artifact {ref}; {there}")
        return None
    try:
        raw = b64decode("".join(texts[key].split()), validate=True)
    except (binascii.Error, ValueError):
        scope.error(at, f"Artifact {ref}, {key}: no base64")
        return None
    return usable(raw, at, scope)


FEATURES = (
    Feature(
        name="grpcJsonTranscoder",
        reads={
            "GrpcJsonTranscoder": ALL,
            "GrpcJsonTranscoder.PrintOptions": ALL,
            "GrpcJsonTranscoder.DescriptorConfigMap": ALL,
        },
        on_listener=transcode,
        filter=HttpFilter(name=FILTER, stage=Stage.OUT_AUTH, weight=-1, config=WAITING),
    ),
)
