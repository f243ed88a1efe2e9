"""HTTPS requests to an Envoy on this machine, for names that no DNS knows."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
from dataclasses import dataclass

from tests.support.certificates import Authority, Certificate


@dataclass(frozen=True, slots=True)
class Met:
    """An answer, and the certificate it came with; status 0 and why, when there was none."""

    status: int
    text: str = ""
    certificate: bytes = b""

    def shows(self, certificate: Certificate) -> bool:
        return self.certificate == ssl.PEM_cert_to_DER_cert(certificate.cert.read_text())


class Https(http.client.HTTPSConnection):
    """A connection to *port* of this machine that asks for *name*; an empty one asks for none."""

    def __init__(self, port: int, name: str, context: ssl.SSLContext) -> None:
        super().__init__("127.0.0.1", port, timeout=10, context=context)
        self._name, self._tls = name, context

    def connect(self) -> None:
        self.sock = self._tls.wrap_socket(
            socket.create_connection((self.host, self.port), self.timeout), server_hostname=self._name or None
        )


def client_context(
    authority: Authority | None = None, certificate: Certificate | None = None
) -> ssl.SSLContext:
    """TLS of a client; without *authority* it trusts everybody. *certificate* is its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if authority is not None:
        context.load_verify_locations(authority.cert)
    else:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate is not None:
        context.load_cert_chain(certificate.cert, certificate.key)
    return context


async def https_get(
    port: int, host: str, path: str = "/", *, context: ssl.SSLContext | None = None, sni: str | None = None
) -> Met:
    """One request on a connection of its own."""
    return await asyncio.to_thread(_get, port, host, path, context or client_context(), sni)


def _get(port: int, host: str, path: str, context: ssl.SSLContext, sni: str | None) -> Met:
    connection = Https(port, host if sni is None else sni, context)
    try:
        connection.request("GET", path, headers={"Host": host})
        certificate = connection.sock.getpeercert(binary_form=True)
        answer = connection.getresponse()
        return Met(answer.status, answer.read().decode(errors="replace"), certificate)
    except (OSError, http.client.HTTPException) as error:
        return Met(0, repr(error))
    finally:
        connection.close()
