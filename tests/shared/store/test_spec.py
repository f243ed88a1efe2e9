"""Which version of an object a status speaks of."""

from __future__ import annotations

from shared.codec.text import parse, set_status
from shared.store.spec import fingerprint, observed, spec_of, status_in

YAML = b"""
# the shop
metadata: {name: shop, namespace: gloo-system}
virtualHost:
  domains: [a.com, "10"]   # ten
"""
JSON = b"""{"virtualHost": {"domains": ["a.com", "10"]},
  "metadata": {"namespace": "gloo-system", "name": "shop", "resourceVersion": "7"}}"""


def test_the_same_object_has_one_fingerprint_however_it_is_spelt() -> None:
    with_status = set_status(YAML, {"state": "Accepted", "details": {"observed": "x"}})

    assert len({fingerprint(spec_of(parse(raw))) for raw in (YAML, JSON, with_status)}) == 1


def test_an_edit_has_another_fingerprint() -> None:
    edited = YAML.replace(b'"10"', b'"11"')

    assert fingerprint(spec_of(parse(YAML))) != fingerprint(spec_of(parse(edited)))


def test_a_status_of_any_shape_is_asked_what_it_speaks_of() -> None:
    assert observed({"details": {"observed": "ab"}}) == "ab"
    assert observed({}) == observed({"details": "x"}) == observed({"details": {"observed": None}}) == ""


def test_of_namespaced_statuses_ours_counts() -> None:
    document = {"namespacedStatuses": {"statuses": {"a": {"state": "Accepted"}, "b": {}}}}

    assert status_in(document, "a") == {"state": "Accepted"}
    assert status_in(document, "c") == {}
