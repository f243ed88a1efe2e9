"""Secrets in Vault, or its open fork OpenBao: the KV engine, version 2 or 1.

Vault tells nobody of changes. So of each secret that is in use only the version is asked for, from time to
time, and its content when that has moved. An engine of version 1 has no versions: there the content is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

import aiohttp

from protos import gloo
from services.gloo.secrets.login import Login, login_of
from services.gloo.secrets.source import Answer, Unavailable, answer_of
from shared.errors import InvalidSettings
from shared.ref import Ref
from shared.tls import client_context

TIMEOUT = aiohttp.ClientTimeout(total=10)
MOST_BYTES = 1 << 20
TOO_LONG = 413  # in place of the status of an answer longer than that
RENEW_AT = 0.5  # of a token's life
MOST_SAID = 300  # characters of Vault's words
FAREWELL = 2.0  # seconds to give a token back


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultConfig:
    """Where Vault is and who we are there: a token's owner, or whom a *login* proves.

    A *token_file* is read anew in each round.
    """

    address: str
    token: str = field(default="", repr=False)
    token_file: str = ""
    login: Login | None = None
    prefix: str = "secret"
    root: str = "gloo"
    namespace: str = ""
    tls: gloo.SettingsVaultTlsConfig | None = None

    @classmethod
    def of(cls, given: gloo.SettingsVaultSecrets, environ: Mapping[str, str], where: str) -> Self:
        """From the settings at *where*; raises ``InvalidSettings``."""
        address = (given.address or environ.get("VAULT_ADDR", "")).rstrip("/")
        if not address.startswith(("http://", "https://")):
            raise InvalidSettings(f"{where}.address: needs http:// or https://, a host and a port")
        token = given.token or given.access_token or ""
        login = None if token else login_of(given, environ, where)
        file = "" if token or login else environ.get("VAULT_TOKEN_FILE", "")
        token = token or ("" if file or login else environ.get("VAULT_TOKEN", ""))
        if not token and not file and login is None:
            raise InvalidSettings(f"{where}.token: required, or VAULT_TOKEN or VAULT_TOKEN_FILE in its place")
        older = gloo.SettingsVaultTlsConfig(
            ca_cert=given.ca_cert,
            ca_path=given.ca_path,
            client_cert=given.client_cert,
            client_key=given.client_key,
            tls_server_name=given.tls_server_name,
            insecure=given.insecure,
        )
        return cls(
            address=address,
            token=token,
            token_file=file,
            login=login,
            prefix=given.path_prefix.strip("/") or "secret",
            root=given.root_key.strip("/") or "gloo",
            namespace=environ.get("VAULT_NAMESPACE", ""),
            tls=given.tls_config or older,
        )

    def ssl_context(self) -> ssl.SSLContext | None:
        """TLS towards Vault, None for plain text; raises ``InvalidSettings``."""
        tls = self.tls or gloo.SettingsVaultTlsConfig()
        if self.address.startswith("http://"):
            return None
        try:
            return client_context(
                ca_file=tls.ca_cert,
                ca_path=tls.ca_path,
                cert=tls.client_cert,
                key=tls.client_key,
                verify=not tls.insecure,
            )
        except OSError as error:
            raise InvalidSettings(f"the certificates for Vault cannot be read: {error}") from error


class Vault:
    """Asked through ``read``; ``begin`` sees to the token."""

    def __init__(self, config: VaultConfig, period: float) -> None:
        self.name = f"Vault at {config.address}"
        self.period = period
        self._config = config
        self._tls = config.ssl_context()
        self._http: aiohttp.ClientSession | None = None
        self._token = config.token
        self._engine = 0  # the version of the KV engine, 0 while it is not known
        self._blind = False  # whether the token may not read metadata
        self._renew_at = 0.0

    async def begin(self) -> None:
        """Have a token that works, and know the engine."""
        if self._config.token_file:
            try:
                read = await asyncio.to_thread(Path(self._config.token_file).read_text)
            except OSError as error:
                raise Unavailable(f"the token's file cannot be read: {error.strerror}") from error
            if read.strip() != self._token:
                self._token, self._engine, self._renew_at = read.strip(), 0, 0.0
        if self._config.login is not None and not self._token:
            await self._log_in(self._config.login)
        if not self._engine:
            self._engine, self._blind = await self._find_engine(), False
        if time.monotonic() >= self._renew_at:
            await self._renew()

    async def read(self, ref: Ref, version: str) -> Answer | None:
        path = f"{self._config.root}/gloo.solo.io/v1/Secret/{ref.namespace}/{ref.name}"
        if self._engine == 1:
            return await self._read_content(f"{self._config.prefix}/{path}", version)
        if version and not self._blind:
            status, found = await self._ask("GET", f"{self._config.prefix}/metadata/{path}")
            metadata = found.get("data") or {}
            if status == 200 and f"v{metadata.get('current_version')}" == version:
                newest = (metadata.get("versions") or {}).get(version[1:], {})
                if not newest.get("deletion_time") and not newest.get("destroyed"):
                    return None
            self._blind = status == 403
        return await self._read_content(f"{self._config.prefix}/data/{path}", version)

    async def close(self) -> None:
        if self._http is None:
            return
        if self._config.login is not None and self._token:
            with contextlib.suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(FAREWELL):
                    await self._ask("POST", "auth/token/revoke-self")
        await self._http.close()

    async def _read_content(self, path: str, version: str) -> Answer | None:
        status, found = await self._ask("GET", path)
        content = found.get("data")
        if self._engine == 2 and isinstance(content, dict):
            now = f"v{(content.get('metadata') or {}).get('version')}"
            content = content.get("data")
        else:
            now = blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()
        if status == 403:
            await self._check_token()
            return Answer(problem=f"Vault's policy for our token must allow to read {path}")
        if status == TOO_LONG:
            return Answer(problem=f"longer than {MOST_BYTES} bytes in Vault at {path}")
        if status == 404 or (status == 200 and content is None):
            return Answer(problem=f"not in Vault at {path}", absent=True)
        if status != 200:
            return Answer(problem=f"Vault answers HTTP {status} for {path}")
        return None if now == version else answer_of(content, now)

    async def _find_engine(self) -> int:
        """A token without the right to ask is most often one for version 2."""
        status, found = await self._ask("GET", f"sys/internal/ui/mounts/{self._config.prefix}")
        if status != 200:
            await self._check_token()
            return 2
        engine = found.get("data", {})
        if engine.get("type") not in ("kv", "generic"):
            raise Unavailable(f"{self._config.prefix} is no KV engine but {engine.get('type')}")
        return 2 if (engine.get("options") or {}).get("version") == "2" else 1

    async def _check_token(self) -> None:
        status, _ = await self._ask("GET", "auth/token/lookup-self")
        if status == 403:
            if self._config.login is not None:
                self._token = ""
                raise Unavailable("the token of our login is not valid any more; logging in again")
            raise Unavailable("the token is not valid, or not any more")

    async def _renew(self) -> None:
        """Renew a token that may be renewed when half of its life is over; else log in again, if we did."""
        self._renew_at = time.monotonic() + 3600
        status, found = await self._ask("GET", "auth/token/lookup-self")
        token, login = found.get("data", {}) if status == 200 else {}, self._config.login
        left = float(token.get("ttl") or 0)
        if status == 403 and login is not None:
            await self._log_in(login)
            return
        if not left or not (token.get("renewable") or login):
            return
        half = float(token.get("creation_ttl") or left) * RENEW_AT
        if left <= half and token.get("renewable"):
            wanted = {"increment": login.increment} if login is not None and login.increment else {}
            _, found = await self._ask("POST", "auth/token/renew-self", wanted)
            left = float((found.get("auth") or {}).get("lease_duration") or left)
        if left <= half and login is not None:
            await self._log_in(login)
            return
        self._renew_at = time.monotonic() + max(left * RENEW_AT, 1.0)

    async def _log_in(self, login: Login) -> None:
        proof = await asyncio.to_thread(login.proof)
        status, found = await self._ask("POST", f"auth/{login.mount}/login", proof)
        made = found.get("auth") or {}
        if status != 200 or not made.get("client_token"):
            said = "; ".join(map(str, found.get("errors") or ())) or f"HTTP {status}"
            raise Unavailable(
                f"the login by {login.name} at auth/{login.mount} is refused: {said[:MOST_SAID]}"
            )
        self._token, self._engine = made["client_token"], 0
        self._renew_at = time.monotonic() + max(float(made.get("lease_duration") or 7200) * RENEW_AT, 1.0)

    async def _ask(
        self, method: str, path: str, document: Mapping[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Status and document of an answer that is of use; raises ``Unavailable``."""
        if self._http is None:
            self._http = aiohttp.ClientSession(timeout=TIMEOUT)
        headers = {"X-Vault-Token": self._token, "X-Vault-Request": "true"}
        if self._config.namespace:
            headers["X-Vault-Namespace"] = self._config.namespace
        try:
            async with self._http.request(
                method,
                f"{self._config.address}/v1/{path}",
                headers=headers,
                json=document,
                ssl=self._tls or True,
                server_hostname=(self._config.tls.tls_server_name or None) if self._config.tls else None,
            ) as answer:
                raw = await _read_all(answer.content)
                if answer.status >= 500 or answer.status in (412, 429):
                    sealed = "; it is sealed" if answer.status == 503 else ""
                    raise Unavailable(f"it answers HTTP {answer.status}{sealed}")
                if raw is None:
                    return TOO_LONG, {}
                return answer.status, json.loads(raw) if raw.startswith(b"{") else {}
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise Unavailable(f"no usable answer: {type(error).__name__}: {error}") from None


async def _read_all(content: aiohttp.StreamReader) -> bytes | None:
    """The whole of an answer, None when it is longer than one may be."""
    raw = bytearray()
    async for chunk in content.iter_any():
        raw += chunk
        if len(raw) > MOST_BYTES:
            return None
    return bytes(raw)
