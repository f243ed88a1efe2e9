from collections.abc import Mapping
from typing import Any, cast

from services.discovery.upstreams import reconcile as reconciling
from services.discovery.upstreams.consul import Wanted
from services.discovery.upstreams.reconcile import Create, Delete, Reconciled, Update, owned
from shared.codec import text
from shared.consul.ledger import LOST
from shared.incremental.units import at_once
from shared.ref import Ref
from shared.store.keys import UPSTREAM, key
from shared.store.objects import Stored, decode_value

NS = "gloo-system"
REF = Ref(NS, "petstore")


def wanted(
    name: str = "petstore", *, tags: tuple[str, ...] = (), dcs: tuple[str, ...] = ("dc1",), **more: Any
) -> Wanted:
    return Wanted(ref=Ref(NS, name), service=name, tags=tags, datacenters=dcs, **more)


def stored(raw: str | bytes, name: str = "petstore", index: int = 7) -> Stored:
    raw = raw.encode() if isinstance(raw, str) else raw
    there = decode_value("gloo", key("gloo", UPSTREAM, Ref(NS, name)), raw, index)
    assert there is not None
    return there


def reconcile(wanted: Mapping[Ref, Wanted], stored: Mapping[Ref, Stored], **more: Any) -> Reconciled:
    return at_once(reconciling.reconcile(wanted, stored, **more))


def by_ref(*all: Wanted) -> Mapping[Ref, Wanted]:
    return {one.ref: one for one in all}


DISCOVERED = """\
metadata:
  name: petstore
  namespace: gloo-system
  labels: {discovered_by: consulplugin, mine: too}   # a label of my own
consul:
  serviceName: petstore
  serviceTags: [a]
  dataCenters: [dc1]
useHttp2: true  # they speak it
status: {state: Accepted, reportedBy: gloo}
"""


def test_a_missing_upstream_is_created_as_yaml_for_people() -> None:
    result = reconcile(by_ref(wanted(tags=("a",))), {})

    (write,) = result.writes.values()
    assert isinstance(write, Create)
    assert (
        write.value
        == b"""\
consul:
  dataCenters:
  - dc1
  serviceName: petstore
  serviceTags:
  - a
metadata:
  labels:
    discovered_by: consulplugin
  name: petstore
  namespace: gloo-system
"""
    )
    assert not result.problems


def test_what_is_as_wanted_is_not_written() -> None:
    result = reconcile(by_ref(wanted(tags=("a",))), {REF: stored(DISCOVERED)})

    assert not result.writes


def test_what_we_create_is_what_we_want() -> None:
    all = by_ref(
        wanted(), wanted("b", tags=("no: x", "yes")), wanted("c", extras={("sslConfig",): {"sni": "x"}})
    )
    created = reconcile(all, {}).writes

    again = reconcile(
        all,
        {ref: stored(write.value, ref.name) for ref, write in created.items() if isinstance(write, Create)},
    )

    assert len(created) == 3
    assert not again.writes


def test_an_update_keeps_what_people_wrote() -> None:
    result = reconcile(by_ref(wanted(tags=("a", "b"), dcs=("dc1", "dc2"))), {REF: stored(DISCOVERED)})

    value = DISCOVERED.replace("[a]", "[a, b]").replace("[dc1]", "[dc1, dc2]").encode()
    write = result.writes[REF]
    assert isinstance(write, Update)
    assert (write.key, write.index, write.value) == (stored(DISCOVERED).key, 7, value)


def test_an_update_is_read_in_snake_case_too() -> None:
    raw = """\
metadata: {name: petstore, namespace: gloo-system, labels: {discovered_by: consulplugin}}
consul: {service_name: petstore, service_tags: [a], data_centers: [dc1]}
"""

    same = reconcile(by_ref(wanted(tags=("a",))), {REF: stored(raw)})
    other = reconcile(by_ref(wanted(tags=("b",))), {REF: stored(raw)})

    assert not same.writes
    write = other.writes[REF]
    assert isinstance(write, Update)
    assert write.value == raw.replace("[a]", "[b]").encode()


def test_a_users_own_upstream_is_never_touched() -> None:
    raw = "metadata: {name: petstore, namespace: gloo-system}\nstatic: {hosts: [{addr: h, port: 1}]}\n"

    clash = reconcile(by_ref(wanted()), {REF: stored(raw)})
    gone = reconcile({}, {REF: stored(raw)})

    assert not clash.writes
    assert "without the label" in clash.problems[REF]
    assert not gone.writes
    assert not gone.problems


def test_an_upstream_with_an_error_is_left_alone_and_costs_only_itself() -> None:
    broken = stored(DISCOVERED.replace("useHttp2", "useHtp2"))
    unreadable = stored(b"\xff\xfe", "other")

    result = reconcile(
        by_ref(wanted(tags=("b",)), wanted("other"), wanted("third")),
        {REF: broken, unreadable.ref: unreadable},
    )

    assert set(result.writes) == {Ref(NS, "third")}
    assert "useHtp2" in result.problems[REF]
    assert set(result.problems) == {REF, Ref(NS, "other")}
    assert not reconcile({}, {REF: broken, unreadable.ref: unreadable}).writes


def test_an_upstream_made_static_by_hand_is_left_alone() -> None:
    raw = """\
metadata: {name: petstore, namespace: gloo-system, labels: {discovered_by: consulplugin}}
static: {hosts: [{addr: h, port: 1}]}
"""

    assert not reconcile(by_ref(wanted()), {REF: stored(raw)}).writes
    assert "no Consul Upstream any more" in reconcile({}, {REF: stored(raw)}).problems[REF]


def test_an_upstream_whose_service_is_gone_is_deleted_at_the_version_seen() -> None:
    there = stored(DISCOVERED)

    assert reconcile({}, {REF: there}).writes == {REF: Delete(ref=REF, key=there.key, index=7)}


def test_what_is_filled_in_once_is_its_users_to_change() -> None:
    upstream = wanted(
        tags=("a",), extras={("sslConfig",): {"sni": "ours"}, ("metadata", "annotations", "k"): "v"}
    )

    filled = reconcile(by_ref(upstream), {REF: stored(DISCOVERED)}).writes[REF]
    assert isinstance(filled, Update)
    theirs = filled.value.replace(b"ours", b"theirs")

    assert text.parse(filled.value)["sslConfig"] == {"sni": "ours"}
    assert not reconcile(by_ref(upstream), {REF: stored(filled.value)}).writes
    assert not reconcile(by_ref(upstream), {REF: stored(theirs)}).writes


def test_a_datacenter_not_heard_of_yet_keeps_its_part() -> None:
    there = stored(DISCOVERED.replace("[dc1]", "[dc1, dc2]").replace("[a]", "[a, far]"))

    unheard = reconcile(by_ref(wanted(tags=("a",))), {REF: there}, unheard={"dc2"})
    heard = reconcile(by_ref(wanted(tags=("a",))), {REF: there})
    gone = reconcile({}, {REF: there}, unheard={"dc2"})

    assert not unheard.writes
    assert isinstance(heard.writes[REF], Update)
    assert not gone.writes


def test_the_discovered_ones_are_known_with_their_services() -> None:
    users = stored("metadata: {name: x, namespace: gloo-system}\nconsul: {serviceName: y}\n", "x")

    assert at_once(owned([stored(DISCOVERED), users])) == {"petstore": "petstore"}


def test_what_consul_has_lost_is_written_again_as_it_was_once_its_service_is_there() -> None:
    lost, other = stored(DISCOVERED), stored(DISCOVERED.replace("petstore", "other"), "other")

    result = reconcile(by_ref(wanted(tags=("a",))), {REF: lost, other.ref: other}, lost={REF, other.ref})

    (write,) = result.writes.values()
    assert isinstance(write, Create)
    assert write.value == DISCOVERED.encode()


def test_what_nobody_remembers_is_created_anew_and_what_is_no_discovered_one_is_left() -> None:
    forgotten, foreign = stored(LOST), stored("static: {hosts: []}", "mine")

    result = reconcile(
        by_ref(wanted(), wanted("mine")),
        {REF: forgotten, foreign.ref: foreign},
        lost={REF, foreign.ref},
    )

    assert list(result.writes) == [REF]
    assert b"serviceName: petstore" in cast("Create", result.writes[REF]).value
