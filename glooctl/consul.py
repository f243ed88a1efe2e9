"""A small blocking client of Consul's KV for one-shot commands.

The services use ``shared.consul``; that one is asynchronous and takes longer to import than a command
line may take to answer.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from glooctl.errors import CommandError
from shared.tls import client_context

TIMEOUT = 10.0  # seconds
VALUE_LIMIT = 512 * 1024  # bytes, unless Consul is configured otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where Consul is and how to speak to it; defaults come from the environment of Consul's own tools."""

    host: str
    port: int
    scheme: str = "http"
    datacenter: str = ""
    token: str = ""
    basic_auth: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    verify: bool = True

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


def address_from(options: Mapping[str, str | None], environ: Mapping[str, str] = os.environ) -> Address:
    """The address of flags (``address``, ``scheme``, ``datacenter``, ``token``) and, for
    what they leave open, of ``CONSUL_HTTP_ADDR``, ``CONSUL_HTTP_TOKEN``, ``CONSUL_HTTP_SSL`` and their kin.
    """
    text = options.get("address") or environ.get("CONSUL_HTTP_ADDR") or "127.0.0.1:8500"
    scheme = options.get("scheme") or ""
    if "://" in text:
        scheme, _, text = text.partition("://")
    if not scheme:
        scheme = "https" if environ.get("CONSUL_HTTP_SSL", "").lower() in ("1", "t", "true") else "http"
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname or "127.0.0.1", parts.port
    except ValueError as error:
        raise CommandError(f"--consul-address {text!r} is not host:port", code=2) from error
    if scheme not in ("http", "https"):
        raise CommandError(f"--consul-scheme {scheme!r} is neither http nor https", code=2)
    return Address(
        host=host,
        port=port or 8500,
        scheme=scheme,
        datacenter=options.get("datacenter") or environ.get("CONSUL_DATACENTER", ""),
        token=options.get("token") or environ.get("CONSUL_HTTP_TOKEN", ""),
        basic_auth=environ.get("CONSUL_HTTP_AUTH", ""),
        ca_file=environ.get("CONSUL_CACERT", ""),
        cert_file=environ.get("CONSUL_CLIENT_CERT", ""),
        key_file=environ.get("CONSUL_CLIENT_KEY", ""),
        verify=environ.get("CONSUL_HTTP_SSL_VERIFY", "true").lower() not in ("0", "f", "false"),
    )


@dataclass(frozen=True, slots=True)
class Pair:
    """A key, its raw value, the index it was last modified at (what a check-and-set needs), and the session
    that holds it."""

    key: str
    value: bytes
    index: int
    session: str = ""


class Consul:
    """Consul's KV over one kept-alive connection."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._connection: http.client.HTTPConnection | None = None
        self._index = 0

    def get(self, key: str) -> Pair | None:
        status, body = self._call("GET", f"/v1/kv/{quote(key)}", {"consistent": ""})
        return None if status == 404 else _pair(json.loads(body)[0])

    def changed(self, key: str, index: int, wait: float) -> int:
        """Wait until *key* has moved on from *index* (0: until now), *wait* seconds at most; its new index.

        The index is one for the next question, not the version of the value.
        """
        query = {"consistent": ""}
        if index:
            query |= {"index": str(index), "wait": f"{max(1, round(wait * 1000))}ms"}
        self._call("GET", f"/v1/kv/{quote(key)}", query, patience=wait * 17 / 16)
        return self._index if self._index >= index else 0

    def list(self, prefix: str) -> Sequence[Pair]:
        status, body = self._call("GET", f"/v1/kv/{quote(prefix)}", {"recurse": "", "consistent": ""})
        return [] if status == 404 else [_pair(row) for row in json.loads(body)]

    def cas(self, key: str, value: bytes, index: int) -> bool:
        """Write *value* if *key* still stands at *index* (0: if it does not exist)."""
        return self._call("PUT", f"/v1/kv/{quote(key)}", {"cas": str(index)}, value)[1].strip() == b"true"

    def delete(self, key: str, index: int) -> bool:
        """Delete *key* if it still stands at *index*."""
        return self._call("DELETE", f"/v1/kv/{quote(key)}", {"cas": str(index)})[1].strip() == b"true"

    def read(self, path: str) -> Any:
        """The JSON behind another GET path of Consul's API; None when there is nothing."""
        status, body = self._call("GET", path, {})
        return None if status == 404 else json.loads(body)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _call(
        self, method: str, path: str, query: Mapping[str, str], body: bytes = b"", patience: float = 0.0
    ) -> tuple[int, bytes]:
        if self.address.datacenter:
            query = {**query, "dc": self.address.datacenter}
        headers = {"X-Consul-Token": self.address.token} if self.address.token else {}
        if self.address.basic_auth:
            headers["Authorization"] = "Basic " + base64.b64encode(self.address.basic_auth.encode()).decode()
        try:
            connection = self._connect()
            if connection.sock is None:
                connection.connect()
            connection.sock.settimeout(TIMEOUT + patience)
            connection.request(method, f"{path}?{urlencode(query)}" if query else path, body, headers)
            answer = connection.getresponse()
            status, text = answer.status, answer.read()
            self._index = int(answer.getheader("X-Consul-Index") or 0)
        except (OSError, http.client.HTTPException) as error:
            if len(body) > VALUE_LIMIT:  # Consul hangs up on one before it has read it
                raise too_large(len(body)) from error
            mend = "start it, or name another with --consul-address"
            if isinstance(error, ssl.SSLError):
                mend = "set CONSUL_CACERT, CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY as it asks for"
            raise CommandError(f"cannot reach Consul at {self.address}: {error}; {mend}") from error
        if status in (401, 403):
            raise CommandError(f"Consul at {self.address} refuses {path}: give a token with --consul-token")
        if status == 413:
            raise too_large(len(body))
        if status not in (200, 404):
            raise CommandError(
                f"Consul at {self.address} answered {status} for {path}: {text.decode().strip()}"
            )
        return status, text

    def _connect(self) -> http.client.HTTPConnection:
        if self._connection is None:
            host, port = self.address.host, self.address.port
            if self.address.scheme == "https":
                context = client_context(
                    ca_file=self.address.ca_file,
                    cert=self.address.cert_file,
                    key=self.address.key_file,
                    verify=self.address.verify,
                )
                self._connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=context)
            else:
                self._connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
        return self._connection


def too_large(size: int) -> CommandError:
    return CommandError(
        f"the object is {size >> 10} KB, more than Consul takes in one value; move routes into RouteTables"
    )


def _pair(row: Mapping[str, Any]) -> Pair:
    return Pair(row["Key"], base64.b64decode(row["Value"] or ""), row["ModifyIndex"], row.get("Session", ""))
