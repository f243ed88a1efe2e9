"""Whatever is put in: either valid resources, the same every time, or an error with a path."""

from __future__ import annotations

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration

from protos import gloo
from services.gloo.plugin import Policy
from services.gloo.translator.virtual_host import TranslatedHost, translate_virtual_host
from shared.codec.decode import decode
from shared.ref import Ref, Source
from shared.report import Report
from tests.support.golden import translate_world
from tests.support.random_documents import random_case

GOOGLES = {
    "routes": RouteConfiguration,
    "clusters": Cluster,
    "listeners": Listener,
    "endpoints": ClusterLoadAssignment,
}
OWNER = Source("Proxy", Ref("ns", "p"))


@pytest.mark.parametrize("block", range(6))
def test_any_document_gives_valid_resources_or_errors_with_a_path(block: int) -> None:
    decoded = 0
    for seed in range(block * 25, block * 25 + 25):
        case = random_case(seed)
        try:
            resources, reports = translate_world(case)
        except AssertionError:
            continue  # not even decodable: the codec's business
        decoded += 1
        for part, members in resources.items():
            for each in members:
                parsed = GOOGLES[part].FromString(each.body)
                assert parsed.SerializeToString(deterministic=True) == each.body
        for report in reports.values():
            assert all(problem.path or "no " in problem.text for problem in report.errors)
        again, _ = translate_world(case)
        assert again == resources
    assert decoded > 20


@pytest.mark.parametrize("seed", range(40))
def test_what_is_taken_from_the_previous_translation_is_what_would_be_made_anew(seed: int) -> None:
    one, other = (host_of(random_case(each)) for each in (seed, seed + 1000))
    if one is None or other is None:
        return
    routes = [*one.routes[:1], *other.routes]
    mixed = gloo.VirtualHost(name=one.name, domains=one.domains, routes=routes, options=other.options)
    upstream = gloo.Upstream()
    before = translate(one, upstream)

    after = translate(mixed, upstream, before)

    assert after == translate(mixed, upstream)


def host_of(case: dict[str, object]) -> gloo.VirtualHost | None:
    return decode(gloo.VirtualHost, case["virtualHost"], Report())


def translate(
    host: gloo.VirtualHost, upstream: object, previous: TranslatedHost | None = None
) -> TranslatedHost:
    return translate_virtual_host(
        host,
        "h",
        OWNER,
        lambda kind, ref: upstream if kind == "Upstream" else None,
        Policy(),
        previous=previous,
    )
