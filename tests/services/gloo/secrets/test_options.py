"""Which places for secrets the settings name."""

from __future__ import annotations

from typing import Any

import pytest

from protos import gloo
from services.gloo.secrets.options import secret_sources
from shared.codec.decode import decode
from shared.errors import InvalidSettings
from shared.report import Report

VAULT = {"address": "http://vault:8200", "token": "root"}


def sources(document: dict[str, Any]) -> list[tuple[str, float]]:
    settings = decode(gloo.Settings, document, Report())
    assert settings is not None
    return [(source.name, source.period) for source in secret_sources(settings, {})]


def test_vault_goes_before_directories() -> None:
    assert sources({}) == []
    assert sources({"kubernetesSecretSource": {}}) == []
    assert sources({"vaultSecretSource": VAULT}) == [("Vault at http://vault:8200", 60.0)]
    assert sources({"directorySecretSource": {"directory": "/data"}}) == [("directory /data", 1.0)]
    several = {"sources": [{"directory": {"directory": "/data"}}, {"kubernetes": {}}, {"vault": VAULT}]}
    assert sources({"secretOptions": several, "refreshRate": "15s"}) == [
        ("Vault at http://vault:8200", 15.0),
        ("directory /data", 1.0),
    ]
    assert sources({"vaultSecretSource": VAULT, "refreshRate": "0.1s"}) == [
        ("Vault at http://vault:8200", 1.0)
    ]


def test_a_directory_needs_a_path() -> None:
    with pytest.raises(InvalidSettings, match=r"secretOptions\.sources\[0\]\.directory\.directory: required"):
        sources({"secretOptions": {"sources": [{"directory": {}}]}})
