from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from services.gloo.endpoints.rows import Health, InstanceKey, Listing, list_datacenter, list_services
from services.gloo.endpoints.table import Endpoint, EndpointTable, is_ip

Row = dict[str, Any]


def node(name: str = "n1", address: str = "10.0.0.1", version: int = 1) -> Row:
    return {"Node": name, "Address": address, "ModifyIndex": version}


def service(id: str = "web-1", name: str = "web", *, version: int = 1, **more: Any) -> Row:
    given = {"Address": "", "Port": 80, "Tags": [], "Weights": {"Passing": 1, "Warning": 1}}
    return {"ID": id, "Service": name, "ModifyIndex": version, **given, **more}


def check(
    id: str = "c1",
    status: str = "passing",
    *,
    of: str = "web-1",
    name: str = "web",
    node: str = "n1",
    version: int = 1,
) -> Row:
    return {
        "Node": node,
        "CheckID": id,
        "Status": status,
        "ServiceID": of,
        "ServiceName": name if of else "",
        "ModifyIndex": version,
    }


def instance(service: Row, *checks: Row, node: Row | None = None) -> Row:
    return {"Node": node or NODE, "Service": service, "Checks": list(checks)}


NODE = node()


def table(*rows: Row, **options: Any) -> EndpointTable:
    """A table with *rows* of ``health/service`` in dc1."""
    made = EndpointTable(**options)
    learn(made, *rows)
    return made


def learn(table: EndpointTable, *rows: Row, names: Sequence[str] = (), dc: str = "dc1") -> set[str]:
    answers: dict[str, list[Row]] = {name: [] for name in names}
    for row in rows:
        answers.setdefault(row["Service"]["Service"], []).append(row)
    return table.apply(dc, list_services(answers))


def addresses(table: EndpointTable, name: str = "web", **filters: Any) -> list[str]:
    return [f"{each.address}:{each.port}" for each in table.endpoints(name, **filters)]


def test_an_instance_that_passes_serves_at_its_own_address_with_its_weight() -> None:
    web = service(Address="10.9.9.9", Tags=["b", "a"], Weights={"Passing": 5, "Warning": 2})

    there = table(instance(web, check())).endpoints("web")

    assert there == (
        Endpoint(
            datacenter="dc1",
            address="10.9.9.9",
            port=80,
            node="n1",
            instance_id="web-1",
            weight=5,
            tags=("a", "b"),
            health=Health.PASSING,
        ),
    )


def test_an_instance_without_an_address_has_its_nodes_and_one_without_checks_serves() -> None:
    assert addresses(table(instance(service()))) == ["10.0.0.1:80"]


def test_an_instance_without_a_port_is_nowhere_to_go() -> None:
    assert addresses(table(instance(service(Port=0)))) == []


@pytest.mark.parametrize(
    ("checks", "health"),
    [
        ([check(status="critical")], Health.CRITICAL),
        ([check(), check("c2", "critical")], Health.CRITICAL),
        ([check(status="warning")], Health.WARNING),
        ([check(), check("serfHealth", "critical", of="")], Health.CRITICAL),
        ([check("_service_maintenance:web-1", "critical")], Health.MAINTENANCE),
        ([check("_node_maintenance", "critical", of="")], Health.MAINTENANCE),
        ([check(status="something new")], Health.CRITICAL),
    ],
)
def test_an_instance_is_as_its_worst_check_and_only_a_passing_one_serves(
    checks: list[Row], health: Health
) -> None:
    web = table(instance(service(), *checks))

    assert [each.health for each in web.known("web")] == [health]
    assert addresses(web) == []


def test_warning_serves_by_choice_with_its_own_weight() -> None:
    rows = [
        instance(service(Weights={"Passing": 5, "Warning": 2}), check(status="warning")),
        instance(service("web-2", Weights={"Passing": 5, "Warning": 0}), check(of="web-2", status="warning")),
    ]

    assert [each.weight for each in table(*rows, serve_warning=True).endpoints("web")] == [2]


def test_when_every_instance_fails_all_but_those_in_maintenance_serve_by_choice() -> None:
    rows = [
        instance(service(), check(status="critical")),
        instance(service("web-2", Port=81), check("_service_maintenance:web-2", "critical", of="web-2")),
    ]

    assert addresses(table(*rows)) == []
    assert addresses(table(*rows, serve_failing=True)) == ["10.0.0.1:80"]


def test_endpoints_are_filtered_by_datacenter_and_tags_and_sorted() -> None:
    web = table(
        instance(service("c", Port=3, Tags=["v1", "old"])),
        instance(service("a", Port=1, Tags=["v1"])),
        instance(service("b", Port=2, Tags=["v2"])),
    )
    learn(web, instance(service("far", Port=9, Tags=["v1"])), dc="dc2")

    assert addresses(web) == [f"10.0.0.1:{port}" for port in (1, 2, 3, 9)]
    assert addresses(web, datacenters=["dc2"]) == ["10.0.0.1:9"]
    assert addresses(web, instance_tags=["v1"], datacenters=["dc1"]) == ["10.0.0.1:1", "10.0.0.1:3"]
    assert addresses(web, instance_tags=["v1", "old"]) == ["10.0.0.1:3"]
    assert addresses(web, blacklist_tags=["old", "v2"]) == ["10.0.0.1:1", "10.0.0.1:9"]


def test_a_listing_replaces_what_was_known_of_its_services_alone() -> None:
    web = table(instance(service()), instance(service("api-1", "api")))

    changed = learn(web, instance(service("web-2", Port=81)))

    assert changed == {"web"}
    assert addresses(web) == ["10.0.0.1:81"]
    assert addresses(web, "api") == ["10.0.0.1:80"]


def test_an_equal_listing_is_not_a_change() -> None:
    web = table(instance(service(), check()))

    assert learn(web, instance(service(version=9), check(version=9))) == set()


def test_a_service_that_is_gone_leaves_nothing() -> None:
    web = table(instance(service(), check()))

    assert learn(web, names=["web"]) == {"web"}
    assert web.services() == set()
    assert web.size("dc1") == 0


def test_rows_of_a_name_in_other_letters_are_not_its_own() -> None:
    made = EndpointTable()

    made.apply("dc1", list_services({"web": [instance(service()), instance(service("W", "Web", Port=1))]}))

    assert addresses(made) == ["10.0.0.1:80"]
    assert addresses(made, "Web") == []


def test_a_datacenters_listing_is_the_whole_truth() -> None:
    web = table(instance(service(), check()), instance(service("old", "old")))
    listing = list_datacenter(
        [node(), node("n2", "10.0.0.2")],
        {
            "n1": {"Services": {"web-1": service()}},
            "n2": {"Services": {"web-2": service("web-2")}},
            "n3": None,
        },
        [check(status="critical", version=2), check("serfHealth", of="", node="n2")],
    )

    changed = web.apply("dc1", listing)

    assert changed == {"web", "old"}
    assert addresses(web) == ["10.0.0.2:80"]
    assert web.nodes("dc1") == ["n1", "n2"]


def test_what_is_kept_stays_as_it_was() -> None:
    web = table(instance(service(), check(status="critical")), instance(service("web-2", Port=81)))
    listing = list_datacenter([], {}, [])
    gone = web.gone("dc1", listing)

    assert gone == {InstanceKey("n1", "web-1"), InstanceKey("n1", "web-2")}
    assert web.apply("dc1", listing, keep=gone) == set()
    assert addresses(web) == ["10.0.0.1:81"]
    assert web.apply("dc1", listing) == {"web"}
    assert web.nodes("dc1") == []


def test_an_instance_that_takes_another_name_leaves_the_first() -> None:
    web = table(instance(service()))

    assert learn(web, instance(service(name="shop"))) == {"web", "shop"}
    assert addresses(web) == []
    assert addresses(web, "shop") == ["10.0.0.1:80"]


# What the long polls bring


def test_a_check_that_changes_is_taken_over_without_asking() -> None:
    web = table(instance(service(), check()))

    observed = web.observe_checks("dc1", [check(status="critical", version=2)])

    assert (observed.changed, observed.doubtful) == ({"web"}, set())
    assert addresses(web) == []


def test_a_check_whose_output_alone_changes_is_no_change() -> None:
    web = table(instance(service(), check()))

    observed = web.observe_checks("dc1", [check(version=2)])

    assert not observed.changed
    assert not observed.doubtful


def test_a_check_of_a_node_concerns_all_that_runs_there() -> None:
    web = table(
        instance(service(), check("serfHealth", of="")),
        instance(service("api-1", "api"), check("serfHealth", of="")),
        instance(service("web-2"), node=node("n2", "10.0.0.2")),
    )

    observed = web.observe_checks("dc1", [check("serfHealth", "critical", of="", version=2)])

    assert observed.changed == {"web", "api"}
    assert addresses(web) == ["10.0.0.2:80"]


def test_a_check_of_an_instance_not_heard_of_asks_for_its_service_and_is_there_when_it_comes() -> None:
    web = EndpointTable()

    observed = web.observe_checks("dc1", [check(status="critical")])
    repeated = web.observe_checks("dc1", [check(status="critical")])

    assert (observed.changed, observed.doubtful) == (set(), {"web"})
    assert not repeated.doubtful
    assert learn(web, instance(service(), check(status="critical"))) == {"web"}
    assert addresses(web) == []


def test_a_check_that_vanishes_is_not_believed_before_its_service_is_read() -> None:
    web = table(instance(service(), check(status="critical"), check("serfHealth", of="")))

    observed = web.observe_checks("dc1", [check("serfHealth", of="")])

    assert (observed.changed, observed.doubtful) == (set(), {"web"})
    assert addresses(web) == []
    assert learn(web, instance(service(), check("serfHealth", of=""))) == {"web"}
    assert addresses(web) == ["10.0.0.1:80"]


def test_late_news_of_a_check_are_doubted() -> None:
    web = table(instance(service(), check(status="critical", version=5)))

    observed = web.observe_checks("dc1", [check(version=4)])

    assert (observed.changed, observed.doubtful) == (set(), {"web"})
    assert addresses(web) == []


def test_what_was_observed_while_a_listing_was_read_is_newer_than_it() -> None:
    web = table(instance(service(), check()))

    web.begin("dc1")
    web.observe_checks("dc1", [check(status="critical", version=2)])
    learn(web, instance(service(), check()))

    assert addresses(web) == []
    web.begin("dc1")
    learn(web, instance(service(), check()))
    assert addresses(web) == ["10.0.0.1:80"]


def test_checks_of_nothing_that_we_know_are_forgotten_when_they_vanish() -> None:
    web = EndpointTable()
    web.observe_checks("dc1", [check("a", of="", node="n9"), check("b", of="", node="n9")])

    observed = web.observe_checks("dc1", [check("b", of="", node="n9")])

    assert not observed.doubtful
    assert not web.observe_checks("dc1", []).doubtful


def test_a_nodes_new_address_moves_the_instances_that_have_none() -> None:
    web = table(instance(service()), instance(service("api-1", "api", Address="10.5.5.5")))

    observed = web.observe_nodes("dc1", [node(address="10.0.0.7", version=2), node("n2")])

    assert (observed.changed, observed.doubtful, observed.new_nodes) == ({"web"}, set(), {"n2"})
    assert addresses(web) == ["10.0.0.7:80"]


def test_a_node_that_vanishes_is_not_believed_while_something_runs_there() -> None:
    web = table(instance(service()))
    web.observe_nodes("dc1", [node(), node("n2")])

    observed = web.observe_nodes("dc1", [])

    assert observed.doubtful == {"web"}
    assert web.nodes("dc1") == ["n1"]


def test_late_news_of_a_node_are_doubted() -> None:
    web = table(instance(service(), node=node(version=5)))

    observed = web.observe_nodes("dc1", [node(address="10.0.0.9", version=4)])

    assert (observed.changed, observed.doubtful) == (set(), {"web"})


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        ({"web-1": service()}, set()),
        ({"web-1": service(version=2)}, {"web"}),
        ({}, {"web"}),
        ({"web-1": service(), "api-1": service("api-1", "api")}, {"api"}),
        ({"web-1": service(name="shop", version=2)}, {"web", "shop"}),
    ],
)
def test_a_sweep_finds_the_services_that_differ(listed: Mapping[str, Row], names: set[str]) -> None:
    web = table(instance(service()))

    assert web.differing("dc1", "n1", {"Services": listed}) == names


def test_a_sweep_of_a_node_that_is_gone_finds_all_that_ran_there() -> None:
    assert table(instance(service())).differing("dc1", "n1", None) == {"web"}


def test_a_datacenter_that_is_left_takes_its_endpoints_along() -> None:
    web = table(instance(service()))
    learn(web, instance(service("far", Port=9)), dc="dc2")

    assert web.drop_datacenter("dc2") == {"web"}
    assert addresses(web) == ["10.0.0.1:80"]


# Host names


def test_a_host_name_serves_with_every_address_it_has_once_they_are_known() -> None:
    web = table(instance(service(Address="web.example", Tags=["a"]), check()))

    assert web.hostnames() == {"web.example"}
    assert addresses(web) == []
    assert web.resolved("web.example", ["10.0.0.9", "10.0.0.8"]) == {"web"}
    assert web.resolved("web.example", ["10.0.0.8", "10.0.0.9"]) == set()
    assert addresses(web) == ["10.0.0.8:80", "10.0.0.9:80"]
    assert {each.hostname for each in web.endpoints("web")} == {"web.example"}


def test_a_host_name_nobody_has_any_more_is_not_asked_for() -> None:
    web = table(instance(service(Address="web.example")))
    web.resolved("web.example", ["10.0.0.9"])

    learn(web, instance(service(Address="10.0.0.1")))

    assert web.hostnames() == frozenset()


@pytest.mark.parametrize(
    ("text", "is_address"),
    [
        ("10.0.0.1", True),
        ("::1", True),
        ("web", False),
        ("10.0.0", False),
        ("fe80::g", False),
        ("a\0b", False),
    ],
)
def test_an_address_is_told_from_a_name(text: str, is_address: bool) -> None:
    assert is_ip(text) is is_address


def test_a_listing_of_nothing_names_nothing() -> None:
    assert list_services({}) == Listing(services=frozenset(), nodes={}, instances={}, checks={})
