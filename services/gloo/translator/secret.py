"""Secrets: what Envoy is to know of them, by names that listeners and clusters ask for (SDS).

A listener or a cluster never holds a certificate, only the name of one. So a renewed certificate is one
small resource, and neither drains a connection. Keys of AWS go the same way: what a cluster names is the
filter that signs with them (ECDS). Translation of everything else sees of a Secret only what kinds of things
are in it (``Known``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from protos import gloo
from protos.envoy import aws_common, aws_signing, core, hcm, matcher, tls
from services.gloo.plugin import Scope
from services.gloo.resources import Resource, resource
from services.gloo.translator.ads import ADS
from shared.codec.encode import encode, pack
from shared.ref import Ref, segment_problem

TLS_SOCKET = "envoy.transport_sockets.tls"
PAIR, TRUSTED = "secret", "secret-ca"
PAIR_FILES, TRUSTED_FILE = "files", "file-ca"
SIGNING = "aws"
SIGNING_FILTER = "envoy.filters.http.aws_request_signing"
SIGNED = (  # what clients and other proxies may add to or change is left out
    matcher.StringMatcher(exact="host"),
    matcher.StringMatcher(exact="content-type"),
    matcher.StringMatcher(prefix="x-amz-"),
)
SOURCE_BYTES = encode(ADS)
UNREAD = "was never read, for its place does not answer; /readyz of gloo tells more"
SIGNING_TYPE = b"aws_request_signing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What there is in a Secret: of `tls` a *pair*, *trusted* certificates, a *staple*; of `aws` *keys*. With
    a *problem*, all else is about its last good version."""

    pair: bool = False
    trusted: bool = False
    staple: bool = False
    keys: bool = False
    problem: str = ""


def look_up(reference: gloo.ResourceRef, scope: Scope) -> tuple[Ref, Known] | None:
    """The Secret that the `secretRef` of *scope* names, and what is known of it; None if it names none."""
    bad = False
    for name, value in (("namespace", reference.namespace), ("name", reference.name)):
        if problem := segment_problem(value) if value else "required":
            scope.error(f"secretRef.{name}", problem)
            bad = True
    if bad:
        return None
    ref = Ref(reference.namespace, reference.name)
    known: Known = scope.read("Secret", ref) or Known(problem=UNREAD)
    if known.problem:
        scope.error("secretRef", f"Secret {ref}: {known.problem}")
    return ref, known


def look_up_key(reference: gloo.ResourceRef, scope: Scope) -> Ref | None:
    """The same of one that is to hold a key of AWS."""
    if (found := look_up(reference, scope)) is None:
        return None
    ref, known = found
    if not known.keys and not known.problem:
        scope.error("secretRef", f"Secret {ref}: is of kind tls; aws is needed")
    return ref


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
    if kind == SIGNING:
        rest = rest.partition(":")[0]
    namespace, _, own = rest.partition("/")
    return Ref(namespace, own) if kind in (PAIR, TRUSTED, SIGNING) else None


def signing_name(ref: Ref, region: str, host: str) -> str:
    """The filter that signs requests with an `aws` Secret, for Lambda at *host*."""
    return f"{SIGNING}:{ref.namespace}/{ref.name}:{region}:{quote(host)}"


def signs(name: str) -> bool:
    """Whether *name* is one of ``signing_name``."""
    return name.startswith(f"{SIGNING}:")


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


def signing_filter(region: str, host: str) -> aws_signing.AwsRequestSigning:
    """What signs calls of functions at *host*; Envoy finds the key by itself."""
    return aws_signing.AwsRequestSigning(
        service_name="lambda", region=region, host_rewrite=host, match_included_headers=list(SIGNED)
    )


def signing_by_name(name: str, secret: gloo.AwsSecret) -> Resource:
    """What Envoys get of an `aws` Secret: the filter of that *name*."""
    *_, region, host = name.split(":")
    found = signing_filter(region, unquote(host))
    inline = aws_common.InlineCredentialProvider(
        access_key_id=secret.access_key,
        secret_access_key=secret.secret_key,
        session_token=secret.session_token,
    )
    found.credential_provider = aws_common.AwsCredentialProvider(inline_credential=inline)
    made = core.TypedExtensionConfig(name=name, typed_config=pack(found))
    return resource(name, encode(made))


def signed_by(name: str) -> hcm.HttpFilter:
    """A filter of ours by its name, as ``names_asked_for`` finds it again."""
    types = [pack(aws_signing.AwsRequestSigning()).type_url]
    return hcm.HttpFilter(
        name=name, config_discovery=core.ExtensionConfigSource(config_source=ADS, type_urls=types)
    )


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
_FROM_US = b"%c%s" % (len(SOURCE_BYTES), re.escape(SOURCE_BYTES))
_ASKED_FOR = re.compile(rb"((?:%s):[!-~]*?)\x12%s" % (_KINDS, _FROM_US))
_SIGNED_BY = re.compile(rb"(%s:[\w.~%%/:-]+)\x2a.{1,2}\x0a%s" % (SIGNING.encode(), _FROM_US), re.DOTALL)


def names_asked_for(body: bytes) -> frozenset[str]:
    """The secrets that an encoded listener or cluster names, whoever made it and whenever."""
    found: set[bytes] = set()
    if TLS_SOCKET.encode() in body:
        found.update(each[1] for each in _ASKED_FOR.finditer(body))
    if SIGNING_TYPE in body:
        found.update(each[1] for each in _SIGNED_BY.finditer(body))
    return frozenset(name.decode() for name in found)


def _detour(path: str, attempt: int) -> str:
    return f"/{path}" if attempt % 2 and path.startswith("/") else "./" * (attempt % 2) + path


def _text(pem: str) -> core.DataSource:
    return core.DataSource(inline_string=pem)
