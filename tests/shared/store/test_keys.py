from __future__ import annotations

import pytest

from protos._generated.schema import MESSAGES
from shared.errors import InvalidResource
from shared.ref import Ref
from shared.store.keys import (
    GATEWAY,
    KINDS,
    PROXY,
    UPSTREAM,
    VIRTUAL_SERVICE,
    Kind,
    check_ref,
    chunk_prefix,
    key,
    parse_key,
    prefix,
    status_key,
)

PETSTORE = Ref("gloo-system", "petstore")


def test_keys_lie_where_gloo_puts_them() -> None:
    assert key("gloo", UPSTREAM, PETSTORE) == "gloo/gloo.solo.io/v1/Upstream/gloo-system/petstore"
    assert (
        key("gloo", VIRTUAL_SERVICE, Ref("gloo-system", "default"))
        == "gloo/gateway.solo.io/v1/VirtualService/gloo-system/default"
    )


def test_a_prefix_ends_with_a_slash_so_that_no_sibling_matches() -> None:
    assert prefix("gloo", PROXY) == "gloo/gloo.solo.io/v1/Proxy/"
    assert prefix("gloo", PROXY, "a") == "gloo/gloo.solo.io/v1/Proxy/a/"


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("root", ["gloo", "teams/blue/gloo"])
def test_a_key_is_read_back_as_the_object_it_was_made_for(kind: Kind, root: str) -> None:
    assert parse_key(root, key(root, kind, PETSTORE)) == (kind, PETSTORE)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_kind_has_its_message_in_the_contract(kind: Kind) -> None:
    assert kind.message in MESSAGES


def test_no_two_kinds_share_a_name_a_plural_or_a_short_form() -> None:
    for names in ({k.name for k in KINDS}, {k.plural for k in KINDS}, {k.short for k in KINDS}):
        assert len(names) == len(KINDS)


def test_a_key_without_a_name_is_understood() -> None:
    assert parse_key("gloo", "gloo/gateway.solo.io/v1/Gateway/gloo-system") == (
        GATEWAY,
        Ref("gloo-system", ""),
    )


@pytest.mark.parametrize(
    "stray",
    [
        "",
        "gloo",
        "gloo/",
        "other/gloo.solo.io/v1/Upstream/a/b",
        "gloo2/gloo.solo.io/v1/Upstream/a/b",
        "gloo/gloo.solo.io/v1/Upstream",
        "gloo/gloo.solo.io/v1/Upstream/",
        "gloo/gloo.solo.io/v1/Upstream/a/",
        "gloo/gloo.solo.io/v1/Upstream//b",
        "gloo/gloo.solo.io/v1/Upstream/a/b/",
        "gloo/gloo.solo.io/v1/Upstream/a/b/c",
        "gloo/gloo.solo.io/v2/Upstream/a/b",
        "gloo/gloo.solo.io/v1/upstream/a/b",
        "gloo/gateway.solo.io/v1/Upstream/a/b",
        "gloo/_chunks/Proxy/abc",
        "gloo/_status/Proxy/a/b",
    ],
)
def test_a_key_that_means_no_object_is_none(stray: str) -> None:
    assert parse_key("gloo", stray) is None


def test_what_our_processes_write_lies_outside_every_kind() -> None:
    assert status_key("gloo", UPSTREAM, PETSTORE) == "gloo/_status/Upstream/gloo-system/petstore"
    assert chunk_prefix("gloo", PROXY) == "gloo/_chunks/Proxy/"


@pytest.mark.parametrize("name", ["a", "petstore", "my-service.v1", "0", "a" * 253])
def test_a_dns_name_is_taken(name: str) -> None:
    check_ref(Ref("gloo-system", name))


@pytest.mark.parametrize(
    "name", ["", "Petstore", "pet_store", "-a", "a-", "a..b", ".a", "a/b", "é", "a\n", "a" * 254]
)
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidResource) as refused:
        check_ref(Ref("gloo-system", name))

    assert refused.value.path == "metadata.name"


def test_a_missing_namespace_is_refused_at_its_path() -> None:
    with pytest.raises(InvalidResource, match=r"^metadata\.namespace: is missing$"):
        check_ref(Ref("", "a"))
