"""Which places for secrets the settings name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from protos import gloo
from services.gloo.secrets.directory import Directory
from services.gloo.secrets.source import SecretSource
from services.gloo.secrets.vault import Vault, VaultConfig
from shared.errors import InvalidSettings

DEFAULT_PERIOD = 60.0
LEAST_PERIOD = 1.0


def secret_sources(settings: gloo.Settings, environ: Mapping[str, str]) -> list[SecretSource]:
    """The places in the order they are asked: Vault before directories. Raises ``InvalidSettings``."""
    given = settings.refresh_rate.total_seconds() if settings.refresh_rate is not None else DEFAULT_PERIOD
    period = max(given, LEAST_PERIOD)
    found: list[SecretSource] = []
    for where, place in _places(settings):
        if isinstance(place, gloo.SettingsVaultSecrets):
            found.append(Vault(VaultConfig.of(place, environ, where), period))
        else:
            if not place.directory:
                raise InvalidSettings(f"{where}.directory: required")
            found.append(Directory(place.directory))
    return sorted(found, key=lambda source: isinstance(source, Directory))


def _places(
    settings: gloo.Settings,
) -> Iterator[tuple[str, gloo.SettingsVaultSecrets | gloo.SettingsDirectory]]:
    if settings.secret_options is not None and settings.secret_options.sources:
        for i, each in enumerate(settings.secret_options.sources):
            if each.vault is not None:
                yield f"secretOptions.sources[{i}].vault", each.vault
            elif each.directory is not None:
                yield f"secretOptions.sources[{i}].directory", each.directory
        return
    if settings.vault_secret_source is not None:
        yield "vaultSecretSource", settings.vault_secret_source
    elif settings.directory_secret_source is not None:
        yield "directorySecretSource", settings.directory_secret_source
