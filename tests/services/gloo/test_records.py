"""Records come back from Consul as they were, and stay small."""

from __future__ import annotations

from random import Random

from services.gloo.quarantine.held import Place, Version
from services.gloo.records import MOST_STAND_IN, Record, carried, pack, unpack
from services.gloo.resources import CLUSTER


def test_a_record_comes_back_as_it_was() -> None:
    version = Version(Place("gloo-system~gateway-proxy", CLUSTER, "web"), "", 7)
    for good in (None, b"", b"good" * 100):
        record = Record(version=version, good=good, node="n", text="é", since=1.5, owner="a:1", accepted=True)
        assert unpack(pack(record)) == record


def test_a_stand_in_that_does_not_fit_is_not_carried() -> None:
    assert carried(Random(1).randbytes(2 * MOST_STAND_IN)) is None
    assert carried(b"x" * 10 * MOST_STAND_IN) == b"x" * 10 * MOST_STAND_IN
    assert carried(None) is None
