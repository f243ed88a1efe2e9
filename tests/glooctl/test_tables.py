"""Tables as glooctl draws them."""

from glooctl import tables

PETSTORE = {
    "metadata": {"name": "petstore", "namespace": "gloo-system"},
    "status": {"state": "Accepted", "reportedBy": "gloo"},
    "consul": {"serviceName": "petstore", "serviceTags": ["a", "b"]},
}


def test_upstreams_are_drawn_as_in_the_tour() -> None:
    consul = {
        "metadata": {"name": "consul"},
        "status": {"state": "Accepted"},
        "consul": {"serviceName": "consul"},
    }

    assert (
        tables.upstreams([consul, PETSTORE])
        == """\
+----------+--------+----------+--------------------+
| UPSTREAM |  TYPE  |  STATUS  |      DETAILS       |
+----------+--------+----------+--------------------+
| consul   | Consul | Accepted | svc name: consul   |
|          |        |          | svc tags: []       |
|          |        |          |                    |
| petstore | Consul | Accepted | svc name: petstore |
|          |        |          | svc tags: [a b]    |
|          |        |          |                    |
+----------+--------+----------+--------------------+"""
    )


def test_a_part_that_is_not_accepted_shows_below_the_state() -> None:
    document = {
        "status": {
            "state": "Accepted",
            "subresourceStatuses": {
                "*v1.Proxy.gloo-system.gateway-proxy": {"state": "Rejected", "reason": "no"}
            },
        }
    }

    assert tables.status_cell(document) == ["Accepted", "*v1.Proxy.gloo-system.gateway-proxy Rejected: no"]


def test_the_worst_of_several_controllers_statuses_is_shown() -> None:
    document = {"namespacedStatuses": {"statuses": {"a": {"state": "Accepted"}, "b": {"state": "Warning"}}}}

    assert tables.state(document) == "Warning"
    assert tables.state({}) == "Pending"


def test_destinations_in_words() -> None:
    upstream = {"single": {"upstream": {"name": "x", "namespace": "n"}}}
    cases = [
        ({"routeAction": upstream}, "n.x (upstream)"),
        ({"routeAction": {"single": {"consul": {"serviceName": "web"}}}}, "web (consul service)"),
        ({"routeAction": {"multi": {"destinations": [{}, {}]}}}, "2 destinations"),
        ({"routeAction": {"upstreamGroup": {"name": "g", "namespace": "n"}}}, "upstream group: g.n"),
        ({"redirectAction": {"hostRedirect": "example.com"}}, "example.com"),
        ({"directResponseAction": {"status": 418}}, "418"),
        ({"delegateAction": {"name": "t", "namespace": "n"}}, "n.t (route table)"),
        ({}, ""),
    ]

    assert [tables.destination_text(route) for route, _ in cases] == [text for _, text in cases]


def test_group_members_show_their_share() -> None:
    group = {
        "metadata": {"name": "g"},
        "destinations": [
            {"destination": {"upstream": {"name": "a", "namespace": "n"}}, "weight": 3},
            {"destination": {"consul": {"serviceName": "b"}}, "weight": 1},
        ],
    }

    drawn = tables.upstream_groups([group])

    assert "% total: 0.75" in drawn
    assert "% total: 0.25" in drawn
    assert "---  " in drawn


def test_long_cells_are_wrapped_at_spaces() -> None:
    drawn = tables.draw(["A"], [["word " * 20]])

    assert max(map(len, drawn.splitlines())) <= 34


def test_option_objects_are_drawn_with_the_names_of_their_options() -> None:
    quick = {
        "metadata": {"name": "quick"},
        "options": {"timeout": "1s", "retries": {}},
        "status": {"state": "Accepted", "details": {"usedBy": ["RouteTable ns.t"]}},
    }

    assert (
        tables.option_objects("ROUTE OPTION", [quick, {"metadata": {"name": "none"}}])
        == """\
+--------------+------------------+-----------------+----------+
| ROUTE OPTION |     OPTIONS      |     USED BY     |  STATUS  |
+--------------+------------------+-----------------+----------+
| quick        | timeout, retries | RouteTable ns.t | Accepted |
| none         |                  |                 | Pending  |
+--------------+------------------+-----------------+----------+"""
    )


def test_matchable_gateways_are_drawn_with_what_they_take() -> None:
    ranges = [{"addressPrefix": "10.0.0.0", "prefixLen": 8}, {"addressPrefix": "::"}]
    inside = {
        "metadata": {"name": "inside"},
        "matcher": {"sourcePrefixRanges": ranges},
        "status": {"state": "Accepted", "details": {"usedBy": ["Gateway ns.g"]}},
    }
    tls = {"metadata": {"name": "tls"}, "matcher": {"sslConfig": {}}, "status": {"state": "Warning"}}
    named = {"metadata": {"name": "named"}, "matcher": {"sslConfig": {"sniDomains": ["a", "b"]}}}

    assert (
        tables.matchable_gateways("HTTP GATEWAY", [inside, tls, named, {"metadata": {"name": "all"}}])
        == """\
+--------------+------+------------+--------------+----------+
| HTTP GATEWAY | TLS  |  SOURCES   |   USED BY    |  STATUS  |
+--------------+------+------------+--------------+----------+
| inside       |      | 10.0.0.0/8 | Gateway ns.g | Accepted |
|              |      | ::/0       |              |          |
| tls          | *    |            |              | Warning  |
| named        | a, b |            |              | Pending  |
| all          |      |            |              | Pending  |
+--------------+------+------------+--------------+----------+"""
    )


def test_all_virtual_hosts_of_a_proxy_are_counted() -> None:
    http = {"httpListener": {"virtualHosts": [{}, {}]}}
    hybrid = {"hybridListener": {"matchedListeners": [http, {"tcpListener": {}}, http]}}

    drawn = tables.proxies([{"metadata": {"name": "p"}, "listeners": [hybrid]}])
    assert "| 4             |" in drawn


def test_artifacts_are_drawn_with_the_sizes_of_their_texts() -> None:
    books = {"metadata": {"name": "books", "namespace": "ns"}, "data": {"books.pb": "CvQC", "readme": "x"}}

    assert (
        tables.artifacts([books, {"metadata": {"name": "empty"}}])
        == """\
+----------+--------------------+
| ARTIFACT |        DATA        |
+----------+--------------------+
| books    | books.pb (4 bytes) |
|          | readme (1 bytes)   |
| empty    | none               |
+----------+--------------------+"""
    )
    assert "| ns        |" in tables.artifacts([books], wide=True)
