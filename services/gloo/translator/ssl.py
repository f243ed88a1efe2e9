"""TLS: what an `sslConfig` comes to, towards upstreams and towards clients.

Everything that Envoy would refuse, and that can be known without its files, is found here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from protos import gloo
from protos.envoy import core, matcher, tls
from services.gloo import checks
from services.gloo.plugin import Policy
from shared.codec.encode import pack
from shared.report import Report, join

TLS_SOCKET = "envoy.transport_sockets.tls"
MAX_SNI = MAX_PROTOCOL = 255
MAX_FILE_NAME = 4096

Version = gloo.SslParametersProtocolVersion
SanType = tls.SubjectAltNameMatcherSanType

# The oldest and the newest version there is without a choice.
OLDEST, NEWEST = Version.TLSv1_2, Version.TLSv1_3
GCM_AND_CHACHA = ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
CBC = ("AES128-SHA", "AES256-SHA", "AES128-SHA256")
RFC_CIPHERS = (
    *("AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256"),
    *("AES_128_CBC_SHA", "AES_256_CBC_SHA", "AES_128_CBC_SHA256"),
)
CIPHERS = frozenset(
    (
        *(f"ECDHE-{key}-{cipher}" for key in ("ECDSA", "RSA") for cipher in GCM_AND_CHACHA + CBC),
        *("AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-SHA", "AES256-SHA", "DES-CBC3-SHA"),
        *(f"TLS_ECDHE_{key}_WITH_{cipher}" for key in ("ECDSA", "RSA") for cipher in RFC_CIPHERS),
        *("TLS_RSA_WITH_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_256_GCM_SHA384"),
        *("TLS_RSA_WITH_AES_128_CBC_SHA", "TLS_RSA_WITH_AES_256_CBC_SHA", "TLS_RSA_WITH_3DES_EDE_CBC_SHA"),
    )
)
GROUP = re.compile(r"\[[^\[\]|]+(\|[^\[\]|]+)*\]|[^\[\]|]+")  # [A|B]: either, as the client likes
CURVES = ("X25519", "P-256", "P-384", "P-521", "X25519MLKEM768", "MLKEM1024")


def upstream_tls(
    config: gloo.UpstreamSslConfig, path: str, policy: Policy, report: Report
) -> tls.UpstreamTlsContext:
    """TLS towards an upstream; *path* is where *config* stands in the object of *report*."""
    common = tls.CommonTlsContext(alpn_protocols=config.alpn_protocols)
    check_protocols(config.alpn_protocols, join(path, "alpnProtocols"), report)
    own, where = config.parameters, join(path, "parameters")
    if own is None:
        own, where = policy.ssl_parameters or gloo.SslParameters(), "settings.upstreamOptions.sslParameters"
    common.tls_params = tls_parameters(own, where, report)
    if not own.maximum_protocol_version:  # left to itself, Envoy offers no more than 1.2 to upstreams
        common.tls_params.tls_maximum_protocol_version = tls.TlsParametersTlsProtocol(NEWEST)
    if problem := checks.text_value(config.sni, MAX_SNI):
        report.error(join(path, "sni"), problem)
    trusted = None
    if config.ssl_files is not None:
        pair, trusted = from_files(config.ssl_files, join(path, "sslFiles"), report)
        if pair is None and trusted is None:
            report.error(join(path, "sslFiles"), "needs rootCa, tlsCert and tlsKey, or all three")
        if pair is not None and not config.one_way_tls:
            common.tls_certificates = [pair]
        if config.ssl_files.ocsp_staple:
            report.warn(join(path, "sslFiles.ocspStaple"), "has no effect towards an upstream")
    common.validation_context = validation(
        trusted, config.verify_subject_alt_name, join(path, "verifySubjectAltName"), report
    )
    return tls.UpstreamTlsContext(
        common_tls_context=common, sni=config.sni, allow_renegotiation=bool(config.allow_renegotiation)
    )


def tls_socket(context: tls.UpstreamTlsContext | tls.DownstreamTlsContext) -> core.TransportSocket:
    return core.TransportSocket(name=TLS_SOCKET, typed_config=pack(context))


def from_files(
    files: gloo.SslFiles, path: str, report: Report
) -> tuple[tls.TlsCertificate | None, core.DataSource | None]:
    """Our certificate, and those to trust; Envoy reads the files."""
    for name, value in (
        ("tlsCert", files.tls_cert),
        ("tlsKey", files.tls_key),
        ("rootCa", files.root_ca),
        ("ocspStaple", files.ocsp_staple),
    ):
        if problem := checks.text_value(value, MAX_FILE_NAME):
            report.error(join(path, name), problem)
    if files.tls_cert and not files.tls_key:
        report.error(join(path, "tlsKey"), "required beside tlsCert")
    if files.tls_key and not files.tls_cert:
        report.error(join(path, "tlsCert"), "required beside tlsKey")
    pair = None
    if files.tls_cert or files.tls_key:
        pair = tls.TlsCertificate(
            certificate_chain=core.DataSource(filename=files.tls_cert),
            private_key=core.DataSource(filename=files.tls_key),
        )
    return pair, core.DataSource(filename=files.root_ca) if files.root_ca else None


def validation(
    trusted: core.DataSource | None, names: Sequence[str], path: str, report: Report
) -> tls.CertificateValidationContext | None:
    """How the other side's certificate is checked; without *trusted* it is not."""
    if names and trusted is None:
        report.error(path, "needs a root CA")
    for i, name in enumerate(names):
        if problem := checks.text_value(name) if name else "required":
            report.error(f"{path}[{i}]", problem)
    if trusted is None:
        return None
    return tls.CertificateValidationContext(
        trusted_ca=trusted,
        match_typed_subject_alt_names=[
            tls.SubjectAltNameMatcher(san_type=san_type(name), matcher=matcher.StringMatcher(exact=name))
            for name in names
        ],
    )


def san_type(name: str) -> SanType:
    """As which kind of alternative name a certificate would have *name*."""
    if checks.is_ip(name):
        return SanType.IP_ADDRESS
    if ":" in name:
        return SanType.URI
    return SanType.EMAIL if "@" in name else SanType.DNS


def check_protocols(protocols: Sequence[str], path: str, report: Report) -> None:
    for i, protocol in enumerate(protocols):
        problem = checks.text_value(protocol, MAX_PROTOCOL) if protocol else "required"
        if problem or "," in protocol:
            report.error(f"{path}[{i}]", problem or f"{checks.shown(protocol)} is no protocol's name")


def tls_parameters(given: gloo.SslParameters, path: str, report: Report) -> tls.TlsParameters:
    oldest = given.minimum_protocol_version or OLDEST
    newest = given.maximum_protocol_version or NEWEST
    if oldest > newest:
        default = "" if given.minimum_protocol_version else ", which is the default minimum"
        report.error(
            join(path, "maximumProtocolVersion"), f"{newest.name} is older than {oldest.name}{default}"
        )
    for i, text in enumerate(given.cipher_suites):
        if problem := cipher(text):
            report.error(f"{path}.cipherSuites[{i}]", problem)
    for i, curve in enumerate(given.ecdh_curves):
        if curve not in CURVES:
            report.error(
                f"{path}.ecdhCurves[{i}]",
                f"{checks.shown(curve)} is no curve Envoy knows; one of {', '.join(CURVES)}",
            )
    return tls.TlsParameters(
        tls_minimum_protocol_version=tls.TlsParametersTlsProtocol(given.minimum_protocol_version),
        tls_maximum_protocol_version=tls.TlsParametersTlsProtocol(given.maximum_protocol_version),
        cipher_suites=given.cipher_suites,
        ecdh_curves=given.ecdh_curves,
    )


def cipher(text: str) -> str | None:
    """Whether *text* is a cipher, or several that are equally good: ``[A|B]``."""
    if not GROUP.fullmatch(text):
        return f"{checks.shown(text)} is neither a cipher nor several of them as [A|B]"
    unknown = [name for name in text.strip("[]").split("|") if name not in CIPHERS]
    return f"{checks.shown(unknown[0])} is no cipher of TLS 1.2 that Envoy knows" if unknown else None
