import re
from collections.abc import Iterable, Mapping

import pytest

from protos import gloo
from services.discovery.upstreams import consul
from services.discovery.upstreams.consul import Candidate, Catalog, Rules, TlsTagging, Wanted, sanitise
from shared.errors import InvalidSettings
from shared.incremental.units import at_once
from shared.ref import Ref
from shared.store.keys import check_ref

RULES = Rules(namespace="gloo-system")
NO_OWNERS: dict[str, str] = {}


def wanted_upstreams(catalog: Catalog, rules: Rules, owners: Mapping[str, str]) -> dict[Ref, Wanted]:
    return at_once(consul.wanted_upstreams(catalog, rules, owners))


def assign_names(candidates: Iterable[Candidate], owners: Mapping[str, str]) -> dict[Candidate, str]:
    return at_once(consul.assign_names(candidates, owners))


def test_every_service_becomes_an_upstream_with_its_tags_and_datacenters() -> None:
    catalog = {"dc2": {"petstore": ["b"]}, "dc1": {"petstore": ["c", "a"], "consul": []}}

    wanted = wanted_upstreams(catalog, RULES, NO_OWNERS)

    assert [upstream.document() for _, upstream in sorted(wanted.items())] == [
        {
            "metadata": {
                "name": "consul",
                "namespace": "gloo-system",
                "labels": {"discovered_by": "consulplugin"},
            },
            "consul": {"serviceName": "consul", "dataCenters": ["dc1"]},
        },
        {
            "metadata": {
                "name": "petstore",
                "namespace": "gloo-system",
                "labels": {"discovered_by": "consulplugin"},
            },
            "consul": {
                "serviceName": "petstore",
                "serviceTags": ["a", "b", "c"],
                "dataCenters": ["dc1", "dc2"],
            },
        },
    ]


@pytest.mark.parametrize(
    ("service", "name"),
    [
        ("petstore", "petstore"),
        ("PetStore", "petstore"),
        ("pet_store", "pet-store"),
        ("pet store/v2", "pet-store-v2"),
        ("-pet-", "pet"),
        ("a.b", "a.b"),
        ("a._b_..c.", "a.b.c"),
    ],
)
def test_a_name_becomes_one_that_an_object_may_have(service: str, name: str) -> None:
    assert sanitise(service) == name


@pytest.mark.parametrize("service", ["___", "日本", "x" * 300, "a." * 200, "", "é" * 260])
def test_a_name_without_letters_or_too_long_gets_a_suffix_of_its_own(service: str) -> None:
    check_ref(Ref("gloo-system", sanitise(service)))

    assert re.search(r"-[0-9a-f]{8}$", sanitise(service))
    assert sanitise(service) != sanitise(service + "_")


def test_of_two_services_with_one_name_the_one_spelt_like_it_has_it() -> None:
    names = assign_names([("my_svc", "my_svc"), ("my-svc", "my-svc"), ("My-Svc", "My-Svc")], NO_OWNERS)

    assert names["my-svc", "my-svc"] == "my-svc"
    assert names["my_svc", "my_svc"].startswith("my-svc-")
    assert len(set(names.values())) == 3


def test_a_service_keeps_the_name_that_it_has_when_another_comes() -> None:
    both = [("my_svc", "my_svc"), ("my-svc", "my-svc")]

    names = assign_names(both, {"my-svc": "my_svc"})
    alone = assign_names(both[1:], {names["my-svc", "my-svc"]: "my-svc"})

    assert names["my_svc", "my_svc"] == "my-svc"
    assert alone["my-svc", "my-svc"] == names["my-svc", "my-svc"] != "my-svc"


def test_only_services_with_a_listed_tag_are_discovered() -> None:
    rules = Rules(namespace="ns", tags_allowed=frozenset({"public", "edge"}))

    wanted = wanted_upstreams({"dc1": {"a": ["edge", "x"], "b": ["x"], "c": []}}, rules, NO_OWNERS)

    assert list(wanted) == [Ref("ns", "a")]


def test_watch_labels_are_looked_for_among_the_tags() -> None:
    rules = Rules(namespace="ns", labels={"team": "blue", "public": ""})
    catalog = {"dc1": {"a": ["team=blue", "public"], "b": ["team=red", "public"], "c": ["team=blue"]}}

    assert list(wanted_upstreams(catalog, rules, NO_OWNERS)) == [Ref("ns", "a")]


def test_a_service_tagged_for_tls_becomes_a_secure_upstream_alone() -> None:
    tls = TlsTagging(tag="tls", root_ca=Ref("ns", "ca"), split=False)

    wanted = wanted_upstreams({"dc1": {"a": ["tls"], "b": []}}, Rules(namespace="ns", tls=tls), NO_OWNERS)

    assert set(wanted) == {Ref("ns", "a-tls"), Ref("ns", "b")}
    secure = wanted[Ref("ns", "a-tls")].document()
    assert secure["sslConfig"] == {"secretRef": {"name": "ca", "namespace": "ns"}}
    assert "instanceTags" not in secure["consul"]


def test_a_split_service_becomes_two_upstreams_that_share_no_instance() -> None:
    tls = TlsTagging(tag="tls", root_ca=Ref("ns", "ca"), split=True)

    wanted = wanted_upstreams({"dc1": {"a": ["tls", "x"]}}, Rules(namespace="ns", tls=tls), NO_OWNERS)

    assert wanted[Ref("ns", "a-tls")].document()["consul"]["instanceTags"] == ["tls"]
    plain = wanted[Ref("ns", "a")].document()
    assert plain["consul"]["instanceBlacklistTags"] == ["tls"]
    assert "sslConfig" not in plain


def test_a_tls_upstream_and_a_service_of_its_name_are_kept_apart() -> None:
    tls = TlsTagging(tag="tls", root_ca=Ref("ns", "ca"), split=False)
    catalog = {"dc1": {"a": ["tls"], "a-tls": []}}

    wanted = wanted_upstreams(catalog, Rules(namespace="ns", tls=tls), NO_OWNERS)

    assert wanted[Ref("ns", "a-tls")].service == "a-tls"
    assert sorted(upstream.service for upstream in wanted.values()) == ["a", "a-tls"]


def test_the_rules_are_read_from_the_settings() -> None:
    settings = gloo.Settings(
        discovery_namespace="edge",
        discovery=gloo.SettingsDiscoveryOptions(
            uds_options=gloo.SettingsDiscoveryOptionsUdsOptions(watch_labels={"team": "blue"})
        ),
        consul_discovery=gloo.SettingsConsulUpstreamDiscoveryConfiguration(
            use_tls_tagging=True,
            split_tls_services=True,
            tls_tag_name="tls",
            root_ca=gloo.ResourceRef(name="ca", namespace="edge"),
            service_tags_allowlist=["public"],
        ),
        upstream_options=gloo.UpstreamOptions(global_annotations={"owner": "us"}),
    )

    assert Rules.of(settings) == Rules(
        namespace="edge",
        tags_allowed=frozenset({"public"}),
        labels={"team": "blue"},
        annotations={"owner": "us"},
        tls=TlsTagging(tag="tls", root_ca=Ref("edge", "ca"), split=True),
    )
    assert Rules.of(gloo.Settings()) == RULES


def test_tls_tagging_without_a_root_ca_is_a_mistake_in_the_settings() -> None:
    tagging = gloo.SettingsConsulUpstreamDiscoveryConfiguration(use_tls_tagging=True)

    with pytest.raises(InvalidSettings, match="rootCa"):
        Rules.of(gloo.Settings(consul_discovery=tagging))
