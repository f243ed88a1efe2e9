from __future__ import annotations

import pytest

from shared.ref import Ref
from shared.store.keys import GATEWAY, PROXY, UPSTREAM, VIRTUAL_SERVICE, key
from shared.store.objects import Stored, decode_value

DEFAULT = Ref("gloo-system", "default")
AT = key("gloo", VIRTUAL_SERVICE, DEFAULT)
VIRTUAL_SERVICE_TEXT = b"""\
# the shop's front door
metadata: {name: default, namespace: gloo-system, resourceVersion: "141"}
status: {state: Accepted, reportedBy: gateway}
virtualHost:
  domains: ['*']
  routes:
  - matchers: [{prefix: /}]
    routeAction: {single: {upstream: {name: petstore, namespace: gloo-system}}}
"""


def decoded(raw: bytes, at: str = AT, *, index: int = 7, previous: Stored | None = None) -> Stored:
    stored = decode_value("gloo", at, raw, index, previous=previous)
    assert stored is not None
    return stored


def errors(stored: Stored) -> list[str]:
    return [str(error) for error in stored.report.errors]


def warnings(stored: Stored) -> list[str]:
    return [str(warning) for warning in stored.report.warnings]


def test_a_good_value_is_an_object_with_its_message() -> None:
    stored = decoded(VIRTUAL_SERVICE_TEXT)

    assert (stored.kind, stored.ref, stored.index) == (VIRTUAL_SERVICE, DEFAULT, 7)
    assert stored.report.clean
    assert stored.message.virtual_host.domains == ["*"]
    assert (stored.message.metadata.namespace, stored.message.metadata.name) == ("gloo-system", "default")
    assert stored.raw == VIRTUAL_SERVICE_TEXT


def test_status_and_bookkeeping_are_no_part_of_the_spec_or_the_message() -> None:
    stored = decoded(VIRTUAL_SERVICE_TEXT)

    assert stored.spec.keys() == {"metadata", "virtualHost"}
    assert stored.spec["metadata"] == {"name": "default", "namespace": "gloo-system"}
    assert stored.message.status is None
    assert stored.message.metadata.resource_version == ""


def test_the_status_is_read_in_both_dialects() -> None:
    namespaced = b"namespacedStatuses: {statuses: {a: {state: Accepted}, b: {state: Rejected}}}"

    assert decoded(VIRTUAL_SERVICE_TEXT).status("gloo-system") == {
        "state": "Accepted",
        "reportedBy": "gateway",
    }
    assert decoded(namespaced).status("b") == {"state": "Rejected"}
    assert decoded(namespaced).status("c") == {}
    assert decoded(b"status: broken").status("a") == {}
    assert decoded(b"namespacedStatuses: 5").status("a") == {}


def test_a_garbled_status_costs_nothing() -> None:
    stored = decoded(b"status: {state: Splendid, nonsense: 1}\nvirtualHost: {domains: [a]}")

    assert stored.report.clean
    assert stored.message.virtual_host.domains == ["a"]


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"\x80\x81\xff", "UTF-8"),
        (b"\x00", "NUL"),
        (b"a: [1", "line"),
        (b"[1, 2]", "mapping"),
        (b"just a word", "mapping"),
        (b"{", "line"),
    ],
)
def test_what_cannot_be_read_is_an_object_without_document(raw: bytes, problem: str) -> None:
    stored = decoded(raw)

    assert stored.ref == DEFAULT
    assert stored.document is None
    assert stored.message is None
    assert len(errors(stored)) == 1
    assert errors(stored)[0].startswith("cannot be read: ")
    assert problem in errors(stored)[0]


def test_what_breaks_the_schema_keeps_its_document_and_says_where() -> None:
    stored = decoded(b"virtualHost: {routes: [{options: {faults: {abrot: {}}}}]}")

    assert stored.document is not None
    assert stored.message is None
    assert errors(stored) == [
        "virtualHost.routes[0].options.faults.abrot: unknown field, did you mean abort?"
    ]


def test_name_and_namespace_are_the_key_s_when_the_value_has_none() -> None:
    stored = decoded(b"virtualHost: {domains: [a]}")

    assert stored.ref == DEFAULT
    assert stored.message.metadata.name == "default"
    assert stored.report.clean


def test_where_key_and_value_differ_the_key_counts_and_it_is_said() -> None:
    stored = decoded(b"metadata: {name: other, namespace: elsewhere}")

    assert stored.ref == DEFAULT
    assert (stored.message.metadata.namespace, stored.message.metadata.name) == ("gloo-system", "default")
    assert warnings(stored) == [
        "metadata.name: is 'other', but the key says 'default', and that counts",
        "metadata.namespace: is 'elsewhere', but the key says 'gloo-system', and that counts",
    ]


def test_metadata_of_the_wrong_shape_is_an_error_at_its_path() -> None:
    stored = decoded(b"metadata: 5")

    assert stored.ref == DEFAULT
    assert errors(stored)[0].startswith("metadata: ")


def test_at_a_key_without_a_name_the_value_s_name_counts() -> None:
    at = "gloo/gateway.solo.io/v1/Gateway/gloo-system"
    stored = decoded(b"metadata: {name: gateway-proxy}\nbindPort: 8080", at)

    assert (stored.kind, stored.ref, stored.key) == (GATEWAY, Ref("gloo-system", "gateway-proxy"), at)
    assert stored.message.metadata.name == "gateway-proxy"


@pytest.mark.parametrize(
    "raw", [b"", b"bindPort: 8080", b"metadata: {name: 5}", b"metadata: {name: a/b}", b"\xff"]
)
def test_without_any_name_there_is_no_object(raw: bytes) -> None:
    assert decode_value("gloo", "gloo/gateway.solo.io/v1/Gateway/gloo-system", raw, 7) is None


def test_a_key_of_no_kind_is_no_object() -> None:
    assert decode_value("gloo", "gloo/else/v1/Thing/a/b", b"metadata: {name: b}", 7) is None


def test_a_change_of_status_alone_is_recognised_and_decodes_nothing() -> None:
    before = decoded(VIRTUAL_SERVICE_TEXT)

    after = decoded(
        VIRTUAL_SERVICE_TEXT.replace(b"Accepted", b"Rejected").replace(b"141", b"142"),
        index=8,
        previous=before,
    )

    assert after.index == 8
    assert after.same_spec(before)
    assert after.message is before.message
    assert after.status("gloo-system")["state"] == "Rejected"


def test_a_change_of_anything_else_is_no_status_change() -> None:
    before = decoded(VIRTUAL_SERVICE_TEXT)

    for text in (b"metadata: {labels: {a: b}}", VIRTUAL_SERVICE_TEXT.replace(b"petstore", b"shop"), b"\xff"):
        assert not decoded(text, previous=before).same_spec(before)


def test_garbage_equals_only_itself() -> None:
    assert decoded(b"\xff").same_spec(decoded(b"\xff"))
    assert not decoded(b"\xff").same_spec(decoded(b"\xfe"))
    assert not decoded(b"{}").same_spec(decoded(b"\xff"))


def test_a_bad_edit_and_its_repair_are_told_apart() -> None:
    good = decoded(VIRTUAL_SERVICE_TEXT)
    bad = decoded(VIRTUAL_SERVICE_TEXT.replace(b"domains", b"domians"), previous=good)
    again = decoded(VIRTUAL_SERVICE_TEXT, previous=bad)

    assert bad.message is None
    assert again.message == good.message


def test_an_edit_decodes_only_what_it_touches() -> None:
    routes = b"".join(
        b"  - matchers: [{prefix: /%d}]\n    redirectAction: {hostRedirect: a}\n" % i for i in range(50)
    )
    text = b"virtualHost:\n  routes:\n" + routes
    before = decoded(text)

    after = decoded(text.replace(b"/25}", b"/other}"), previous=before)

    assert after.message == decoded(after.raw).message
    pairs = zip(before.message.virtual_host.routes, after.message.virtual_host.routes, strict=True)
    assert [i for i, (old, new) in enumerate(pairs) if old is not new] == [25]
    assert before.message == decoded(text).message


def test_every_other_kind_is_decoded_to_its_own_message() -> None:
    upstream = decoded(b"static: {hosts: [{addr: a, port: 1}]}", key("gloo", UPSTREAM, DEFAULT))
    proxy = decoded(b'{"listeners": [{"name": "l", "bindPort": 8080}]}', key("gloo", PROXY, DEFAULT))

    assert upstream.message.static.hosts[0].addr == "a"
    assert proxy.message.listeners[0].bind_port == 8080
