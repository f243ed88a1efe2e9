"""Envoys as a table."""

from __future__ import annotations

from typing import Any

from glooctl import envoys

LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"


def client(**fields: Any) -> dict[str, Any]:
    known = {"node": "edge-1", "role": "gloo-system~gateway-proxy", "gloo": "a", "problem": ""}
    return {**known, "types": {LISTENER: told()}, **fields}


def told(**fields: Any) -> dict[str, Any]:
    return {
        "versionSent": "b",
        "versionAcked": "a",
        "lag": 1,
        "subscribed": ["*"],
        "lastRefusal": None,
        **fields,
    }


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[0] == "|"]


def test_each_type_is_a_row_and_the_envoy_is_named_once() -> None:
    cluster = LISTENER.replace("listener.v3.Listener", "cluster.v3.Cluster")
    shown = envoys.table([client(types={cluster: told(), LISTENER: told()})])

    assert rows(shown)[1:] == [
        ["edge-1", "gloo-system~gateway-proxy", "a", "CDS", "b", "a", "1", ""],
        ["", "", "", "LDS", "b", "a", "1", ""],
    ]


def test_a_refusal_says_when_what_whose_and_why() -> None:
    refusal = {
        "message": "bad port",
        "secondsAgo": 61.2,
        "resources": ["listener-1"],
        "objects": ["Gateway gloo-system.gw"],
    }

    shown = envoys.refusal_text(refusal)

    assert shown == "1m ago: listener-1 of Gateway gloo-system.gw: bad port"
    assert envoys.refusal_text({"message": "x", "secondsAgo": 3}) == "3s ago: (still finding out which): x"


def test_who_is_not_served_is_listed_with_the_reason() -> None:
    shown = envoys.table([client(node="", role="", types={}, problem="node.metadata.role is missing")])
    away = envoys.clients_of(
        {"turned_away": [{"node": "n", "role": "r", "problem": "no certificate", "times": 3}]}, "a"
    )

    assert rows(shown)[1] == [
        "(unnamed)",
        "(none)",
        "a",
        "",
        "",
        "",
        "",
        "not served: node.metadata.role is missing",
    ]
    assert "not served: turned away 3 times: no certificate" in envoys.table(away)


def test_who_fails_at_tls_is_listed_by_its_address() -> None:
    problem = "the TLS handshake with 10.0.0.7 failed: it shows no certificate"
    away = envoys.clients_of({"turned_away": [{"node": "", "role": "", "problem": problem, "times": 2}]}, "a")

    shown = " ".join(cell for row in rows(envoys.table(away)) for cell in row)

    assert "(unnamed) (none)" in shown
    for words in ("turned away 2 times", "10.0.0.7", "it shows no certificate"):
        assert words in " ".join(shown.split())


def test_an_envoy_is_found_by_role_proxy_or_node() -> None:
    found = [
        envoys.is_meant(client(), word)
        for word in ("", "gloo-system~gateway-proxy", "gateway-proxy", "edge-1")
    ]

    assert all(found)
    assert not envoys.is_meant(client(), "edge")


def test_wide_tells_where_and_since_when() -> None:
    shown = envoys.table([client(address="1.2.3.4:5", mode="delta", connectedSince="noon")], wide=True)

    assert rows(shown)[1][8:] == ["1.2.3.4:5", "delta", "noon", "*"]
