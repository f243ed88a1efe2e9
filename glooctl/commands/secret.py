"""``glooctl create secret``, ``get secret``, ``delete secret``: what gloo reads from Vault or a directory."""

from __future__ import annotations

import argparse
import base64
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from glooctl import flags
from glooctl.errors import CommandError, UsageError
from glooctl.secrets import DirectoryStore, SecretStore, VaultAddress, VaultStore
from glooctl.tables import draw
from shared.codec import text
from shared.pem import pem_problem
from shared.ref import Ref, segment_problem

WORDS = ("secret", "secrets", "s")
KEY_FIELDS = {
    "accessKey": "AWS_ACCESS_KEY_ID",
    "secretKey": "AWS_SECRET_ACCESS_KEY",
    "sessionToken": "AWS_SESSION_TOKEN",
}


def add_create(nested: Any) -> None:
    parser = _parser(nested, "a secret, in Vault or in a directory")
    parser.set_defaults(parser=parser)
    kinds = parser.add_subparsers(title="kind", metavar="KIND", parser_class=type(parser))
    aws = _kind(kinds, "aws", "a key of AWS, to call Lambda functions with", create_aws)
    aws.add_argument("--access-key", metavar="ID", help="its id; default: AWS_ACCESS_KEY_ID")
    aws.add_argument("--secret-key", metavar="KEY", help="default: AWS_SECRET_ACCESS_KEY")
    aws.add_argument(
        "--session-token", metavar="TOKEN", help="of a temporary key; default: AWS_SESSION_TOKEN"
    )
    tls = _kind(kinds, "tls", "a certificate with its key, or certificates to trust", create_tls)
    tls.add_argument("--certchain", metavar="FILE", help="PEM: the certificate, and those up to the root")
    tls.add_argument("--privatekey", metavar="FILE", help="PEM: its key, without a passphrase")
    tls.add_argument("--rootca", metavar="FILE", help="PEM: the certificates to trust")
    tls.add_argument("--ocspstaple", metavar="FILE", help="DER: an OCSP response about the certificate")


def add_get(nested: Any) -> None:
    parser = _parser(nested, "the names of secrets")
    parser.add_argument("-n", "--namespace", default="gloo-system", help="default: gloo-system")
    _add_places(parser)
    parser.set_defaults(run=get)


def add_delete(nested: Any) -> None:
    parser = _parser(nested, "a secret, with all its versions")
    _add_name(parser)
    _add_places(parser)
    parser.set_defaults(run=delete)


def create_aws(options: argparse.Namespace) -> int:
    """Write a key: all of it from the flags or, which no list of processes shows, from the environment."""
    key = dict(zip(KEY_FIELDS, (options.access_key, options.secret_key, options.session_token), strict=True))
    if not any(key.values()):
        key = {field: os.environ.get(name, "") for field, name in KEY_FIELDS.items()}
    if not key["accessKey"] or not key["secretKey"]:
        raise UsageError("give --access-key and --secret-key, or set AWS_ACCESS_KEY_ID and its like")
    if not all(value.isascii() and value.isprintable() for value in key.values() if value):
        raise CommandError("the key has a character that no key has")
    return _write(options, "aws", "AWS", key)


def create_tls(options: argparse.Namespace) -> int:
    """Check that the files fit together, and write them."""
    tls = {
        "certChain": _read(options.certchain),
        "privateKey": _read(options.privatekey),
        "rootCa": _read(options.rootca),
    }
    if problem := pem_problem(tls["certChain"], tls["privateKey"], tls["rootCa"]):
        raise CommandError(f"secret {ref_of(options)}: {problem}")
    if options.ocspstaple:
        tls["ocspStaple"] = base64.b64encode(_read_bytes(options.ocspstaple)).decode()
    return _write(options, "tls", "TLS", tls)


def get(options: argparse.Namespace) -> int:
    """Names only: what is in a secret is for gloo."""
    namespace = _segment(options.namespace, "--namespace")
    print(draw(["SECRET"], [[name] for name in store_of(options).list(namespace)]))
    return 0


def delete(options: argparse.Namespace) -> int:
    ref = ref_of(options)
    store_of(options).delete(ref)
    print(f"secret {ref.name} deleted")
    return 0


def ref_of(options: argparse.Namespace) -> Ref:
    ref = flags.ref_of(options)
    return Ref(_segment(ref.namespace, "--namespace"), _segment(ref.name, "--name"))


def store_of(options: argparse.Namespace) -> SecretStore:
    """The place that the flags name, else the environment."""
    directory = options.secret_directory or os.environ.get("GLOO_SECRET_DIRECTORY", "")
    vault = options.vault_address or os.environ.get("VAULT_ADDR", "")
    if options.secret_directory and options.vault_address:
        raise UsageError("give one of --vault-address and --secret-directory")
    if directory and not options.vault_address and not options.use_vault:
        return DirectoryStore(directory)
    if not vault.startswith(("http://", "https://")):
        raise UsageError(
            "say where secrets are: --vault-address http(s)://HOST:PORT (or VAULT_ADDR), "
            "or --secret-directory DIR (or GLOO_SECRET_DIRECTORY)"
        )
    return VaultStore(
        VaultAddress(
            address=vault.rstrip("/"),
            token=options.vault_token or os.environ.get("VAULT_TOKEN", ""),
            prefix=options.vault_path_prefix.strip("/"),
            root=options.vault_root_key.strip("/"),
            namespace=os.environ.get("VAULT_NAMESPACE", ""),
            ca_cert=options.vault_ca_cert or os.environ.get("VAULT_CACERT", ""),
            ca_path=options.vault_ca_path or os.environ.get("VAULT_CAPATH", ""),
            client_cert=options.vault_client_cert or os.environ.get("VAULT_CLIENT_CERT", ""),
            client_key=options.vault_client_key or os.environ.get("VAULT_CLIENT_KEY", ""),
            server_name=options.vault_tls_server_name or os.environ.get("VAULT_TLS_SERVER_NAME", ""),
            insecure=options.vault_tls_insecure,
        )
    )


def _write(options: argparse.Namespace, kind: str, shown: str, fields: Mapping[str, str | None]) -> int:
    ref = ref_of(options)
    document = {
        "metadata": {"name": ref.name, "namespace": ref.namespace},
        kind: {field: value for field, value in fields.items() if value},
    }
    if options.dry_run:
        print(text.render(document), end="")
        return 0
    store_of(options).put(ref, document, replace=options.replace)
    print(draw(["SECRET", "TYPE"], [[ref.name, shown]]))
    return 0


def _kind(
    kinds: Any, word: str, help_text: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = kinds.add_parser(word, help=help_text, allow_abbrev=False)
    parser.add_argument("--replace", action="store_true", help="write a new version of one that exists")
    _add_name(parser)
    _add_places(parser)
    flags.add_dry_run_flag(parser)
    parser.set_defaults(run=run)
    return parser


def _parser(nested: Any, help_text: str) -> argparse.ArgumentParser:
    word, *aliases = WORDS
    parser: argparse.ArgumentParser = nested.add_parser(
        word, aliases=aliases, help=help_text, allow_abbrev=False
    )
    return parser


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("positional_name", nargs="?", metavar="NAME")
    parser.add_argument("--name", metavar="NAME", help="the same as NAME")
    parser.add_argument("-n", "--namespace", default="gloo-system", help="default: gloo-system")


def _add_places(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where secrets are")
    add = group.add_argument
    add("--secret-directory", metavar="DIR", help="as directorySecretSource; default: GLOO_SECRET_DIRECTORY")
    add("--use-vault", action="store_true", help="Vault, though GLOO_SECRET_DIRECTORY is set")
    add("--vault-address", metavar="URL", help="default: VAULT_ADDR")
    add("--vault-token", metavar="TOKEN", help="default: VAULT_TOKEN")
    add("--vault-path-prefix", default="secret", metavar="MOUNT", help="default: secret")
    add("--vault-root-key", default="gloo", metavar="KEY", help="default: gloo")
    for word in ("ca-cert", "ca-path", "client-cert", "client-key"):
        add(f"--vault-{word}", metavar="FILE" if word != "ca-path" else "DIR")
    add("--vault-tls-server-name", metavar="NAME")
    add("--vault-tls-insecure", action="store_true", help="do not check Vault's certificate")


def _segment(value: str, flag: str) -> str:
    if problem := segment_problem(value):
        raise UsageError(f"{flag} {value!r} {problem}")
    return value


def _read(name: str | None) -> str:
    try:
        return _read_bytes(name).decode("ascii") if name else ""
    except UnicodeDecodeError as error:
        raise CommandError(f"{name} is not PEM: not plain text") from error


def _read_bytes(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {name}: {error.strerror}") from error
