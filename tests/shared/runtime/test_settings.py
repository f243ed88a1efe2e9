from __future__ import annotations

import os
from pathlib import Path

import pytest

from protos import gloo
from shared.errors import InvalidSettings
from shared.runtime.settings import LiveSettings, SettingsFile, load_settings, unused

GOOD = """
metadata: {name: default, namespace: gloo-system}
consulKvSource: {}
consul: {address: "consul:8500", serviceDiscovery: {}}
gloo: {xdsBindAddr: "0.0.0.0:9977"}
refreshRate: 15s
"""


def write(folder: Path, text: str, name: str = "default.yaml") -> SettingsFile:
    path = folder / "gloo-system" / name
    path.parent.mkdir(exist_ok=True)
    scratch = path.with_suffix(".new")
    scratch.write_text(text)
    os.replace(scratch, path)
    return SettingsFile(dir=folder)


def test_the_file_is_found_by_namespace_and_name(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "other.yaml")

    settings = load_settings(tmp_path, "gloo-system", "other")

    assert settings.gloo is not None
    assert settings.gloo.xds_bind_addr == "0.0.0.0:9977"
    assert settings.consul is not None
    assert settings.consul.service_discovery is not None


def test_yml_is_taken_too(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "default.yml")

    assert load_settings(tmp_path).consul is not None


def test_a_missing_file_says_where_it_should_be(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings) as caught:
        load_settings(tmp_path)

    assert str(caught.value).startswith(f"no settings file {tmp_path}/gloo-system/default.yaml; create it")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("consul: [1]", "consul: "),
        ("refreshRate: soon", "refreshRate: "),
        ("directoryConfigSource: {directory: /data}", "use consulKvSource"),
        ("kubernetesConfigSource: {}", "use consulKvSource"),
        ("consul: {address: {}}\ngateway: {disableAutoGenGateways: 7}", "consul.address: "),
        ("consul: {", "line "),
        ("- a", "default.yaml: "),
        ("", "empty"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_path(tmp_path: Path, text: str, words: str) -> None:
    file = write(tmp_path, text)

    with pytest.raises(InvalidSettings) as caught:
        file.read()

    assert words in str(caught.value)
    assert str(file.path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_in_the_file_s_place_is_an_error_too(tmp_path: Path) -> None:
    (tmp_path / "gloo-system" / "default.yaml").mkdir(parents=True)

    with pytest.raises(InvalidSettings, match="Is a directory"):
        load_settings(tmp_path)


def test_unknown_fields_are_warnings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    LiveSettings(write(tmp_path, GOOD + "bindAddr: 0.0.0.0:9977\n"))

    assert [record.message for record in caplog.records if "bindAddr" in record.message]


def test_fields_without_effect_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write(tmp_path, GOOD + "devMode: true\nknative: {clusterIngressProxyAddress: x}\n")
    settings = LiveSettings(file, {"consul", "gloo.xdsBindAddr", "consulKvSource", "refreshRate"})
    write(tmp_path, GOOD + "devMode: true\nknative: {clusterIngressProxyAddress: y}\n")
    settings.check()

    assert [record.message for record in caplog.records if "effect" in record.message] == [
        "settings.devMode: has no effect here",
        "settings.knative: has no effect here",
    ]


def test_unused_looks_into_sections_that_are_used_in_part() -> None:
    document = {"gloo": {"xdsBindAddr": "a", "disableGrpcWeb": True}, "consul": {"address": "b"}}

    assert list(unused(document, {"gloo.xdsBindAddr", "consul"})) == ["gloo.disableGrpcWeb"]


def test_a_change_is_taken_over_and_told(tmp_path: Path) -> None:
    settings = LiveSettings(write(tmp_path, GOOD))
    told: list[gloo.Settings] = []
    settings.on_change(told.append)

    write(tmp_path, GOOD.replace("9977", "9978"))

    assert settings.check() is True
    assert told == [settings.value]
    assert settings.value.gloo is not None
    assert settings.value.gloo.xds_bind_addr == "0.0.0.0:9978"
    assert settings.check() is False


def test_a_touched_but_equal_file_is_no_change(tmp_path: Path) -> None:
    settings = LiveSettings(write(tmp_path, GOOD))

    write(tmp_path, GOOD + "# a comment\n")

    assert settings.check() is False


@pytest.mark.parametrize("text", ["consul: [1]", "{", None])
def test_a_bad_change_leaves_the_last_good_settings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str | None
) -> None:
    file = write(tmp_path, GOOD)
    settings = LiveSettings(file)
    before = settings.value

    if text is None:
        file.path.unlink()
    else:
        write(tmp_path, text)

    assert settings.check() is False
    assert settings.check() is False
    assert settings.value is before
    assert caplog.text.count("last good") == 1

    write(tmp_path, GOOD.replace("9977", "9978"))
    assert settings.check() is True
