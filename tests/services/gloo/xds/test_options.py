"""The limits as settings give them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from protos import gloo
from services.gloo.xds.options import DEFAULTS, Options
from shared.codec.decode import decode
from shared.errors import InvalidSettings
from shared.report import Report


def settings(**given: object) -> gloo.Settings:
    return gloo.Settings(gloo=gloo.GlooOptions(xds=gloo.XdsOptions(**given)))  # type: ignore[arg-type]


@pytest.mark.parametrize("unset", [None, gloo.Settings(), settings()])
def test_what_is_unset_has_its_default(unset: gloo.Settings | None) -> None:
    assert Options.of(unset) == DEFAULTS


def test_what_is_set_counts() -> None:
    options = Options.of(settings(max_streams=7, removal_grace=timedelta(0), keepalive=timedelta(minutes=1)))

    assert (options.max_streams, options.removal_grace, options.keepalive) == (7, 0, 60)
    assert options.max_names == DEFAULTS.max_names


def test_every_setting_is_an_option() -> None:
    counts = ["maxStreams", "maxStreamsPerConnection", "maxNames", "maxMessageBytes", "maxRequestsPerSecond"]
    counts += ["maxAdmissions", "maxNamesInAll"]
    times = ["ackDeadline", "removalGrace", "refusalRetry", "sendTimeout", "keepalive"]
    given = {name: i for i, name in enumerate(counts, 1)} | {name: f"{i}s" for i, name in enumerate(times, 8)}
    decoded = decode(gloo.XdsOptions, given, Report())
    assert decoded is not None
    options = Options.of(gloo.Settings(gloo=gloo.GlooOptions(xds=decoded)))

    names = {name for name in gloo.XdsOptions.__dataclass_fields__ if not name.startswith("_")} - {"tls"}
    assert sorted(getattr(options, name) for name in names) == list(range(1, 13))


@pytest.mark.parametrize("given", [{"max_streams": 0}, {"ack_deadline": timedelta(seconds=-1)}])
def test_nonsense_is_refused_by_its_path(given: dict[str, object]) -> None:
    with pytest.raises(InvalidSettings, match=r"settings.gloo.xds.(maxStreams|ackDeadline): .* is too small"):
        Options.of(settings(**given))
