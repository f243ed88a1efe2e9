"""The encoder against google's protobuf, message by message, and its refusals."""

from __future__ import annotations

import importlib
import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from protos import gloo
from protos._generated.google import protobuf
from protos._generated.message_pool import default_message_pool
from protos.envoy import cluster, core, endpoint, hcm, listener, route, tls
from shared.codec.encode import encode, pack
from shared.codec.wellknown import struct_of
from shared.errors import InvalidResource

ROOT = Path(__file__).parents[3]
LISTED = [
    line
    for line in (ROOT / "protos" / "envoy.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
MODULES = [importlib.import_module(name.removesuffix(".proto").replace("/", ".") + "_pb2") for name in LISTED]
ROOTS = [
    full
    for module in MODULES
    for full in (m.full_name for m in module.DESCRIPTOR.message_types_by_name.values())
]


def _is_ours(name: str) -> bool:
    """Whether google's protobuf knows the message too, and it is none of descriptors (which are proto2)."""
    try:
        file: str = descriptor_pool.Default().FindMessageTypeByName(name).file.name
    except KeyError:
        return False
    return (
        file.startswith(("envoy/", "xds/", "udpa/", "google/")) and file != "google/protobuf/descriptor.proto"
    )


EVERY = sorted(filter(_is_ours, (url.rpartition("/")[2] for url in default_message_pool.url_to_type)))

# Random messages, made by google's classes


class Maker:
    """Fills google's messages at random: edge values often, defaults too."""

    def __init__(self, source: random.Random, share: float) -> None:
        self.source = source
        self.share = share

    def message(self, descriptor: Descriptor, depth: int = 0) -> Message:
        made = message_factory.GetMessageClass(descriptor)()
        if descriptor.full_name == "google.protobuf.Duration":
            self.moment(made, -(10**9), 10**9)
        elif descriptor.full_name == "google.protobuf.Timestamp":
            made.seconds, made.nanos = (
                self.source.randrange(0, 4 * 10**9),
                self.source.randrange(10**6) * 1000,
            )
        else:
            for field in descriptor.fields:
                if self.source.random() < self.share / (1 + depth * depth):
                    self.fill(made, field, depth)
        return made

    def moment(self, made: Any, low: int, high: int) -> None:
        seconds, nanos = self.source.choice((0, 1, -1, 15, self.source.randrange(low, high))), 0
        if self.source.random() < 0.5:
            nanos = self.source.randrange(10**6) * 1000 * (-1 if seconds < 0 else 1)
        if not seconds:
            nanos *= self.source.choice((1, -1))
        made.seconds, made.nanos = seconds, nanos

    def fill(self, made: Any, field: FieldDescriptor, depth: int) -> None:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
            for _ in range(self.source.randrange(4)):
                entry_key = self.key(key)
                if value.message_type is not None:
                    getattr(made, field.name)[entry_key].CopyFrom(self.message(value.message_type, depth + 1))
                else:
                    getattr(made, field.name)[entry_key] = self.scalar(value)
        elif field.is_repeated:
            for _ in range(self.source.randrange(1, 4)):
                if field.message_type is not None:
                    getattr(made, field.name).add().CopyFrom(self.message(field.message_type, depth + 1))
                else:
                    getattr(made, field.name).append(self.scalar(field))
        elif field.message_type is not None:
            if depth < 5:
                getattr(made, field.name).CopyFrom(self.message(field.message_type, depth + 1))
                getattr(made, field.name).SetInParent()
        else:
            setattr(made, field.name, self.scalar(field))

    def key(self, field: FieldDescriptor) -> Any:
        """None begins another: there google's C core, unlike its C++ and Go, puts the longer first."""
        if field.type == FieldDescriptor.TYPE_STRING:
            return self.source.choice(("x", "/api", "grüße €", "\N{GRINNING FACE}", "a" * 130, "-"))
        return self.scalar(field)

    def scalar(self, field: FieldDescriptor) -> Any:
        source = self.source
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_BOOL:
                return source.random() < 0.7
            case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
                return source.randbytes(source.choice((0, 1, 5, 200)))
            case FieldDescriptor.CPPTYPE_STRING:
                return source.choice(("", "x", "/api", "grüße €", "\N{GRINNING FACE}", "a" * 130))
            case FieldDescriptor.CPPTYPE_ENUM:
                assert field.enum_type is not None
                return source.choice([value.number for value in field.enum_type.values])
            case FieldDescriptor.CPPTYPE_INT32:
                return source.choice((0, 1, -1, 300, 2**31 - 1, -(2**31)))
            case FieldDescriptor.CPPTYPE_INT64:
                return source.choice((0, 1, -1, 2**40, 2**63 - 1, -(2**63)))
            case FieldDescriptor.CPPTYPE_UINT32:
                return source.choice((0, 1, 127, 128, 16383, 16384, 2**32 - 1))
            case FieldDescriptor.CPPTYPE_UINT64:
                return source.choice((0, 1, 2**40, 2**64 - 1))
        return source.choice((0.0, -0.0, 0.5, -1.25, 1e10, math.inf))


def assert_equal_bytes(name: str, seed: int, share: float) -> None:
    descriptor = descriptor_pool.Default().FindMessageTypeByName(name)
    theirs = Maker(random.Random(seed), share).message(descriptor)
    wanted = theirs.SerializeToString(deterministic=True)

    ours = default_message_pool.url_to_type[f"type.googleapis.com/{name}"].parse(wanted)

    assert encode(ours) == wanted


@pytest.mark.parametrize("name", EVERY)
def test_every_message_we_can_emit_encodes_as_googles(name: str) -> None:
    for seed, share in enumerate((0.2, 0.5, 0.9)):
        assert_equal_bytes(name, seed, share)


@given(st.sampled_from(ROOTS), st.integers(0, 2**32), st.sampled_from((0.1, 0.3, 0.6)))
@settings(max_examples=300, deadline=None)
def test_random_messages_encode_as_googles(name: str, seed: int, share: float) -> None:
    assert_equal_bytes(name, seed, share)


def test_all_that_is_listed_is_covered() -> None:
    assert set(ROOTS) <= set(EVERY)
    assert len(EVERY) > 300


# Cases by hand


def same(ours: Any) -> Message:
    """Google's reading of our bytes, which must be canonical."""
    url = default_message_pool.type_to_url[type(ours)]
    descriptor = descriptor_pool.Default().FindMessageTypeByName(url.rpartition("/")[2])
    encoded = encode(ours)
    theirs = message_factory.GetMessageClass(descriptor).FromString(encoded)
    assert theirs.SerializeToString(deterministic=True) == encoded
    return theirs


def test_a_zero_duration_stays() -> None:
    read: Any = same(route.RouteAction(cluster="c", timeout=timedelta(0)))

    assert read.HasField("timeout")
    assert read.timeout.ToTimedelta() == timedelta(0)


@pytest.mark.parametrize(
    ("value", "seconds", "nanos"),
    [
        (timedelta(seconds=-1, microseconds=-500000), -1, -500000000),
        (timedelta(milliseconds=-250), 0, -250000000),
        (timedelta(milliseconds=250), 0, 250000000),
        (timedelta(days=4000), 345600000, 0),
    ],
)
def test_a_durations_parts_carry_one_sign(value: timedelta, seconds: int, nanos: int) -> None:
    read: Any = same(route.RouteAction(timeout=value))

    assert (read.timeout.seconds, read.timeout.nanos) == (seconds, nanos)


def test_wrappers_tell_zero_from_absent() -> None:
    read: Any = same(route.WeightedCluster(clusters=[route.WeightedClusterClusterWeight(name="a", weight=0)]))
    absent: Any = same(route.WeightedCluster(clusters=[route.WeightedClusterClusterWeight(name="a")]))
    false: Any = same(cluster.Cluster(upstream_connection_options=None, name="c"))

    assert read.clusters[0].HasField("weight")
    assert not absent.clusters[0].HasField("weight")
    assert not false.HasField("upstream_connection_options")


def test_a_oneofs_zero_stays() -> None:
    read: Any = same(route.RouteMatch(prefix=""))

    assert read.WhichOneof("path_specifier") == "prefix"


def test_maps_are_sorted_whatever_their_history() -> None:
    one = core.Metadata(filter_metadata={"b": struct_of({"y": 1, "x": [True, None]}), "a": struct_of({})})
    other = core.Metadata(filter_metadata={"a": struct_of({}), "b": struct_of({"x": [True, None], "y": 1})})

    assert encode(one) == encode(other)
    assert bytes(one) != bytes(other)
    same(one)


def test_map_keys_go_in_the_order_of_their_bytes() -> None:
    read = protobuf.Struct.parse(
        encode(struct_of({"b": 1, "ab": 1, "é": 1, "": 1, "a": 1, "\N{GRINNING FACE}": 1}))
    )

    assert list(read.fields) == ["", "a", "ab", "b", "é", "\N{GRINNING FACE}"]


def test_an_any_is_canonical_inside_too() -> None:
    packed = pack(tls.UpstreamTlsContext(sni="a.example.com"))

    read: Any = same(core.TransportSocket(name="tls", typed_config=packed))

    assert (
        packed.type_url == "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    )
    assert read.typed_config.value == encode(tls.UpstreamTlsContext(sni="a.example.com"))


def test_packed_lists_and_timestamps() -> None:
    same(route.RetryPolicy(retriable_status_codes=[0, 1, 503, 2**32 - 1]))
    same(endpoint.ClusterLoadAssignment(cluster_name="c"))
    moment = datetime(2026, 11, 22, 8, 0, 0, 123456, tzinfo=UTC)

    assert encode(protobuf.Timestamp.from_datetime(moment)) == bytes(protobuf.Timestamp.from_datetime(moment))


def test_unknown_fields_are_kept() -> None:
    unknown = b"\xf8\xff\xff\xff\x0f\x01"
    known = b"\x0a\x01x"

    assert encode(cluster.Cluster.parse(unknown + known)) == known + unknown
    same(cluster.Cluster.parse(unknown + known))


def test_our_own_contract_encodes_too() -> None:
    status = gloo.Status(
        state=gloo.StatusState.Warning, subresource_statuses={"b": gloo.Status(), "a": gloo.Status()}
    )

    assert gloo.Status.parse(encode(status)) == status


# Refusals


@pytest.mark.parametrize(
    ("message", "path", "problem"),
    [
        (
            listener.Listener(address=core.Address(socket_address=core.SocketAddress(port_value=2**32))),
            "address.socket_address.port_value",
            "4294967296 does not fit uint32",
        ),
        (route.RetryPolicy(num_retries=-1), "num_retries", "-1 does not fit UInt32Value"),
        (
            route.RetryPolicy(retriable_status_codes=[200, -1]),
            "retriable_status_codes[1]",
            "-1 does not fit uint32",
        ),
        (route.RouteMatch(prefix="/", path="/"), "", "prefix and path exclude each other"),
        (
            route.Route(route=route.RouteAction(cluster="a", cluster_header="b")),
            "route",
            "cluster and cluster_header exclude each other",
        ),
        (route.RouteAction(timeout=15), "timeout", "15 does not fit Duration"),  # type: ignore[arg-type]
        (cluster.Cluster(name=5), "name", "5 does not fit string"),  # type: ignore[arg-type]
        (cluster.Cluster(name="a\ud800"), "name", "'a\\ud800' does not fit string"),
        (
            core.Metadata(filter_metadata={"\ud800": struct_of({})}),
            "filter_metadata key '\\ud800'",
            "'\\ud800' does not fit string",
        ),
        (route.VirtualHost(domains="a.example.com"), "domains", "expected a list, got 'a.example.com'"),  # type: ignore[arg-type]
        (route.VirtualHost(domains=["a", None]), "domains[1]", "None does not fit string"),  # type: ignore[list-item]
        (route.VirtualHost(routes=[route.RouteMatch()]), "routes[0]", "expected Route, got RouteMatch"),  # type: ignore[list-item]
        (core.Metadata(filter_metadata={"a": 1}), "filter_metadata['a']", "expected Struct, got int"),  # type: ignore[dict-item]
        (core.SocketAddress(port_value=1.5), "port_value", "1.5 does not fit uint32"),  # type: ignore[arg-type]
        (hcm.HttpConnectionManager(add_user_agent="yes"), "add_user_agent", "'yes' does not fit BoolValue"),  # type: ignore[arg-type]
        (route.RouteAction(timeout=timedelta.max), "timeout", f"{timedelta.max!r} does not fit Duration"),
    ],
)
def test_what_would_change_on_the_wire_is_refused(message: Any, path: str, problem: str) -> None:
    with pytest.raises(InvalidResource) as refused:
        encode(message)

    assert (refused.value.path, refused.value.problem) == (path, problem)


def test_a_misspelt_attribute_is_refused() -> None:
    action = route.RouteAction(cluster="c")
    action.prefix_rewite = "/"  # type: ignore[attr-defined]

    with pytest.raises(InvalidResource, match="route\\.prefix_rewite: RouteAction has no such field"):
        encode(route.Route(route=action))
