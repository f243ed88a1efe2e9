"""Messages as documents: Gloo's form of them, and Envoy's messages made readable."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest

from protos import gateway, gloo
from protos._generated.google import protobuf
from protos.envoy import cluster, core, route, tls
from shared.codec.documents import to_document
from shared.codec.encode import pack
from shared.codec.wellknown import duration_text, struct_of


def test_defaults_are_left_out_and_what_is_set_stays() -> None:
    message = gateway.Route(
        matchers=[gloo.Matcher(prefix="")],
        route_action=gloo.RouteAction(single=gloo.Destination(upstream=gloo.ResourceRef(name="a"))),
        options=gloo.RouteOptions(prefix_rewrite="", auto_host_rewrite=False, timeout=timedelta(0)),
    )

    assert to_document(message) == {
        "matchers": [{"prefix": ""}],
        "routeAction": {"single": {"upstream": {"name": "a"}}},
        "options": {"prefixRewrite": "", "autoHostRewrite": False, "timeout": "0s"},
    }


def test_an_empty_message_that_is_set_stays() -> None:
    assert to_document(gloo.Upstream(consul=gloo.ConsulUpstreamSpec(), status=gloo.Status())) == {
        "consul": {},
        "status": {},
    }


def test_64_bit_numbers_are_text_and_enums_are_names() -> None:
    assert to_document(gloo.Metadata(generation=2**60)) == {"generation": str(2**60)}
    assert to_document(gloo.Status(state=gloo.StatusState.Warning)) == {"state": "Warning"}
    assert to_document(gloo.Status(state=gloo.StatusState(99))) == {"state": 99}


def test_maps_go_in_the_order_of_their_keys() -> None:
    document = to_document(gloo.Metadata(labels={"b": "1", "a": "2"}))

    assert list(document["labels"]) == ["a", "b"]


def test_a_struct_is_what_it_holds() -> None:
    details = {"a": [1, 1.5, True, None, {"b": "c"}], "d": {}}

    assert to_document(gloo.Status(details=struct_of(details))) == {"details": details}


def test_names_are_those_of_the_proto_files() -> None:
    assert to_document(gloo.RouteOptions(append_xforwarded_host=True)) == {"appendXForwardedHost": True}
    assert to_document(cluster.OutlierDetection(consecutive_5xx=3)) == {"consecutive5xx": 3}
    assert to_document(core.Http1ProtocolOptions(accept_http_10=True)) == {"acceptHttp10": True}


def test_an_any_is_opened_where_its_type_is_known() -> None:
    opened = to_document(core.TransportSocket(name="tls", typed_config=pack(tls.UpstreamTlsContext(sni="a"))))
    closed = to_document(core.TransportSocket(typed_config=protobuf.Any(type_url="x.y/z", value=b"1")))

    assert opened["typedConfig"] == {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": "a",
    }
    assert closed["typedConfig"] == {"@type": "x.y/z", "value": base64.b64encode(b"1").decode()}
    assert to_document(core.TransportSocket(typed_config=pack(struct_of({"a": 1}))))["typedConfig"] == {
        "@type": "type.googleapis.com/google.protobuf.Struct",
        "value": {"a": 1},
    }


def test_envoys_messages_are_written_too() -> None:
    message = route.RouteConfiguration(
        name="a",
        virtual_hosts=[
            route.VirtualHost(
                name="b",
                domains=["*"],
                routes=[
                    route.Route(
                        match=route.RouteMatch(prefix="/"),
                        route=route.RouteAction(cluster="c", timeout=timedelta(seconds=1.5)),
                    )
                ],
            )
        ],
    )

    assert to_document(message) == {
        "name": "a",
        "virtualHosts": [
            {
                "name": "b",
                "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "c", "timeout": "1.500s"}}],
            }
        ],
    }


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(days=1), "86400s"),
        (timedelta(milliseconds=250), "0.250s"),
        (timedelta(microseconds=1), "0.000001s"),
        (timedelta(seconds=-1.5), "-1.500s"),
        (timedelta(milliseconds=-5), "-0.005s"),
        (timedelta(days=365 * 9000, microseconds=1), "283824000000.000001s"),
    ],
)
def test_durations_are_seconds(duration: timedelta, text: str) -> None:
    assert duration_text(duration) == text


@pytest.mark.parametrize("number", [0.5, -3, 2**53, 1e300, "NaN", "Infinity", "-Infinity"])
def test_floats_have_no_needless_fraction(number: Any) -> None:
    document = to_document(protobuf.DoubleValue(value=float(number)))

    assert document == {"value": number}
    assert type(document["value"]) is type(number) or number == 2**53
