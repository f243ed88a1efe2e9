"""xDS over TLS: the certificates, read again when they change, and who may ask for what with theirs."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protos import gloo
from services.gloo.xds.subscription import Node
from shared.errors import InvalidSettings

log = logging.getLogger(__name__)

ANY_ROLE = "*"
LOOK_EVERY = 2.0  # seconds
Renew = Callable[[ssl.SSLContext], None]
Signature = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """PEM files; *client_ca* makes clients show a certificate of those authorities."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    @classmethod
    def of(cls, given: gloo.XdsTls) -> Files:
        if not given.cert_file or not given.key_file:
            raise InvalidSettings("settings.gloo.xds.tls: certFile and keyFile are both needed")
        if given.clients and not given.client_ca_file:
            raise InvalidSettings("settings.gloo.xds.tls.clients: needs clientCaFile, to know them by")
        ca = Path(given.client_ca_file) if given.client_ca_file else None
        return cls(cert=Path(given.cert_file), key=Path(given.key_file), client_ca=ca)

    def load(self) -> ssl.SSLContext:
        """A context of what the files hold now; ``InvalidSettings`` when they do not make one."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"])
        reading = self.cert
        try:
            for reading in (self.cert, self.key, *filter(None, [self.client_ca])):
                reading.read_bytes()
            reading = self.cert
            context.load_cert_chain(self.cert, self.key, password=_no_password)
            if self.client_ca is not None:
                reading = self.client_ca
                context.load_verify_locations(self.client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise InvalidSettings(f"settings.gloo.xds.tls: {reading}: {why}") from error
        return context

    def signature(self) -> Signature:
        """Differs when a file was touched or replaced, as by a symbolic link that moves."""
        return tuple(_signature(path) for path in (self.cert, self.key, self.client_ca) if path)


async def follow(files: Files, seen: Signature, renew: Renew, every: float = LOOK_EVERY) -> None:
    """Have new connections met with new certificates; what does not load leaves the former in use."""
    while True:
        await asyncio.sleep(every)
        now = files.signature()
        if now == seen:
            continue
        seen = now
        try:
            renew(files.load())
        except InvalidSettings as error:
            log.error("certificates not taken over, the former stay", extra={"error": str(error)})
        else:
            log.info("certificates taken over", extra={"certificate": str(files.cert)})


class Roles:
    """The roles each certificate may ask for; the table may change while clients are connected."""

    def __init__(self) -> None:
        self._roles: dict[str, frozenset[str]] | None = None

    def allow(self, clients: Sequence[gloo.XdsClient] | None) -> bool:
        """Take over the table; without one every client may ask for every role. Whether it changed."""
        before, self._roles = self._roles, None
        if clients:
            self._roles = {}
            for client in clients:
                known = self._roles.get(_same(client.san), frozenset())
                self._roles[_same(client.san)] = known | frozenset(client.roles)
        return self._roles != before

    def admit(self, node: Node, certificate: Any) -> str | None:
        """Why *node* may not have its role, in words for its operator; None when it may."""
        if self._roles is None:
            return None
        names = alternative_names(certificate)
        allowed = frozenset[str]().union(*(self._roles.get(_same(name), frozenset()) for name in names))
        if ANY_ROLE in allowed or node.role in allowed:
            return None
        shown = ", ".join(names) or "no subject alternative name"
        if not allowed:
            return f"the certificate ({shown}) is in none of settings.gloo.xds.tls.clients"
        return (
            f"the certificate ({shown}) may not ask for role {node.role!r}, only for "
            f"{', '.join(sorted(allowed))}; see settings.gloo.xds.tls.clients"
        )


def alternative_names(certificate: Mapping[str, Any] | None) -> list[str]:
    """The URIs and DNS names of a certificate as ``ssl`` describes it."""
    found = (certificate or {}).get("subjectAltName", ())
    return [value for kind, value in found if kind in ("URI", "DNS")]


def _same(name: str) -> str:
    """DNS names know no case; what has a scheme is compared as it is."""
    return name if ":" in name else name.lower()


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _no_password() -> str:
    raise ValueError("the key needs a password; give one without")
