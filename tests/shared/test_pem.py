"""Certificates and keys that fit together, and those that do not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from shared import pem
from shared.pem import pem_problem
from tests.support.certificates import Authority, any_pair

CERTIFICATE, KEY, _ = any_pair()


@pytest.mark.parametrize(
    ("chain", "key", "root", "says"),
    [
        (CERTIFICATE, KEY, "", None),
        (CERTIFICATE, KEY, CERTIFICATE, None),
        ("", "", CERTIFICATE, None),
        (f"Jünk\n{CERTIFICATE}more\n{CERTIFICATE.rstrip()}", f"junk\n{KEY.rstrip()}", "", None),
        (CERTIFICATE, "", "", "privateKey: required beside certChain"),
        ("", KEY, "", "certChain: required beside privateKey"),
        ("", "", "", "has neither certChain and privateKey nor rootCa"),
        ("hush", KEY, "", "certChain: no certificate in PEM"),
        (KEY, KEY, "", "certChain: no certificate in PEM"),
        (CERTIFICATE, "hush", "", "privateKey: no key in PEM, or one with a passphrase"),
        (CERTIFICATE, CERTIFICATE, "", "privateKey: no key in PEM, or one with a passphrase"),
        (CERTIFICATE, KEY, "hush", "rootCa: no certificate in PEM"),
        (CERTIFICATE, KEY, "-----BEGIN CERTIFICATE-----\nhush\n", "rootCa: no certificate in PEM"),
        ("\udcff\0é", KEY, "", "certChain: no certificate in PEM"),
    ],
)
def test_what_is_wrong_is_told(chain: str, key: str, root: str, says: str | None) -> None:
    assert pem_problem(chain, key, root) == says


def test_a_key_of_another_certificate_or_with_a_passphrase_is_told(tmp_path: Path) -> None:
    other = Authority(tmp_path).issue("other")
    locked = subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-in", other.key, "-passout", "pass:hush"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert (
        pem_problem(CERTIFICATE, other.key.read_text(), "")
        == "certChain and privateKey do not belong together"
    )
    assert (
        pem_problem(other.cert.read_text(), locked, "")
        == "privateKey: no key in PEM, or one with a passphrase"
    )


def test_a_short_key_is_told(tmp_path: Path) -> None:
    files = ("-keyout", tmp_path / "key", "-out", tmp_path / "cert")
    command = ("openssl", "req", "-x509", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=short", *files)
    subprocess.run(command, capture_output=True, check=True)

    found = pem_problem((tmp_path / "cert").read_text(), (tmp_path / "key").read_text(), "")

    assert found == "certChain: its key is too short; RSA takes 2048 bits at least"


def test_systems_without_files_in_memory_can_do_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(pem.os, "memfd_create", raising=False)

    assert pem_problem(CERTIFICATE, KEY, "") is None
