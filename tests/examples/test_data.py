"""The settings and Envoy bootstraps that people start from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from shared.report import Report
from shared.runtime.settings import SettingsFile

DATA = Path(__file__).parents[2] / "examples" / "data"
ENVOY = Path(sys.executable).with_name("envoy")


def test_the_settings_are_read_without_a_warning() -> None:
    settings, report = SettingsFile(dir=DATA).read()

    assert report == Report()
    assert settings.consul is not None
    assert settings.consul.service_discovery is not None
    assert settings.consul_kv_source is not None
    assert settings.gloo is not None
    assert settings.gloo.xds_bind_addr == "0.0.0.0:9977"


@pytest.mark.parametrize("name", ["envoy.yaml", "envoy-sotw.yaml"])
def test_envoy_takes_the_bootstrap_without_a_warning(name: str) -> None:
    done = subprocess.run(
        [ENVOY, "--mode", "validate", "--log-level", "warning", "--concurrency", "1", "-c", DATA / name],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    assert "deprecat" not in done.stderr


def test_the_bootstraps_differ_in_the_protocol_alone() -> None:
    delta = yaml.safe_load((DATA / "envoy.yaml").read_text())
    sotw = yaml.safe_load((DATA / "envoy-sotw.yaml").read_text())

    assert delta["dynamic_resources"]["ads_config"].pop("api_type") == "DELTA_GRPC"
    assert sotw["dynamic_resources"]["ads_config"].pop("api_type") == "GRPC"
    assert delta == sotw
    assert delta["node"]["metadata"]["role"] == "gloo-system~gateway-proxy"
    assert delta["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"
