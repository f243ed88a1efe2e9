"""Certificates for tests, made by openssl: authorities, and what they vouch for."""

from __future__ import annotations

import ssl
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SIGNS = "digitalSignature,keyCertSign,cRLSign"  # an authority says so to strict clients, as Python 3.13 is


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its key, as PEM files."""

    cert: Path
    key: Path


class Authority:
    """A certificate authority of its own, its files in *directory*."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self._directory = directory
        self._own = self._paths(name)
        directory.mkdir(parents=True, exist_ok=True)
        own = ("-subj", f"/CN={name}", "-out", self.cert, "-days", 2)
        _openssl("req", "-x509", *_new_key(self._own), *own, "-addext", f"keyUsage=critical,{SIGNS}")

    @property
    def cert(self) -> Path:
        return self._own.cert

    def issue(
        self, name: str, *alternative_names: str, days: int = 2, curve: str = "prime256v1"
    ) -> Certificate:
        """A certificate for *alternative_names* (``DNS:…``, ``URI:…``, ``IP:…``); the one of that name before
        is replaced. With negative *days* it has expired."""
        made, request, extensions = self._paths(name), self._directory / "csr", self._directory / "ext"
        names = f"subjectAltName={','.join(alternative_names)}\n" if alternative_names else ""
        extensions.write_text(f"authorityKeyIdentifier=keyid\n{names}")
        _openssl("req", *_new_key(made, curve), "-subj", f"/CN={name}", "-out", request)
        signer = ("-CA", self.cert, "-CAkey", self._own.key, "-CAcreateserial")
        _openssl(
            "x509", "-req", "-in", request, *signer, "-extfile", extensions, "-days", days, "-out", made.cert
        )
        return made

    def staple(self, certificate: Certificate) -> Path:
        """An OCSP response that says *certificate* is good."""
        serial = _openssl("x509", "-in", certificate.cert, "-noout", "-serial").strip().partition("=")[2]
        index, made = self._directory / "index", certificate.cert.with_suffix(".ocsp")
        index.write_text(f"V\t491231235959Z\t\t{serial}\tunknown\t/CN=x\n")
        asked = ("-index", index, "-CA", self.cert, "-issuer", self.cert, "-cert", certificate.cert)
        signer = ("-rsigner", self.cert, "-rkey", self._own.key)
        _openssl("ocsp", *asked, *signer, "-ndays", 2, "-respout", made, "-noverify")
        return made

    def _paths(self, name: str) -> Certificate:
        return Certificate(self._directory / f"{name}.pem", self._directory / f"{name}.key")


def server_context(certificate: Certificate, *, clients: Authority | None = None) -> ssl.SSLContext:
    """TLS of a server; *clients* vouches for those it takes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    if clients is not None:
        context.load_verify_locations(clients.cert)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@cache
def any_pair() -> tuple[str, str, bytes]:
    """A certificate and its key in PEM, and an OCSP response, for what only has to be valid."""
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        made = authority.issue("any", "DNS:any.example.com")
        return made.cert.read_text(), made.key.read_text(), authority.staple(made).read_bytes()


def _new_key(certificate: Certificate, curve: str = "prime256v1") -> tuple[str | Path, ...]:
    elliptic = ("-newkey", "ec", "-pkeyopt", f"ec_paramgen_curve:{curve}")
    return (*elliptic, "-nodes", "-keyout", certificate.key)


def _openssl(*arguments: object) -> str:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
