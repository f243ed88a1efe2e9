"""Messages over each other."""

from __future__ import annotations

from datetime import timedelta

from protos.gloo import ResourceRef, RouteOptions, SslConfig, SslFiles
from shared.codec.overlay import overlay, taken


def test_what_one_sets_is_its_own_and_the_rest_anothers() -> None:
    own = SslConfig(sni_domains=["a"], one_way_tls=False)
    other = SslConfig(sni_domains=["b", "c"], one_way_tls=True, alpn_protocols=["h2"])

    assert overlay(own, other) == SslConfig(sni_domains=["a"], one_way_tls=False, alpn_protocols=["h2"])
    assert taken(own, other) == ["alpnProtocols"]


def test_members_of_one_choice_replace_each_other() -> None:
    own = SslConfig(ssl_files=SslFiles(tls_cert="a"))
    other = SslConfig(secret_ref=ResourceRef(name="b"), transport_socket_connect_timeout=timedelta(seconds=1))

    merged = overlay(own, other)

    assert merged == SslConfig(
        ssl_files=SslFiles(tls_cert="a"), transport_socket_connect_timeout=timedelta(seconds=1)
    )
    assert taken(own, other) == ["transportSocketConnectTimeout"]


def test_one_alone_is_taken_as_it_is() -> None:
    options = RouteOptions(timeout=timedelta(seconds=1))

    assert overlay(options, None) is options
    assert overlay(None, options) is options
    assert overlay(None, None) is None
    assert (taken(None, options), taken(options, None)) == (["timeout"], [])
