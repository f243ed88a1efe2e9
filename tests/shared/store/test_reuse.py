from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protos import gloo
from shared.codec.decode import decode
from shared.report import Report
from shared.store.reuse import reuse

Document = dict[str, Any]


def decoded(document: Document) -> gloo.Proxy:
    report = Report()
    message = decode(gloo.Proxy, document, report)
    assert message is not None, report
    return message


def proxy(*hosts: Document) -> Document:
    return {"listeners": [{"name": "l", "bindPort": 80, "httpListener": {"virtualHosts": list(hosts)}}]}


def host(name: str, *paths: str, **more: Any) -> Document:
    routes = [
        {
            "matchers": [{"prefix": path}],
            "redirectAction": {"hostRedirect": name},
            "options": {"timeout": "1s"},
        }
        for path in paths
    ]
    return {"name": name, "domains": [name], "routes": routes, **more}


def hosts_of(message: gloo.Proxy) -> list[gloo.VirtualHost]:
    (listener,) = message.listeners
    assert listener.http_listener is not None
    return listener.http_listener.virtual_hosts


def test_an_equal_document_decodes_nothing_of_its_lists() -> None:
    old = proxy(host("a", "/1"), host("b", "/2"))
    message = decoded(old)

    again = decoded(reuse(copy.deepcopy(old), old, message))

    assert again == message
    assert again.listeners[0] is message.listeners[0]


def test_one_changed_route_is_the_only_one_decoded() -> None:
    old = proxy(host("a", "/1", "/2", "/3"), host("b", "/1"))
    new = proxy(host("a", "/1", "/other", "/3"), host("b", "/1"))
    before = decoded(old)

    after = decoded(reuse(new, old, before))

    assert after == decoded(new)
    assert hosts_of(after)[1] is hosts_of(before)[1]
    first, second, third = zip(hosts_of(before)[0].routes, hosts_of(after)[0].routes, strict=True)
    assert first[0] is first[1]
    assert second[0] is not second[1]
    assert third[0] is third[1]


def test_free_form_parts_are_reused_beside_what_changed() -> None:
    old = proxy(host("a", "/1"))
    old["listeners"][0]["metadata"] = {"sources": [{"kind": "Gateway"}]}
    new = copy.deepcopy(old)
    new["listeners"][0]["bindPort"] = 81
    before = decoded(old)

    after = decoded(reuse(new, old, before))

    assert after == decoded(new)
    assert after.listeners[0].metadata is before.listeners[0].metadata


def test_a_member_that_comes_or_goes_leaves_its_neighbours() -> None:
    two, three = proxy(host("a"), host("c")), proxy(host("a"), host("b"), host("c"))
    message = decoded(two)

    grown = decoded(reuse(three, two, message))
    shrunk = decoded(reuse(two, three, grown))

    assert (grown, shrunk) == (decoded(three), decoded(two))
    assert hosts_of(grown)[0] is hosts_of(message)[0]
    assert hosts_of(grown)[2] is hosts_of(message)[1]
    assert hosts_of(shrunk)[1] is hosts_of(message)[1]


def test_members_between_new_ones_are_reused_when_they_are_the_same_objects() -> None:
    kept = [host(name, "/1") for name in "bdf"]
    old = proxy(*kept)
    message = decoded(old)

    grown = decoded(reuse(proxy(*(host(name, "/1") for name in "a"), *_between(kept)), old, message))

    was = {each.name: each for each in hosts_of(message)}
    assert [each.name for each in hosts_of(grown)] == ["a", "b", "c", "d", "e", "f", "g"]
    assert all(each is was[each.name] for each in hosts_of(grown) if each.name in was)


def _between(kept: list[Document]) -> list[Document]:
    """Each host, and a new one after it."""
    return [one for each in kept for one in (each, host(chr(ord(each["name"]) + 1), "/1"))]


def test_the_old_message_stays_as_it_was() -> None:
    old, new = proxy(host("a", "/1")), proxy(host("a", "/2", metadata={"x": {"y": [1]}}))
    before = decoded(old)

    decoded(reuse(new, old, before))

    assert before == decoded(old)


def test_errors_are_found_where_they_are() -> None:
    old = proxy(host("a", "/1", "/2"))
    new = copy.deepcopy(old)
    new["listeners"][0]["httpListener"]["virtualHosts"][0]["routes"][1]["nonsense"] = 1
    report = Report()

    message = decode(gloo.Proxy, reuse(new, old, decoded(old)), report)

    assert message is None
    (error,) = report.errors
    assert error.path == "listeners[0].httpListener.virtualHosts[0].routes[1].nonsense"


@pytest.mark.parametrize(
    "strange", [None, 5, "text", [], {}, [1], {"virtualHosts": 5}, {"virtualHosts": [5]}]
)
def test_shapes_that_make_no_sense_are_left_to_the_decoder(strange: Any) -> None:
    old = proxy(host("a", "/1"))
    new = copy.deepcopy(old)
    new["listeners"][0]["httpListener"] = strange
    direct, reused = Report(), Report()

    expected = decode(gloo.Proxy, new, direct)

    assert decode(gloo.Proxy, reuse(new, old, decoded(old)), reused) == expected
    assert reused == direct


HOSTS = st.lists(
    st.builds(
        lambda name, paths, cors: host(
            name, *paths, **({"options": {"cors": {"maxAge": cors}}} if cors else {})
        ),
        st.sampled_from("abc"),
        st.lists(st.sampled_from(["/1", "/2", "/3"]), max_size=4),
        st.sampled_from(["", "1", "2"]),
    ),
    max_size=5,
)


@given(HOSTS, HOSTS)
@settings(max_examples=150, deadline=None)
def test_reusing_never_changes_the_result(old: list[Document], new: list[Document]) -> None:
    before = decoded(proxy(*old))

    assert decoded(reuse(proxy(*new), proxy(*old), before)) == decoded(proxy(*new))
    assert before == decoded(proxy(*old))
