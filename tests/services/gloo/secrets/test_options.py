"""Which places for secrets the settings name."""

from __future__ import annotations

from typing import Any

import pytest

from protos import gloo
from services.gloo.secrets.options import secret_sources
from services.gloo.secrets.vault import VaultConfig
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


@pytest.mark.parametrize("nested", [True, False])
def test_vault_is_asked_where_and_how_settings_say(nested: bool) -> None:
    """Gloo 1.2 has what is about TLS beside the address, 1.21 below ``tlsConfig``."""
    tls = {"caCert": "ca.pem", "caPath": "/cas", "clientCert": "us.pem", "clientKey": "us.key"}
    tls |= {"tlsServerName": "vault", "insecure": True}
    document = {**VAULT, "pathPrefix": "/kv/", "rootKey": "mine", **({"tlsConfig": tls} if nested else tls)}
    given = decode(gloo.SettingsVaultSecrets, document, Report())
    assert given is not None

    config = VaultConfig.of(given, {}, "vaultSecretSource")

    assert (config.address, config.token, config.prefix, config.root) == (
        "http://vault:8200",
        "root",
        "kv",
        "mine",
    )
    assert config.tls == decode(gloo.SettingsVaultTlsConfig, tls, Report())
