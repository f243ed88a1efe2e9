"""What the settings mean for gateway."""

from __future__ import annotations

from protos import gloo
from services.gateway.app import Plan
from services.gateway.translator.model import Rules
from shared.codec.decode import decode
from shared.report import Report


def plan(document: object) -> Plan:
    settings = decode(gloo.Settings, document, Report())
    assert settings is not None
    return Plan.of(settings, {})


def test_each_setting_counts() -> None:
    found = plan(
        {
            "consulKvSource": {"rootKey": "mine"},
            "discoveryNamespace": "edge",
            "watchNamespaces": ["pets"],
            "gateway": {
                "disableAutoGenGateways": True,
                "readGatewaysFromAllNamespaces": True,
                "alwaysSortRouteTableRoutes": True,
                "isolateVirtualHostsBySslConfig": True,
                "virtualServiceOptions": {"oneWayTls": True},
            },
        }
    )

    assert (found.root, found.namespace, found.namespaces) == ("mine", "edge", {"edge", "pets"})
    assert (found.make_defaults, found.gateway_namespaces) == (False, {"edge", "pets"})
    assert found.rules == Rules(sort_tables=True, one_way_tls=True, isolate_by_tls=True)


def test_nothing_has_to_be_set() -> None:
    found = plan({})

    assert (found.root, found.namespace, found.namespaces) == ("gloo", "gloo-system", frozenset())
    assert (found.make_defaults, found.gateway_namespaces) == (True, {"gloo-system"})
    assert found.rules == Rules()
    assert plan({"watchNamespaces": ["pets", "*"]}).namespaces == frozenset()
