"""Secrets by the command line: in a real OpenBao, and in a directory."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from glooctl.commands.secret import KEY_FIELDS
from services.gloo.secrets.directory import Directory
from services.gloo.secrets.vault import Vault, VaultConfig
from shared.ref import Ref
from tests.support.certificates import Authority, Certificate
from tests.support.vault import VaultServer

PETS = Ref("gloo-system", "pets")


def glooctl(*words: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    left_out = {"VAULT_ADDR", "VAULT_TOKEN", "GLOO_SECRET_DIRECTORY", *KEY_FIELDS.values()}
    environment = {name: value for name, value in os.environ.items() if name not in left_out} | environ
    command = [sys.executable, "-m", "glooctl", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture
async def vault(tmp_path: Path) -> AsyncIterator[VaultServer]:
    async with VaultServer(tmp_path) as running:
        yield running


@pytest.fixture
def pair(tmp_path: Path) -> Certificate:
    return Authority(tmp_path / "ca").issue("pets", "DNS:pets.example.com")


def files(pair: Certificate) -> tuple[str | Path, ...]:
    return ("--certchain", pair.cert, "--privatekey", pair.key)


@pytest.mark.parametrize("engine", ["2", "1"])
async def test_secrets_in_vault_are_created_replaced_listed_and_deleted(
    vault: VaultServer, pair: Certificate, engine: str
) -> None:
    await vault.ask("POST", "sys/mounts/kv", {"type": "kv", "options": {"version": engine}})
    where = {"VAULT_ADDR": vault.address, "VAULT_TOKEN": "root"}
    in_engine = ("--vault-path-prefix", "kv")
    source = Vault(VaultConfig(address=vault.address, token="root", prefix="kv"), 1.0)

    made = glooctl("create", "secret", "tls", "pets", *files(pair), *in_engine, **where)
    assert made.returncode == 0, made.stderr
    assert "| pets   | TLS  |" in made.stdout
    await source.begin()
    read = await source.read(PETS, "")
    assert read is not None
    assert read.secret is not None
    assert read.secret.tls is not None
    assert read.secret.tls.cert_chain == pair.cert.read_text()

    again = glooctl("create", "secret", "tls", "pets", *files(pair), *in_engine, **where)
    assert again.returncode == 1
    assert "secret gloo-system.pets exists; write a new version of it with --replace" in again.stderr
    replaced = glooctl(
        *("create", "secret", "tls", "--name", "pets", "--rootca", pair.cert, "--replace"),
        *in_engine,
        **where,
    )
    assert replaced.returncode == 0, replaced.stderr
    assert await source.read(PETS, read.version) is not None

    listed = glooctl("get", "secrets", *in_engine, **where)
    assert "| pets   |" in listed.stdout
    assert "BEGIN" not in listed.stdout
    assert glooctl("delete", "secret", "pets", *in_engine, **where).stdout == "secret pets deleted\n"
    gone = glooctl("delete", "secret", "pets", *in_engine, **where)
    assert (gone.returncode, "is not in Vault at kv/" in gone.stderr) == (1, True)
    assert "pets" not in glooctl("get", "secret", *in_engine, **where).stdout
    await source.close()


async def test_secrets_in_a_directory_are_for_their_owner_only(tmp_path: Path, pair: Certificate) -> None:
    place = {"GLOO_SECRET_DIRECTORY": str(tmp_path / "data")}
    source = Directory(str(tmp_path / "data"))

    made = glooctl("create", "secret", "tls", "pets", *files(pair), "--ocspstaple", pair.cert, **place)
    assert made.returncode == 0, made.stderr
    path = tmp_path / "data" / "secrets" / "gloo-system" / "pets.yaml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    read = await source.read(PETS, "")
    assert read is not None
    assert read.secret is not None
    assert read.secret.tls is not None
    assert read.secret.tls.ocsp_staple == pair.cert.read_bytes()

    assert glooctl("create", "secret", "tls", "pets", *files(pair), **place).returncode == 1
    assert glooctl("create", "secret", "tls", "pets", *files(pair), "--replace", **place).returncode == 0
    assert "| pets   |" in glooctl("get", "secret", **place).stdout
    assert glooctl("delete", "secret", "pets", **place).returncode == 0
    assert glooctl("delete", "secret", "pets", **place).returncode == 1
    assert not path.exists()


async def test_a_key_of_aws_comes_from_flags_or_the_environment(tmp_path: Path) -> None:
    place = {"GLOO_SECRET_DIRECTORY": str(tmp_path / "data")}
    source = Directory(str(tmp_path / "data"))
    environment = {"AWS_ACCESS_KEY_ID": "e", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t"}

    async def stored() -> tuple[str, str, str]:
        read = await source.read(Ref("gloo-system", "aws"), "")
        assert read is not None
        assert read.secret is not None
        assert read.secret.aws is not None
        return read.secret.aws.access_key, read.secret.aws.secret_key, read.secret.aws.session_token

    made = glooctl("create", "secret", "aws", "aws", "--access-key", "a", "--secret-key", "k", **place)
    assert "| aws    | AWS  |" in made.stdout, made.stderr
    assert await stored() == ("a", "k", "")
    again = glooctl("create", "secret", "aws", "aws", "--replace", **place, **environment)
    assert again.returncode == 0, again.stderr
    assert await stored() == ("e", "s", "t")
    given = ("--access-key", "a", "--secret-key", "k", "--replace")
    assert glooctl("create", "secret", "aws", "aws", *given, **place, **environment).returncode == 0
    assert await stored() == ("a", "k", "")  # no token of another key

    half = glooctl("create", "secret", "aws", "aws", "--access-key", "a", **place)
    assert half.returncode == 2
    assert "give --access-key and --secret-key, or set AWS_ACCESS_KEY_ID" in half.stderr
    odd = glooctl("create", "secret", "aws", "aws", "--access-key", "a", "--secret-key", "hush\n", **place)
    assert (odd.returncode, "hush" in odd.stderr) == (1, False)


def test_a_dry_run_prints_the_document(pair: Certificate) -> None:
    done = glooctl("create", "secret", "tls", "pets", *files(pair), "--dry-run")

    assert yaml.safe_load(done.stdout) == {
        "metadata": {"name": "pets", "namespace": "gloo-system"},
        "tls": {"certChain": pair.cert.read_text(), "privateKey": pair.key.read_text()},
    }


def test_what_cannot_be_is_told(tmp_path: Path, pair: Certificate) -> None:
    other = Authority(tmp_path / "other").issue("other")

    def says(*words: str | Path, code: int = 1, **environ: str) -> str:
        done = glooctl("create", "secret", "tls", *words, **environ)
        assert done.returncode == code, done
        return done.stderr

    mixed = ("--certchain", pair.cert, "--privatekey", other.key)
    assert "certChain and privateKey do not belong together" in says("pets", *mixed)
    assert "privateKey: required beside certChain" in says("pets", "--certchain", pair.cert)
    assert "cannot read /nowhere: No such file" in says("pets", "--certchain", "/nowhere")
    assert "needs letters, digits" in says("../pets", *files(pair), code=2)
    assert "say where secrets are" in says("pets", *files(pair), code=2)
    assert "cannot reach Vault at http://127.0.0.1:1" in says(
        "pets", *files(pair), VAULT_ADDR="http://127.0.0.1:1"
    )


async def test_a_token_that_may_not_is_told(vault: VaultServer, pair: Certificate) -> None:
    done = glooctl("create", "secret", "tls", "pets", *files(pair), VAULT_ADDR=vault.address, VAULT_TOKEN="x")

    assert done.returncode == 1
    assert "give a token with --vault-token" in done.stderr
