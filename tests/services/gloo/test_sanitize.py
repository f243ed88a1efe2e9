"""What is served in place of something broken."""

from __future__ import annotations

from protos import gloo
from protos.envoy import cluster, hcm, listener, route
from services.gloo.plugin import Policy
from services.gloo.resources import resource
from services.gloo.sanitize import choose_host, choose_resource, fallback_resources, has_errors
from services.gloo.translator.virtual_host import TranslatedHost, translate_virtual_host
from shared.codec.decode import decode
from shared.ref import Ref, Source
from shared.report import Problem, Report

OWNER = Source("Proxy", Ref("ns", "p"))


def translate(*matchers: dict[str, str]) -> TranslatedHost:
    routes = [{"matchers": [each], "directResponseAction": {"status": 200}} for each in matchers]
    host = decode(gloo.VirtualHost, {"name": "h", "routes": routes}, Report())
    assert host is not None
    return translate_virtual_host(host, "h", OWNER, lambda kind, ref: None, Policy())


def test_a_good_version_is_served() -> None:
    new = translate({"prefix": "/new"})

    assert choose_host(new, translate({"prefix": "/old"})) is new


def test_a_broken_version_gives_way_to_the_last_good_one_and_is_still_reported() -> None:
    new, old = translate({"prefix": "/new"}, {"regex": "("}), translate({"prefix": "/old"})

    chosen = choose_host(new, old)

    assert chosen.body == old.body
    assert chosen.reports == new.reports
    assert chosen.broken


def test_a_broken_version_without_a_good_one_is_served_without_its_broken_routes() -> None:
    new = translate({"prefix": "/new"}, {"regex": "("})

    assert choose_host(new, None).body == translate({"prefix": "/new"}).body


def test_resources_are_chosen_alike() -> None:
    new, old = resource("a", b"new"), resource("a", b"old")

    assert choose_resource(new, False, old) is new
    assert choose_resource(None, True, old) is old
    assert choose_resource(None, True, None) is None
    assert choose_resource(None, False, old) is None


def test_warnings_are_no_errors() -> None:
    assert not has_errors(Report(warnings=[Problem("", "x")]))
    assert has_errors({OWNER: Report(errors=[Problem("", "x")])})


def test_the_fallback_answers_as_the_settings_say() -> None:
    policy = Policy(invalid_route_code=418, invalid_route_body="x" * 5000)

    made, serving, routes = fallback_resources(policy)

    member = cluster.Cluster.parse(made.body)
    manager = hcm.HttpConnectionManager.parse(
        listener.Listener.parse(serving.body).filter_chains[0].filters[0].typed_config.value  # type: ignore[union-attr]
    )
    assert manager.rds is not None
    assert manager.rds.route_config_name == routes.name
    configuration = route.RouteConfiguration.parse(routes.body)
    answer = configuration.virtual_hosts[0].routes[0].direct_response
    assert answer is not None
    assert answer.status == 418
    assert configuration.max_direct_response_body_size_bytes == 5000
    assert member.name == "fallback_cluster_for_invalid_routes"


def test_a_code_that_is_none_falls_back_to_404() -> None:
    invalid = gloo.GlooOptionsInvalidConfigPolicy(replace_invalid_routes=True, invalid_route_response_code=7)

    policy = Policy.of(gloo.Settings(gloo=gloo.GlooOptions(invalid_config_policy=invalid)))

    assert policy.invalid_route_code == 404
    assert policy.replace_invalid_routes
