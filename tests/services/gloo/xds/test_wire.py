"""The bytes: what google's protobuf writes we read, what we write it reads, and garbage is refused."""

from __future__ import annotations

import contextlib

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2 as pb
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from services.gloo.resources import CLUSTER, ENDPOINTS, Resource, resource
from services.gloo.xds.subscription import Node, Push
from services.gloo.xds.wire import (
    Frames,
    Malformed,
    TooMany,
    delta_parts,
    framed,
    mentions,
    read_delta,
    read_sotw,
    sotw_parts,
)

TEXTS = st.text(max_size=40)
NAMES = st.lists(TEXTS, max_size=5)


def node(**metadata: object) -> base_pb2.Node:
    made = base_pb2.Node(id="envoy-1", cluster="edge", user_agent_name="envoy")
    made.metadata.update(metadata)
    made.extensions.add(name="envoy.filters.http.fault", category="envoy.filters.http")
    return made


def push(*resources: Resource, removed: tuple[str, ...] = (), complete: bool = False) -> Push:
    return Push(
        type_url=CLUSTER,
        version="v1",
        target="v1",
        resources=resources,
        changed=resources,
        removed=removed,
        complete=complete,
    )


@given(TEXTS, NAMES, TEXTS, TEXTS, st.none() | TEXTS)
def test_a_request_is_read_as_google_writes_it(
    version: str, names: list[str], type_url: str, nonce: str, error: str | None
) -> None:
    request = pb.DiscoveryRequest(
        version_info=version, resource_names=names, type_url=type_url, response_nonce=nonce
    )
    if error is not None:
        request.error_detail.code = 3
        request.error_detail.message = error

    read = read_sotw(request.SerializeToString(), 100)

    assert (read.version, read.names, read.type_url) == (version, frozenset(names), type_url)
    assert (read.nonce, read.error, read.node) == (nonce, error, None)


@given(NAMES, NAMES, st.dictionaries(TEXTS, TEXTS, max_size=5), TEXTS, st.none() | TEXTS)
def test_a_delta_request_is_read_as_google_writes_it(
    subscribe: list[str], unsubscribe: list[str], versions: dict[str, str], nonce: str, error: str | None
) -> None:
    request = pb.DeltaDiscoveryRequest(
        resource_names_subscribe=subscribe,
        resource_names_unsubscribe=unsubscribe,
        initial_resource_versions=versions,
        response_nonce=nonce,
    )
    if error is not None:
        request.error_detail.message = error
        request.error_detail.SetInParent()

    read = read_delta(request.SerializeToString(), 100)

    assert (list(read.subscribe), list(read.unsubscribe)) == (subscribe, unsubscribe)
    assert (read.versions, read.nonce, read.error) == (versions, nonce, error)


@pytest.mark.parametrize(
    ("metadata", "role"),
    [
        ({"role": "ns~proxy"}, "ns~proxy"),
        ({"zone": "a", "role": "ns~proxy", "nested": {"role": "not this"}}, "ns~proxy"),
        ({"nested": {"role": "not this"}}, ""),
        ({"role": 7}, ""),
        ({}, ""),
    ],
)
def test_a_node_tells_its_role(metadata: dict[str, object], role: str) -> None:
    sotw = pb.DiscoveryRequest(node=node(**metadata)).SerializeToString()
    delta = pb.DeltaDiscoveryRequest(node=node(**metadata)).SerializeToString()

    expected = Node(id="envoy-1", cluster="edge", role=role)
    assert read_sotw(sotw, 1).node == expected
    assert read_delta(delta, 1).node == expected


def test_locators_are_names_too() -> None:
    sotw = pb.DiscoveryRequest(resource_locators=[pb.ResourceLocator(name="a")])
    delta = pb.DeltaDiscoveryRequest(
        resource_locators_subscribe=[pb.ResourceLocator(name="a")],
        resource_locators_unsubscribe=[pb.ResourceLocator(name="b")],
    )

    assert read_sotw(sotw.SerializeToString(), 1).names == {"a"}
    read = read_delta(delta.SerializeToString(), 2)
    assert (read.subscribe, read.unsubscribe) == (("a",), ("b",))


@given(st.binary(max_size=200))
@example(b"\x80" * 20)
@example(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f")
def test_garbage_is_malformed_or_harmless(data: bytes) -> None:
    for read, message in ((read_sotw, pb.DiscoveryRequest), (read_delta, pb.DeltaDiscoveryRequest)):
        try:
            read(data, 100)
        except Malformed:
            continue
        with contextlib.suppress(DecodeError):  # we read fewer fields, so we forgive more
            message.FromString(data)


def test_too_many_names_are_refused_while_reading() -> None:
    request = pb.DiscoveryRequest(resource_names=map(str, range(11)))

    with pytest.raises(TooMany):
        read_sotw(request.SerializeToString(), 10)
    with pytest.raises(TooMany):
        read_delta(
            pb.DeltaDiscoveryRequest(resource_names_subscribe=map(str, range(11))).SerializeToString(), 10
        )


@given(st.lists(st.tuples(TEXTS, st.binary(max_size=300)), max_size=6), NAMES)
def test_responses_are_what_google_reads(members: list[tuple[str, bytes]], removed: list[str]) -> None:
    resources = [resource(name, body) for name, body in members]
    made = push(*resources, removed=tuple(removed))

    sotw = pb.DiscoveryResponse.FromString(framed(sotw_parts(made, "7"))[5:])
    delta = pb.DeltaDiscoveryResponse.FromString(framed(delta_parts(made, "7"))[5:])

    assert (sotw.version_info, sotw.type_url, sotw.nonce) == ("v1", CLUSTER, "7")
    assert [(any_.type_url, any_.value) for any_ in sotw.resources] == [(CLUSTER, r.body) for r in resources]
    assert (delta.system_version_info, delta.type_url, delta.nonce) == ("v1", CLUSTER, "7")
    assert list(delta.removed_resources) == removed
    assert [(r.name, r.version, r.resource.type_url, r.resource.value) for r in delta.resources] == [
        (r.name, r.version, CLUSTER, r.body) for r in resources
    ]


def test_a_sotw_response_is_the_very_bytes_google_writes() -> None:
    made = push(resource("a", b"\x0a\x01a"), resource("b", b"b" * 1000))
    expected = pb.DiscoveryResponse(version_info="v1", type_url=CLUSTER, nonce="7")
    for member in made.resources:
        expected.resources.add(type_url=CLUSTER, value=member.body)

    data = framed(sotw_parts(made, "7"))

    assert data == b"\0" + len(data[5:]).to_bytes(4, "big") + expected.SerializeToString()


def test_streams_due_the_same_response_share_its_bytes() -> None:
    frames = Frames(2**20)
    first = frames.frame(push(resource("a", b"1")), delta=True, newer_than=0)

    assert frames.frame(push(resource("a", b"1")), delta=True, newer_than=0)[1] is first[1]
    assert frames.frame(push(resource("a", b"2")), delta=True, newer_than=0)[1] != first[1]
    assert frames.frame(push(resource("a", b"1")), delta=False, newer_than=0)[1] != first[1]


def test_a_stream_never_sees_a_nonce_twice() -> None:
    frames = Frames(2**20)
    nonce, _ = frames.frame(push(resource("a", b"1")), delta=True, newer_than=0)

    again, _ = frames.frame(push(resource("a", b"1")), delta=True, newer_than=nonce)

    assert again > nonce


def test_shared_bytes_are_bounded() -> None:
    frames = Frames(1000)
    for n in range(100):
        frames.frame(push(resource("a", b"%d" % n + b"x" * 100)), delta=True, newer_than=0)

    assert frames._size <= 1000
    assert frames._size == sum(len(data) for _, data in frames._kept.values())


def test_a_body_mentions_a_name_by_its_length_and_bytes() -> None:
    body = pb.DiscoveryRequest(
        resource_names=["petstore_gloo-system"], type_url=ENDPOINTS
    ).SerializeToString()

    assert mentions(body, [b"petstore_gloo-system"])
    assert not mentions(body, [b"petstore"])
    assert not mentions(body, [b"store_gloo-system", b"gloo-system"])
    assert mentions(body, [b"other"], budget=0)
