"""TLS: what an `sslConfig` comes to, towards upstreams and towards clients.

Everything that Envoy would refuse, and that can be known without its files, is found here. Certificates are
named, never put in: see ``secret``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from protos import gloo
from protos.envoy import core, matcher, tls
from services.gloo import checks
from services.gloo.plugin import Scope
from services.gloo.translator.ads import ADS
from services.gloo.translator.secret import (
    TLS_SOCKET,
    asked_for,
    look_up,
    pair_files_name,
    pair_name,
    trusted_file_name,
    trusted_name,
)
from shared.codec.encode import pack
from shared.report import Report

MAX_SNI = MAX_PROTOCOL = 255
MAX_FILE_NAME = 1024
DEFAULT_PROTOCOLS = ("h2", "http/1.1")
NO_PROTOCOLS = ["allow_empty"]

Version = gloo.SslParametersProtocolVersion
StaplePolicy = tls.DownstreamTlsContextOcspStaplePolicy
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What there is to show and to check by: Envoy's names of secrets, empty for none, and who has them."""

    pair: str = ""
    trusted: str = ""
    staple: bool = False
    source: core.ConfigSource = field(default_factory=lambda: ADS)


def upstream_tls(config: gloo.UpstreamSslConfig, scope: Scope) -> tls.UpstreamTlsContext:
    """TLS towards an upstream."""
    check_protocols(config.alpn_protocols, scope)
    if problem := checks.text_value(config.sni, MAX_SNI):
        scope.error("sni", problem)
    parameters = upstream_parameters(config, scope)
    found = material(config, scope)
    if found == Material() and (config.ssl_files or config.secret_ref) and not scope.report.errors:
        at = "sslFiles" if config.ssl_files is not None else "secretRef"
        scope.error(at, "has neither a certificate with its key nor a root CA")
    if config.ssl_files is not None and config.ssl_files.ocsp_staple:
        scope.warn("sslFiles.ocspStaple", "has no effect towards an upstream")
    check_names(config.verify_subject_alt_name, found, scope)
    common = tls_context(found, config.verify_subject_alt_name, parameters, config.alpn_protocols)
    if config.one_way_tls:
        common.tls_certificate_sds_secret_configs = []
    return tls.UpstreamTlsContext(
        common_tls_context=common, sni=config.sni, allow_renegotiation=bool(config.allow_renegotiation)
    )


def downstream_tls(config: gloo.SslConfig, scope: Scope) -> tls.DownstreamTlsContext | None:
    """TLS towards clients, None when it cannot be; a Secret with a problem still has a last good version."""
    own = replace(scope, report=Report())
    protocols: Sequence[str] = config.alpn_protocols or DEFAULT_PROTOCOLS
    protocols = () if protocols == NO_PROTOCOLS else protocols
    check_protocols(protocols, own)
    parameters = tls_parameters(config.parameters or gloo.SslParameters(), own, "parameters")
    timeout = config.transport_socket_connect_timeout
    if timeout is not None and (problem := checks.duration(timeout, positive=True)):
        own.error("transportSocketConnectTimeout", problem)
    for i, name in enumerate(config.sni_domains):
        if problem := sni_problem(name):
            own.error(f"sniDomains[{i}]", problem)
    problems = len(scope.report.errors)
    found = material(config, scope)
    names = config.verify_subject_alt_name
    staple = StaplePolicy(config.ocsp_staple_policy)
    if found.pair:
        check_names(names, found, own)
        if staple is StaplePolicy.MUST_STAPLE and not found.staple:
            own.error("ocspStaplePolicy", "MUST_STAPLE needs an OCSP response: ocspStaple of the certificate")
    elif len(scope.report.errors) == problems:
        own.error("", "needs a certificate and its key: secretRef, sslFiles or sds with both")
    if config.one_way_tls:
        if names:
            own.warn("verifySubjectAltName", "has no effect beside oneWayTls")
        found = replace(found, trusted="")
    scope.report.add(own.report)
    if own.report.errors or not found.pair:
        return None
    resumption = not config.disable_tls_session_resumption
    return tls.DownstreamTlsContext(
        common_tls_context=tls_context(found, names, parameters, protocols),
        require_client_certificate=True if found.trusted else None,
        disable_stateless_session_resumption=None if resumption else True,
        disable_stateful_session_resumption=not resumption,
        ocsp_staple_policy=staple,
    )


def tls_socket(context: tls.UpstreamTlsContext | tls.DownstreamTlsContext) -> core.TransportSocket:
    return core.TransportSocket(name=TLS_SOCKET, typed_config=pack(context))


def tls_context(
    found: Material, names: Sequence[str], parameters: tls.TlsParameters | None, protocols: Sequence[str]
) -> tls.CommonTlsContext:
    """What both directions have in common; without a root CA the other side's certificate is not checked."""
    context = tls.CommonTlsContext(tls_params=parameters, alpn_protocols=list(protocols))
    if found.pair:
        context.tls_certificate_sds_secret_configs = [asked_for(found.pair, found.source)]
    if found.trusted and names:
        context.combined_validation_context = tls.CommonTlsContextCombinedCertificateValidationContext(
            default_validation_context=tls.CertificateValidationContext(
                match_typed_subject_alt_names=[
                    tls.SubjectAltNameMatcher(
                        san_type=san_type(name), matcher=matcher.StringMatcher(exact=name)
                    )
                    for name in names
                ]
            ),
            validation_context_sds_secret_config=asked_for(found.trusted, found.source),
        )
    elif found.trusted:
        context.validation_context_sds_secret_config = asked_for(found.trusted, found.source)
    return context


def material(config: gloo.SslConfig | gloo.UpstreamSslConfig, scope: Scope) -> Material:
    """What *config* names; nothing when there is a mistake in it."""
    if config.secret_ref is not None:
        return in_secret(config.secret_ref, scope)
    before, found = len(scope.report.errors), Material()
    if config.ssl_files is not None:
        found = in_files(config.ssl_files, scope)
    elif config.sds is not None:
        found = at_service(config.sds, scope)
    return found if len(scope.report.errors) == before else Material()


def in_files(files: gloo.SslFiles, scope: Scope) -> Material:
    """Files are Envoy's to read; whether they are any good, it will say."""
    for name, value in (
        ("tlsCert", files.tls_cert),
        ("tlsKey", files.tls_key),
        ("rootCa", files.root_ca),
        ("ocspStaple", files.ocsp_staple),
    ):
        if problem := checks.text_value(value, MAX_FILE_NAME):
            scope.error(f"sslFiles.{name}", problem)
    if files.tls_cert and not files.tls_key:
        scope.error("sslFiles.tlsKey", "required beside tlsCert")
    if files.tls_key and not files.tls_cert:
        scope.error("sslFiles.tlsCert", "required beside tlsKey")
    complete = files.tls_cert and files.tls_key
    return Material(
        pair=pair_files_name(files.tls_cert, files.tls_key, files.ocsp_staple) if complete else "",
        trusted=trusted_file_name(files.root_ca) if files.root_ca else "",
        staple=bool(files.ocsp_staple),
    )


def in_secret(reference: gloo.ResourceRef, scope: Scope) -> Material:
    """What of a Secret there is to use; one with a problem is still used in its last good version."""
    if (found := look_up(reference, scope)) is None:
        return Material()
    ref, known = found
    if known.keys and not known.problem:
        scope.error("secretRef", f"Secret {ref}: is of kind aws; tls is needed")
    return Material(
        pair=pair_name(ref) if known.pair else "",
        trusted=trusted_name(ref) if known.trusted else "",
        staple=known.staple,
    )


def at_service(sds: gloo.SdsConfig, scope: Scope) -> Material:
    """Secrets of a service that Envoy's bootstrap knows. gRPC clients of another kind crash stock Envoys."""
    for name, value in (
        ("clusterName", sds.cluster_name or ""),
        ("certificatesSecretName", sds.certificates_secret_name),
        ("validationContextName", sds.validation_context_name),
    ):
        if problem := checks.text_value(value):
            scope.error(f"sds.{name}", problem)
    if not sds.cluster_name:
        scope.error("sds.clusterName", "required: a cluster of Envoy's bootstrap; targetUri is not supported")
    elif sds.target_uri:
        scope.warn("sds.targetUri", "has no effect beside clusterName")
    if not sds.certificates_secret_name and not sds.validation_context_name:
        scope.error("sds", "needs certificatesSecretName, validationContextName, or both")
    service = core.GrpcService(envoy_grpc=core.GrpcServiceEnvoyGrpc(cluster_name=sds.cluster_name or ""))
    return Material(
        pair=sds.certificates_secret_name,
        trusted=sds.validation_context_name,
        staple=True,  # that it is there is the service's business
        source=core.ConfigSource(
            resource_api_version=core.ApiVersion.V3,
            api_config_source=core.ApiConfigSource(
                api_type=core.ApiConfigSourceApiType.GRPC,
                transport_api_version=core.ApiVersion.V3,
                grpc_services=[service],
            ),
        ),
    )


def check_names(names: Sequence[str], found: Material, scope: Scope) -> None:
    """Alternative names of the other side's certificate can be checked if its authority can."""
    if names and not found.trusted:
        scope.error("verifySubjectAltName", "needs a root CA")
    for i, name in enumerate(names):
        if problem := checks.text_value(name) if name else "required":
            scope.error(f"verifySubjectAltName[{i}]", problem)


def san_type(name: str) -> SanType:
    """As which kind of alternative name a certificate would have *name*."""
    if checks.is_ip(name):
        return SanType.IP_ADDRESS
    if ":" in name:
        return SanType.URI
    return SanType.EMAIL if "@" in name else SanType.DNS


def sni_problem(name: str) -> str | None:
    """Whether *name* can be asked for: a DNS name, or ``*.`` and one."""
    if name == "*":
        return "leave out sniDomains for every name"
    below = name.removeprefix("*.")
    if not below or checks.is_ip(below) or checks.host_name(below):
        return f"{checks.shown(name)} is neither a host name nor *. and one"
    return None


def check_protocols(protocols: Sequence[str], scope: Scope) -> None:
    for i, protocol in enumerate(protocols):
        problem = checks.text_value(protocol, MAX_PROTOCOL) if protocol else "required"
        if problem or "," in protocol:
            scope.error(f"alpnProtocols[{i}]", problem or f"{checks.shown(protocol)} is no protocol's name")


def upstream_parameters(config: gloo.UpstreamSslConfig, scope: Scope) -> tls.TlsParameters:
    """Left to itself, Envoy offers upstreams no more than 1.2; we let it offer what clients are offered."""
    own, default = config.parameters, scope.policy.ssl_parameters
    if own is None and default is not None:
        settings = Scope(
            path="settings.upstreamOptions.sslParameters", report=scope.report, policy=scope.policy
        )
        made = tls_parameters(default, settings, "")
    else:
        made = tls_parameters(own or gloo.SslParameters(), scope, "parameters")
    made = made or tls.TlsParameters()
    if not made.tls_maximum_protocol_version:
        made.tls_maximum_protocol_version = tls.TlsParametersTlsProtocol(NEWEST)
    return made


def tls_parameters(given: gloo.SslParameters, scope: Scope, path: str) -> tls.TlsParameters | None:
    oldest = given.minimum_protocol_version or OLDEST
    newest = given.maximum_protocol_version or NEWEST
    at = f"{path}." if path else ""
    if oldest > newest:
        default = "" if given.minimum_protocol_version else ", which is the default minimum"
        scope.error(f"{at}maximumProtocolVersion", f"{newest.name} is older than {oldest.name}{default}")
    for i, text in enumerate(given.cipher_suites):
        if problem := cipher_problem(text):
            scope.error(f"{at}cipherSuites[{i}]", problem)
    for i, curve in enumerate(given.ecdh_curves):
        if curve not in CURVES:
            known = ", ".join(CURVES)
            scope.error(
                f"{at}ecdhCurves[{i}]", f"{checks.shown(curve)} is no curve Envoy knows; one of {known}"
            )
    made = tls.TlsParameters(
        tls_minimum_protocol_version=tls.TlsParametersTlsProtocol(given.minimum_protocol_version),
        tls_maximum_protocol_version=tls.TlsParametersTlsProtocol(given.maximum_protocol_version),
        cipher_suites=given.cipher_suites,
        ecdh_curves=list(dict.fromkeys(given.ecdh_curves)),  # Envoy refuses one that stands there twice
    )
    return made if made != tls.TlsParameters() else None


def cipher_problem(text: str) -> str | None:
    """Whether *text* is a cipher, or several that are equally good: ``[A|B]``."""
    if not GROUP.fullmatch(text):
        return f"{checks.shown(text)} is neither a cipher nor several of them as [A|B]"
    unknown = [name for name in text.strip("[]").split("|") if name not in CIPHERS]
    return f"{checks.shown(unknown[0])} is no cipher of TLS 1.2 that Envoy knows" if unknown else None
