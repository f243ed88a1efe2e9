"""Reading secrets from a real OpenBao."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from protos import gloo
from services.gloo.secrets.source import Answer, Unavailable
from services.gloo.secrets.vault import Vault, VaultConfig
from shared.errors import InvalidSettings
from shared.ref import Ref
from tests.support.certificates import Authority, any_pair
from tests.support.vault import VaultServer

PETS = Ref("ns", "pets")
PATH = "gloo/gloo.solo.io/v1/Secret/ns/pets"
CERTIFICATE, KEY, _ = any_pair()
TLS = {"certChain": CERTIFICATE, "privateKey": KEY}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vault")


@pytest.fixture
async def server(folder: Path) -> AsyncIterator[VaultServer]:
    async with VaultServer(folder) as running:
        yield running


@pytest.fixture
async def vault(server: VaultServer) -> AsyncIterator[Vault]:
    found = Vault(VaultConfig(address=server.address, token="root"), 60.0)
    yield found
    await found.close()


async def read(vault: Vault, version: str = "", ref: Ref = PETS) -> Answer | None:
    await vault.begin()
    return await vault.read(ref, version)


async def test_a_secret_is_read_again_when_its_version_moved(server: VaultServer, vault: Vault) -> None:
    await server.put("ns", "pets", tls=TLS)

    first = await read(vault)
    assert first is not None
    assert first.secret is not None
    assert first.secret.tls is not None
    assert (first.secret.tls.cert_chain, first.version) == (CERTIFICATE, "v1")
    assert await read(vault, first.version) is None

    await server.put("ns", "pets", tls=TLS | {"rootCa": CERTIFICATE})
    second = await read(vault, first.version)
    assert second is not None
    assert second.version == "v2"


async def test_a_secret_that_is_not_there_or_deleted_is_absent(server: VaultServer, vault: Vault) -> None:
    absent = Answer(problem=f"not in Vault at secret/data/{PATH}", absent=True)
    assert await read(vault) == absent

    await server.put("ns", "pets", tls=TLS)
    await server.ask("DELETE", f"secret/data/{PATH}")  # its newest version only
    assert await read(vault, "v1") == absent

    await server.ask("POST", f"secret/undelete/{PATH}", {"versions": [1]})
    assert await read(vault) is not None
    await server.delete("ns", "pets")
    assert await read(vault, "v1") == absent


async def test_a_problem_says_what_is_wrong_and_shows_nothing(server: VaultServer, vault: Vault) -> None:
    await server.put("ns", "pets", tls={"certChain": ["hush"], "privateKey": {"hush": "hush"}})
    answer = await read(vault)
    assert answer == Answer(
        problem="cannot be decoded as a Secret: tls.certChain, tls.privateKey", version="v1"
    )

    await server.put("ns", "pets", tls={"certChain": CERTIFICATE, "privateKey": "hush"})
    answer = await read(vault)
    assert answer == Answer(problem="privateKey: no key in PEM, or one with a passphrase", version="v2")


async def test_long_secrets_are_read_and_too_long_ones_told(
    server: VaultServer, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = CERTIFICATE * (500_000 // len(CERTIFICATE))
    await server.put("ns", "pets", tls=TLS | {"certChain": chain})
    answer = await read(vault)
    assert answer is not None
    assert answer.secret is not None

    monkeypatch.setattr("services.gloo.secrets.vault.MOST_BYTES", 400_000)
    assert await read(vault) == Answer(problem=f"longer than 400000 bytes in Vault at secret/data/{PATH}")


async def test_engines_of_version_1_are_read_too(server: VaultServer) -> None:
    await server.ask("POST", "sys/mounts/old", {"type": "kv", "options": {"version": "1"}})
    vault = Vault(VaultConfig(address=server.address, token="root", prefix="old", root="mine"), 60.0)
    path = "old/mine/gloo.solo.io/v1/Secret/ns/pets"
    await server.ask("POST", path, {"tls": TLS})

    first = await read(vault)
    assert first is not None
    assert first.secret is not None
    assert await read(vault, first.version) is None
    await server.ask("POST", path, {"tls": TLS | {"rootCa": CERTIFICATE}})
    assert await read(vault, first.version) is not None
    await server.ask("DELETE", path)
    assert await read(vault) == Answer(problem=f"not in Vault at {path}", absent=True)
    await vault.close()


async def test_a_token_may_be_allowed_to_read_little(server: VaultServer) -> None:
    """Only the content of one secret; neither its metadata, nor others, nor anything about engines."""
    rules = f'path "secret/data/{PATH}" {{ capabilities = ["read"] }}'
    await server.ask("PUT", "sys/policies/acl/little", {"policy": rules})
    made = await server.ask("POST", "auth/token/create", {"policies": ["little"], "ttl": "1h"})
    await server.put("ns", "pets", tls=TLS)
    vault = Vault(VaultConfig(address=server.address, token=made["auth"]["client_token"]), 60.0)

    assert await read(vault) is not None
    assert await read(vault, "v1") is None
    await server.put("ns", "pets", tls=TLS)
    assert await read(vault, "v1") is not None
    denied = await read(vault, ref=Ref("ns", "cats"))
    assert denied is not None
    assert "Vault's policy for our token must allow to read secret/data/" in denied.problem

    await server.ask("POST", "auth/token/revoke", {"token": made["auth"]["client_token"]})
    with pytest.raises(Unavailable, match="the token is not valid"):
        await read(vault)
    await vault.close()


async def test_a_token_is_taken_from_its_file_again_and_renewed(server: VaultServer, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("s.wrong")
    vault = Vault(VaultConfig(address=server.address, token_file=str(file)), 60.0)
    await server.put("ns", "pets", tls=TLS)
    with pytest.raises(Unavailable, match="the token is not valid"):
        await read(vault)

    made = await server.ask("POST", "auth/token/create", {"policies": ["root"], "period": "2s"})
    file.write_text(f"{made['auth']['client_token']}\n")
    assert await read(vault) is not None
    await vault.close()

    file.unlink()
    with pytest.raises(Unavailable, match=r"the token's file cannot be read: No such file"):
        await read(vault)


async def test_a_vault_that_is_away_or_sealed_is_unavailable(server: VaultServer) -> None:
    away = Vault(VaultConfig(address="http://127.0.0.1:1", token="root"), 60.0)
    with pytest.raises(Unavailable, match="no usable answer"):
        await away.begin()
    await away.close()

    vault = Vault(VaultConfig(address=server.address, token="root"), 60.0)
    await vault.begin()
    await server.ask("PUT", "sys/seal")
    with pytest.raises(Unavailable, match="HTTP 503; it is sealed"):
        await vault.read(PETS, "")
    await vault.close()


def test_settings_of_both_dialects_are_understood(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    old = gloo.SettingsVaultSecrets(
        address="https://vault:8200/", token="t", root_key="mine", ca_cert=str(authority.cert)
    )
    new = gloo.SettingsVaultSecrets(
        address="https://vault:8200",
        access_token="t",
        root_key="mine",
        tls_config=gloo.SettingsVaultTlsConfig(ca_cert=str(authority.cert)),
    )
    made = VaultConfig.of(old, {}, "vaultSecretSource")

    assert made == VaultConfig.of(new, {}, "vaultSecretSource")
    assert (made.address, made.token, made.prefix, made.root) == ("https://vault:8200", "t", "secret", "mine")
    assert made.ssl_context() is not None
    assert replace(made, address="http://vault").ssl_context() is None
    from_environment = VaultConfig.of(
        gloo.SettingsVaultSecrets(),
        {"VAULT_ADDR": "http://v", "VAULT_TOKEN": "e", "VAULT_NAMESPACE": "n"},
        "v",
    )
    assert (from_environment.token, from_environment.namespace) == ("e", "n")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (gloo.SettingsVaultSecrets(token="t"), r"v\.address: needs http:// or https://"),
        (gloo.SettingsVaultSecrets(address="http://v"), r"v\.token: required"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(given: gloo.SettingsVaultSecrets, says: str) -> None:
    with pytest.raises(InvalidSettings, match=says):
        VaultConfig.of(given, {}, "v")


def test_files_that_cannot_be_read_are_told() -> None:
    config = VaultConfig(
        address="https://v", token="t", tls=gloo.SettingsVaultTlsConfig(ca_cert="/nowhere.pem")
    )
    with pytest.raises(InvalidSettings, match="certificates for Vault cannot be read"):
        Vault(config, 1.0)
