"""Logins to Vault: what is sent to ``auth/<mount>/login`` to have a token."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from protos import gloo
from services.gloo.secrets.source import Unavailable
from shared.errors import InvalidSettings
from shared.sigv4 import Key, sign_post

STS_QUESTION = b"Action=GetCallerIdentity&Version=2011-06-15"
FORM = "application/x-www-form-urlencoded; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class AppRole:
    """A role's id with a secret one, which may stand in a file that is read at each login.

    Of every login ``increment`` is how many seconds a renewal is for, 0 for Vault's own choice, and ``proof``
    raises ``Unavailable`` when who we are cannot be said now.
    """

    role_id: str
    secret_id: str = field(default="", repr=False)
    secret_id_file: str = ""
    mount: str = "approle"
    name: str = "AppRole"
    increment: int = 0

    def proof(self) -> Mapping[str, Any]:
        secret = self.secret_id
        if self.secret_id_file:
            try:
                secret = Path(self.secret_id_file).read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                why = error.strerror if isinstance(error, OSError) else "not plain text"
                raise Unavailable(f"the file of the secret id cannot be read: {why}") from None
        return {"role_id": self.role_id, **({"secret_id": secret} if secret else {})}


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsIam:
    """A request to AWS that we sign and Vault sends, to learn whose key it is."""

    role: str
    key: Key
    region: str = ""
    server_id: str = ""
    mount: str = "aws"
    name: str = "AWS"
    increment: int = 0

    def proof(self) -> Mapping[str, Any]:
        host = f"sts.{self.region}.amazonaws.com" if self.region else "sts.amazonaws.com"
        url, headers = f"https://{host}/", {"content-type": FORM}
        if self.server_id:
            headers["x-vault-aws-iam-server-id"] = self.server_id
        region = self.region or "us-east-1"
        signed = sign_post(url, headers, STS_QUESTION, key=self.key, region=region, service="sts")
        return {
            "role": self.role,
            "iam_http_request_method": "POST",
            "iam_request_url": b64encode(url.encode()).decode(),
            "iam_request_body": b64encode(STS_QUESTION).decode(),
            "iam_request_headers": b64encode(json.dumps(signed).encode()).decode(),
        }


Login = AppRole | AwsIam


def login_of(given: gloo.SettingsVaultSecrets, environ: Mapping[str, str], where: str) -> Login | None:
    """The login that the settings at *where* ask for, None for a token; raises ``InvalidSettings``."""
    if given.app_role is not None:
        return app_role(given.app_role, f"{where}.appRole")
    if given.aws is not None:
        return aws_iam(given.aws, environ, f"{where}.aws")
    return None


def app_role(given: gloo.SettingsVaultAppRole, where: str) -> AppRole:
    if not given.role_id:
        raise InvalidSettings(f"{where}.roleId: required")
    if given.secret_id and given.secret_id_file:
        raise InvalidSettings(f"{where}: give one of secretId and secretIdFile")
    return AppRole(
        role_id=given.role_id,
        secret_id=given.secret_id,
        secret_id_file=given.secret_id_file,
        mount=given.mount_path.strip("/") or "approle",
    )


def aws_iam(given: gloo.SettingsVaultAwsAuth, environ: Mapping[str, str], where: str) -> AwsIam:
    if not given.vault_role:
        raise InvalidSettings(f"{where}.vaultRole: required")
    if bool(given.access_key_id) != bool(given.secret_access_key):
        raise InvalidSettings(f"{where}: accessKeyId and secretAccessKey go together")
    if given.lease_increment < 0:
        raise InvalidSettings(f"{where}.leaseIncrement: must not be negative")
    key = Key.of(environ)
    if given.access_key_id:
        key = Key(id=given.access_key_id, secret=given.secret_access_key, session_token=given.session_token)
    if key is None:
        raise InvalidSettings(
            f"{where}.accessKeyId: required, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in its place"
        )
    return AwsIam(
        role=given.vault_role,
        key=key,
        region=given.region or environ.get("AWS_REGION", "") or environ.get("AWS_DEFAULT_REGION", ""),
        server_id=given.iam_server_id_header,
        mount=given.mount_path.strip("/") or "aws",
        increment=given.lease_increment,
    )
