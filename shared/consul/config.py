"""Where Consul is and who we are to it, from the settings file and Consul's usual environment variables."""

from __future__ import annotations

import math
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from shared.errors import InvalidSettings
from shared.tls import client_context

if TYPE_CHECKING:
    from protos.gloo import Settings

DEFAULT_WAIT = 30.0
LONGEST_WAIT = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsulConfig:
    """One Consul HTTP API and our credentials for it; secrets stay out of ``repr``."""

    scheme: str = "http"
    host: str = "127.0.0.1"
    port: int = 8500
    socket: str = ""
    datacenter: str = ""
    namespace: str = ""
    token: str = field(default="", repr=False)
    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: str = ""
    ca_path: str = ""
    cert_file: str = ""
    key_file: str = ""
    server_name: str = ""
    verify: bool = True
    wait: float = DEFAULT_WAIT
    hold_lost: float = math.inf
    """How long what Consul has lost is gone on with, in seconds."""

    @property
    def address(self) -> str:
        """The address as people write it."""
        return (
            f"unix://{self.socket}" if self.socket else f"{self.scheme}://{bracketed(self.host)}:{self.port}"
        )

    @classmethod
    def of(cls, settings: Settings | None, environ: Mapping[str, str]) -> ConsulConfig:
        """The settings' ``consul`` block; what it leaves out comes from *environ*."""
        given = settings.consul if settings is not None else None

        def setting(name: str, variable: str = "") -> str:
            return (getattr(given, name) if given is not None else "") or environ.get(variable, "")

        address, source = setting("http_address") or setting("address"), "settings: consul.address"
        if not address:
            address, source = environ.get("CONSUL_HTTP_ADDR", ""), "CONSUL_HTTP_ADDR"
        user, _, password = environ.get("CONSUL_HTTP_AUTH", "").partition(":")
        insecure = given.insecure_skip_verify if given is not None else None
        if insecure is None:
            insecure = not _flag(environ, "CONSUL_HTTP_SSL_VERIFY", default=True)
        wait = given.wait_time.total_seconds() if given is not None and given.wait_time else DEFAULT_WAIT
        hold = given.hold_lost if given is not None else None
        scheme, host, port, socket = _parse_address(
            address, source, tls=_flag(environ, "CONSUL_HTTP_SSL", default=False)
        )
        return cls(
            scheme=scheme,
            host=host,
            port=port,
            socket=socket,
            datacenter=setting("datacenter"),
            namespace=environ.get("CONSUL_NAMESPACE", ""),
            token=setting("token", "CONSUL_HTTP_TOKEN") or _token_file(environ),
            username=setting("username") or user,
            password=setting("password") or password,
            ca_file=setting("ca_file", "CONSUL_CACERT"),
            ca_path=setting("ca_path", "CONSUL_CAPATH"),
            cert_file=setting("cert_file", "CONSUL_CLIENT_CERT"),
            key_file=setting("key_file", "CONSUL_CLIENT_KEY"),
            server_name=environ.get("CONSUL_TLS_SERVER_NAME", ""),
            verify=not insecure,
            wait=min(max(wait, 1.0), LONGEST_WAIT),
            hold_lost=max(0.0, hold.total_seconds()) if hold is not None else math.inf,
        )

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context of an https address, else None; unusable files are ``InvalidSettings``."""
        if self.scheme != "https":
            return None
        try:
            return client_context(
                ca_file=self.ca_file,
                ca_path=self.ca_path,
                cert=self.cert_file,
                key=self.key_file,
                verify=self.verify,
            )
        except (OSError, ValueError) as error:
            files = ", ".join(filter(None, (self.ca_file, self.ca_path, self.cert_file, self.key_file)))
            raise InvalidSettings(f"consul: cannot use the TLS files {files}: {error}") from error


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _parse_address(address: str, source: str, *, tls: bool) -> tuple[str, str, int, str]:
    """Scheme, host, port and socket path of ``host:port``, ``http(s)://host:port`` or ``unix://path``."""
    problem = InvalidSettings(
        f"{source}: {address!r} is none of host:port, http(s)://host:port, unix:///path"
    )
    if address.startswith(("unix://", "/")):
        path = address.removeprefix("unix://")
        if not path.startswith("/"):
            raise problem
        return "http", "localhost", 80, path
    split = urlsplit(address if "://" in address else f"//{address}")
    if "@" in split.netloc:
        raise InvalidSettings(f"{source}: name and password belong into consul.username and consul.password")
    scheme = split.scheme or ("https" if tls else "http")
    try:
        port = split.port
    except ValueError:
        raise problem from None
    if (
        scheme not in ("http", "https")
        or (address and not split.hostname)
        or any(letter.isspace() for letter in address)
        or split.path.strip("/")
        or split.query
    ):
        raise problem
    if port is None:
        port = {"http": 80, "https": 443}[scheme] if split.scheme else 8500
    return scheme, split.hostname or "127.0.0.1", port, ""


def _flag(environ: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = environ.get(name, "").strip().lower()
    if not text:
        return default
    if text in ("1", "t", "true"):
        return True
    if text in ("0", "f", "false"):
        return False
    raise InvalidSettings(f"{name}: {environ[name]!r} is neither true nor false")


def _token_file(environ: Mapping[str, str]) -> str:
    path = environ.get("CONSUL_HTTP_TOKEN_FILE", "")
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"CONSUL_HTTP_TOKEN_FILE: {error}") from error
