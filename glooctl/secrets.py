"""Secrets where gloo reads them: in Vault, or in a directory. Nothing here prints what is in one."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

from glooctl.errors import CommandError, UsageError
from shared.codec import text
from shared.ref import Ref
from shared.tls import client_context

TIMEOUT = 10.0  # seconds
Document = Mapping[str, Any]


class SecretStore(Protocol):
    """A place for secrets; every problem is a ``CommandError``."""

    def put(self, ref: Ref, document: Document, *, replace: bool) -> None:
        """Write a secret; one that exists only if it is to be replaced."""

    def list(self, namespace: str) -> list[str]: ...

    def delete(self, ref: Ref) -> None: ...


class DirectoryStore:
    """``<directory>/secrets/<namespace>/<name>.yaml``, readable by its owner only."""

    def __init__(self, directory: str) -> None:
        self._root = Path(directory) / "secrets"

    def put(self, ref: Ref, document: Document, *, replace: bool) -> None:
        path = self._path(ref)
        if path.exists() and not replace:
            raise exists(ref)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as scratch:  # mode 0600
                scratch.write(text.render(document))
            os.replace(scratch.name, path)
        except OSError as error:
            raise CommandError(f"cannot write {path}: {error.strerror}") from error

    def list(self, namespace: str) -> list[str]:
        return sorted(path.stem for path in (self._root / namespace).glob("*.yaml"))

    def delete(self, ref: Ref) -> None:
        try:
            self._path(ref).unlink()
        except FileNotFoundError as error:
            raise missing(ref, str(self._path(ref))) from error
        except OSError as error:
            raise CommandError(f"cannot delete {self._path(ref)}: {error.strerror}") from error

    def _path(self, ref: Ref) -> Path:
        return self._root / ref.namespace / f"{ref.name}.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultAddress:
    """Where Vault is, who we are there, and where in it secrets are."""

    address: str
    token: str = field(repr=False)
    prefix: str = "secret"
    root: str = "gloo"
    namespace: str = ""
    ca_cert: str = ""
    ca_path: str = ""
    client_cert: str = ""
    client_key: str = ""
    server_name: str = ""
    insecure: bool = False


class VaultStore:
    """A KV engine of version 2 or 1."""

    def __init__(self, vault: VaultAddress) -> None:
        self._vault = vault
        self._engine = 0

    def put(self, ref: Ref, document: Document, *, replace: bool) -> None:
        if self._version() == 1:
            if not replace and self._call("GET", self._path(ref))[0] != 404:
                raise exists(ref)
            self._call("POST", self._path(ref), document)
            return
        options = {} if replace else {"options": {"cas": 0}}
        status, _ = self._call("POST", self._path(ref), {"data": document, **options}, allowed=(400,))
        if status == 400:
            raise exists(ref)

    def list(self, namespace: str) -> list[str]:
        _, found = self._call("LIST", self._path(Ref(namespace, ""), "metadata"))
        return sorted(key for key in (found.get("data") or {}).get("keys", ()) if not key.endswith("/"))

    def delete(self, ref: Ref) -> None:
        path = self._path(ref, "metadata")
        if self._call("GET", path)[0] == 404:
            raise missing(ref, f"Vault at {path}")
        self._call("DELETE", path)

    def _path(self, ref: Ref, part: str = "data") -> str:
        where = f"{part}/" if self._version() == 2 else ""
        own = f"{self._vault.root}/gloo.solo.io/v1/Secret/{ref.namespace}/{ref.name}"
        return f"{self._vault.prefix}/{where}{own}"

    def _version(self) -> int:
        if not self._engine:
            path = f"sys/internal/ui/mounts/{self._vault.prefix}"
            status, found = self._call("GET", path, allowed=(403,))
            options = (found.get("data") or {}).get("options") or {}
            self._engine = 2 if status != 200 or options.get("version") == "2" else 1
        return self._engine

    def _call(
        self, method: str, path: str, body: Document | None = None, *, allowed: tuple[int, ...] = ()
    ) -> tuple[int, dict[str, Any]]:
        vault, parts = self._vault, urlsplit(self._vault.address)
        headers = {"X-Vault-Token": vault.token, "X-Vault-Request": "true"}
        if vault.namespace:
            headers["X-Vault-Namespace"] = vault.namespace
        connection = self._connect(parts.scheme, parts.hostname or "127.0.0.1", parts.port)
        try:
            connection.request(method, f"/v1/{quote(path)}", json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            raw, status = answer.read(), answer.status
        except (OSError, http.client.HTTPException) as error:
            mend = "start it, or name another with --vault-address"
            raise CommandError(f"cannot reach Vault at {vault.address}: {error}; {mend}") from error
        finally:
            connection.close()
        if status == 403 and 403 not in allowed:
            raise CommandError(f"Vault at {vault.address} refuses {path}: give a token with --vault-token")
        if status not in (200, 204, 404, *allowed):
            raise CommandError(f"Vault at {vault.address} answered {status} for {path}")
        return status, json.loads(raw) if raw.startswith(b"{") else {}

    def _connect(self, scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
        if scheme == "https":
            return _Https(host, port, self._tls(), self._vault.server_name or host)
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT)

    def _tls(self) -> ssl.SSLContext:
        vault = self._vault
        try:
            return client_context(
                ca_file=vault.ca_cert,
                ca_path=vault.ca_path,
                cert=vault.client_cert,
                key=vault.client_key,
                verify=not vault.insecure,
            )
        except OSError as error:
            raise UsageError(f"the certificates for Vault cannot be read: {error}") from error


class _Https(http.client.HTTPSConnection):
    """HTTPS to a server that may go by another name than its address."""

    def __init__(self, host: str, port: int | None, tls: ssl.SSLContext, name: str) -> None:
        super().__init__(host, port, timeout=TIMEOUT, context=tls)
        self._tls, self._name = tls, name

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._name)


def exists(ref: Ref) -> CommandError:
    return CommandError(f"secret {ref} exists; write a new version of it with --replace")


def missing(ref: Ref, where: str) -> CommandError:
    return CommandError(f"secret {ref} is not in {where}")
