"""Logins to a real OpenBao: by AppRole, and by a key of AWS, whose method a server of ours adds in front."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from protos import gloo
from services.gloo.secrets.login import AppRole, AwsIam
from services.gloo.secrets.source import Answer, Unavailable
from services.gloo.secrets.vault import Vault, VaultConfig
from shared.codec.decode import decode
from shared.errors import InvalidSettings
from shared.ref import Ref
from shared.report import Report
from shared.sigv4 import Key
from tests.support.aws import Forged, check_signature
from tests.support.ports import free_port
from tests.support.vault import VaultServer
from tests.support.waiting import eventually

SECRET = Ref("ns", "aws")
KEY = Key(id="AKID", secret="wJalr/secret", session_token="session")
NOTHING: Mapping[str, str] = {}
READ = 'path "secret/*" { capabilities = ["read"] }'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vault")


@pytest.fixture
async def server(folder: Path) -> AsyncIterator[VaultServer]:
    async with VaultServer(folder) as running:
        await running.ask("PUT", "sys/policies/acl/reads", {"policy": READ})
        await running.put("ns", "aws", aws={"accessKey": "a", "secretKey": "s"})
        yield running


async def role(server: VaultServer, **fields: Any) -> AppRole:
    """A new AppRole, with the policy to read secrets."""
    await server.ask("POST", "sys/auth/approle", {"type": "approle"})
    await server.ask("POST", "auth/approle/role/gloo", {"token_policies": ["reads"], **fields})
    found = await server.ask("GET", "auth/approle/role/gloo/role-id")
    made = await server.ask("POST", "auth/approle/role/gloo/secret-id")
    return AppRole(role_id=found["data"]["role_id"], secret_id=made["data"]["secret_id"])


@asynccontextmanager
async def logging_in(address: str, login: AppRole | AwsIam) -> AsyncIterator[Vault]:
    vault = Vault(VaultConfig(address=address, login=login), 60.0)
    try:
        yield vault
    finally:
        await vault.close()


async def read(vault: Vault) -> Answer | None:
    await vault.begin()
    return await vault.read(SECRET, "")


async def accessors(server: VaultServer) -> set[str]:
    found: dict[str, Any] = await server.ask("LIST", "auth/token/accessors")
    return set(found["data"]["keys"])


async def test_an_app_role_reads_and_gives_its_token_back(server: VaultServer) -> None:
    login, before = await role(server), await accessors(server)

    async with logging_in(server.address, login) as vault:
        answer = await read(vault)
        assert answer is not None
        assert answer.secret is not None
        await read(vault)
        assert len(await accessors(server) - before) == 1  # one login

    assert await accessors(server) == before


async def test_a_token_is_renewed_and_at_its_end_there_is_another(server: VaultServer) -> None:
    login = await role(server, token_ttl="4s", token_max_ttl="8s")
    seen = set[str]()

    async def works() -> set[str]:
        answer = await read(vault)
        assert answer is not None
        assert answer.secret is not None
        seen.update(await accessors(server) - before)
        return seen

    before = await accessors(server)
    async with logging_in(server.address, login) as vault:
        await eventually(works, until=lambda found: len(found) >= 2, within=30, every=0.1)


async def test_a_token_that_was_taken_away_is_replaced(server: VaultServer) -> None:
    login, before = await role(server), await accessors(server)
    async with logging_in(server.address, login) as vault:
        await read(vault)
        for accessor in await accessors(server) - before:
            await server.ask("POST", "auth/token/revoke-accessor", {"accessor": accessor})

        with pytest.raises(Unavailable, match="is not valid any more; logging in again"):
            await read(vault)
        answer = await read(vault)
        assert answer is not None
        assert answer.secret is not None


async def test_a_refused_login_says_why_and_shows_nothing(server: VaultServer, tmp_path: Path) -> None:
    login = await role(server)
    wrong = replace(login, secret_id="hush")
    for each, says in (
        (wrong, r"the login by AppRole at auth/approle is refused: invalid role or secret ID"),
        (replace(login, mount="nowhere"), r"at auth/nowhere is refused: "),
        (
            replace(login, secret_id="", secret_id_file=str(tmp_path / "no")),
            "secret id cannot be read: No such",
        ),
    ):
        async with logging_in(server.address, each) as vault:
            with pytest.raises(Unavailable, match=says) as told:
                await vault.begin()
            assert "hush" not in str(told.value)
    assert "hush" not in repr(wrong)

    file = tmp_path / "secret-id"
    file.write_text("hush")
    async with logging_in(server.address, replace(login, secret_id="", secret_id_file=str(file))) as vault:
        with pytest.raises(Unavailable):
            await vault.begin()
        file.write_text(f"{login.secret_id}\n")
        assert await read(vault) is not None


class AwsMethod:
    """Vault's `aws` method in front of an OpenBao that lacks it: asks STS, so to speak, whose key it is."""

    def __init__(self, server: VaultServer) -> None:
        self._server = server
        self.asked: list[dict[str, Any]] = []
        self.increments: list[int] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        app, port = web.Application(), free_port()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.path == "/v1/auth/iam/login":
            return await self._log_in(json.loads(body))
        if request.path.endswith("renew-self"):
            self.increments.append(json.loads(body)["increment"])
        async with (
            aiohttp.ClientSession() as http,
            http.request(
                request.method,
                f"{self._server.address}{request.path}",
                data=body,
                headers={"X-Vault-Token": request.headers["X-Vault-Token"]},
            ) as answer,
        ):
            content = await answer.read()
            return web.Response(status=answer.status, body=content, content_type="application/json")

    async def _log_in(self, given: dict[str, Any]) -> web.Response:
        headers = json.loads(b64decode(given["iam_request_headers"]))
        url, body = b64decode(given["iam_request_url"]).decode(), b64decode(given["iam_request_body"])
        host, _, path = url.removeprefix("https://").partition("/")
        try:
            by = check_signature("POST", f"/{path}", headers, body, {KEY.id: KEY.secret})
        except Forged as problem:
            return web.json_response({"errors": [str(problem)]}, status=400)
        self.asked.append({"by": by, "host": host, "role": given["role"], "headers": headers, "body": body})
        made = await self._server.ask(
            "POST", "auth/token/create", {"policies": ["reads"], "ttl": "4s", "explicit_max_ttl": "1h"}
        )
        return web.json_response({"auth": made["auth"]})


async def test_a_key_of_aws_logs_in(server: VaultServer) -> None:
    method = AwsMethod(server)
    login = AwsIam(
        role="gloo", key=KEY, region="eu-central-1", server_id="vault.example.com", mount="iam", increment=3
    )
    async with method.running() as address, logging_in(address, login) as vault:
        assert await read(vault) is not None
        asked = method.asked[0]
        assert (asked["role"], asked["host"]) == ("gloo", "sts.eu-central-1.amazonaws.com")
        assert asked["body"] == b"Action=GetCallerIdentity&Version=2011-06-15"
        assert (asked["by"].region, asked["by"].service) == ("eu-central-1", "sts")
        assert asked["headers"]["x-vault-aws-iam-server-id"] == "vault.example.com"
        assert asked["headers"]["x-amz-security-token"] == "session"
        await eventually(lambda: read(vault), until=lambda _: method.increments, within=10, every=0.1)
        assert set(method.increments) == {3}

    async with method.running() as address:
        async with logging_in(address, replace(login, region="")) as vault:
            assert await read(vault) is not None
            assert method.asked[-1]["host"] == "sts.amazonaws.com"
            assert method.asked[-1]["by"].region == "us-east-1"
        async with logging_in(address, replace(login, key=Key(id="AKID", secret="hush"))) as vault:
            with pytest.raises(
                Unavailable, match="login by AWS at auth/iam is refused: the signature is of"
            ) as told:
                await vault.begin()
            assert "hush" not in str(told.value)


def test_settings_say_who_logs_in() -> None:
    def config(environ: Mapping[str, str] = NOTHING, **auth: Any) -> VaultConfig:
        given = decode(gloo.SettingsVaultSecrets, {"address": "http://v", **auth}, Report())
        assert given is not None
        return VaultConfig.of(given, {"VAULT_TOKEN": "t", "AWS_REGION": "eu-north-1", **environ}, "v")

    by_role = config(appRole={"roleId": "r", "secretId": "s", "mountPath": "/mine/"})
    assert (by_role.token, by_role.login) == ("", AppRole(role_id="r", secret_id="s", mount="mine"))
    in_file = config(appRole={"roleId": "r", "secretIdFile": "/run/id"}).login
    assert in_file == AppRole(role_id="r", secret_id_file="/run/id")

    key = {"accessKeyId": "a", "secretAccessKey": "s", "sessionToken": "t"}
    by_key = config(aws={"vaultRole": "r", **key, "leaseIncrement": 9, "iamServerIdHeader": "vault"})
    assert by_key.login == AwsIam(
        role="r",
        key=Key(id="a", secret="s", session_token="t"),
        region="eu-north-1",
        server_id="vault",
        increment=9,
    )
    found = {"AWS_ACCESS_KEY_ID": "e", "AWS_SECRET_ACCESS_KEY": "x", "AWS_SESSION_TOKEN": "y"}
    in_environment = config(found, aws={"vaultRole": "r", "region": "us-east-2", "mountPath": "iam"}).login
    assert in_environment == AwsIam(
        role="r", key=Key(id="e", secret="x", session_token="y"), region="us-east-2", mount="iam"
    )
    # Gloo 1.2's field for a token is not one of several, and goes before them.
    assert config(token="t", aws={"vaultRole": "r", **key}).login is None


@pytest.mark.parametrize(
    ("auth", "says"),
    [
        ({"app_role": gloo.SettingsVaultAppRole()}, r"v\.appRole\.roleId: required"),
        (
            {"app_role": gloo.SettingsVaultAppRole(role_id="r", secret_id="s", secret_id_file="f")},
            r"v\.appRole: give one of secretId and secretIdFile",
        ),
        ({"aws": gloo.SettingsVaultAwsAuth()}, r"v\.aws\.vaultRole: required"),
        ({"aws": gloo.SettingsVaultAwsAuth(vault_role="r")}, r"v\.aws\.accessKeyId: required, or AWS_ACC"),
        (
            {"aws": gloo.SettingsVaultAwsAuth(vault_role="r", access_key_id="a")},
            r"v\.aws: accessKeyId and secretAccessKey go together",
        ),
        (
            {"aws": gloo.SettingsVaultAwsAuth(vault_role="r", lease_increment=-1)},
            r"v\.aws\.leaseIncrement: must not be negative",
        ),
    ],
)
def test_logins_that_cannot_be_are_refused(auth: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidSettings, match=says):
        VaultConfig.of(gloo.SettingsVaultSecrets(address="http://v", **auth), {}, "v")
