"""Secrets: what Envoy is to know of them, by names that listeners and clusters ask for (SDS).

A listener or a cluster never holds a certificate, only the name of one. So a renewed certificate is one
small resource, and neither drains a connection. Translation of everything else sees of a Secret only what
kinds of things are in it (``Known``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from protos import gloo
from protos.envoy import core, tls
from services.gloo.resources import Resource, resource
from services.gloo.translator.ads import ADS
from shared.codec.encode import encode
from shared.ref import Ref

TLS_SOCKET = "envoy.transport_sockets.tls"
PAIR, TRUSTED = "secret", "secret-ca"
PAIR_FILES, TRUSTED_FILE = "files", "file-ca"
SOURCE_BYTES = encode(ADS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What there is in a `tls` Secret. With a *problem*, all else is about its last good version."""

    pair: bool = False
    trusted: bool = False
    staple: bool = False
    problem: str = ""


def pair_name(ref: Ref) -> str:
    return f"{PAIR}:{ref.namespace}/{ref.name}"


def trusted_name(ref: Ref) -> str:
    return f"{TRUSTED}:{ref.namespace}/{ref.name}"


def pair_files_name(cert: str, key: str, staple: str) -> str:
    return f"{PAIR_FILES}:{':'.join(quote(path) for path in (cert, key, staple))}"


def trusted_file_name(path: str) -> str:
    return f"{TRUSTED_FILE}:{quote(path)}"


def ref_of(name: str) -> Ref | None:
    """The Secret that Envoy's *name* stands for; None for one made of files."""
    kind, _, rest = name.partition(":")
    namespace, _, own = rest.partition("/")
    return Ref(namespace, own) if kind in (PAIR, TRUSTED) else None


def translate_secret(ref: Ref, secret: gloo.TlsSecret) -> tuple[Resource, ...]:
    """What Envoys get of a Secret."""
    made: list[tls.Secret] = []
    if secret.cert_chain:
        pair = tls.TlsCertificate(
            certificate_chain=_text(secret.cert_chain),
            private_key=_text(secret.private_key),
            ocsp_staple=core.DataSource(inline_bytes=secret.ocsp_staple) if secret.ocsp_staple else None,
        )
        made.append(tls.Secret(name=pair_name(ref), tls_certificate=pair))
    if secret.root_ca:
        trusted = tls.CertificateValidationContext(trusted_ca=_text(secret.root_ca))
        made.append(tls.Secret(name=trusted_name(ref), validation_context=trusted))
    return tuple(resource(each.name, encode(each)) for each in made)


def secret_of_files(name: str, attempt: int = 0) -> Resource | None:
    """A secret whose name says in which files on Envoy's machine it is; Envoy follows their renewal.

    Envoy does not look again for a file that was missing, unless it is told of another one. So a further
    *attempt* is a longer way to the same files.
    """
    kind, _, rest = name.partition(":")
    paths = [_detour(unquote(path), attempt) if path else "" for path in rest.split(":")]
    if kind == PAIR_FILES:
        cert, key, staple = paths
        pair = tls.TlsCertificate(
            certificate_chain=core.DataSource(filename=cert),
            private_key=core.DataSource(filename=key),
            ocsp_staple=core.DataSource(filename=staple) if staple else None,
        )
        made = tls.Secret(name=name, tls_certificate=pair)
    elif kind == TRUSTED_FILE:
        trusted = tls.CertificateValidationContext(trusted_ca=core.DataSource(filename=paths[0]))
        made = tls.Secret(name=name, validation_context=trusted)
    else:
        return None
    return resource(name, encode(made))


def asked_for(name: str, source: core.ConfigSource = ADS) -> tls.SdsSecretConfig:
    """A secret by its name; one of ours as ``names_asked_for`` finds it again."""
    return tls.SdsSecretConfig(name=name, sds_config=source)


_KINDS = "|".join((PAIR, TRUSTED, PAIR_FILES, TRUSTED_FILE)).encode()
_ASKED_FOR = re.compile(rb"((?:%s):[!-~]*?)\x12%c%s" % (_KINDS, len(SOURCE_BYTES), re.escape(SOURCE_BYTES)))


def names_asked_for(body: bytes) -> frozenset[str]:
    """The secrets that an encoded listener or cluster names, whoever made it and whenever."""
    if TLS_SOCKET.encode() not in body:
        return frozenset()
    return frozenset(found[1].decode() for found in _ASKED_FOR.finditer(body))


def _detour(path: str, attempt: int) -> str:
    return f"/{path}" if attempt % 2 and path.startswith("/") else "./" * (attempt % 2) + path


def _text(pem: str) -> core.DataSource:
    return core.DataSource(inline_string=pem)
