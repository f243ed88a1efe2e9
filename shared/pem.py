"""Whether certificates and keys in PEM can be used, told without showing any of them."""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator


def pem_problem(cert_chain: str, private_key: str, root_ca: str) -> str | None:
    """What is wrong with a certificate, its key and the certificates to trust; each may be missing."""
    cert_chain, private_key, root_ca = map(_plain, (cert_chain, private_key, root_ca))
    if private_key and not cert_chain:
        return "certChain: required beside privateKey"
    if cert_chain and not private_key:
        return "privateKey: required beside certChain"
    if not cert_chain and not root_ca:
        return "has neither certChain and privateKey nor rootCa"
    if cert_chain and (problem := _pair_problem(cert_chain, private_key)):
        return problem
    return "rootCa: no certificate in PEM" if root_ca and not _is_certificate(root_ca) else None


def _pair_problem(cert_chain: str, private_key: str) -> str | None:
    if not _is_certificate(cert_chain):
        return "certChain: no certificate in PEM"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        with _readable(f"{cert_chain}\n") as chain, _readable(f"{private_key}\n") as key:
            context.load_cert_chain(chain, key, password=lambda: "")
    except ssl.SSLError as error:
        if "MISMATCH" in (error.reason or ""):
            return "certChain and privateKey do not belong together"
        if "TOO_SMALL" in (error.reason or ""):
            return "certChain: its key is too short; RSA takes 2048 bits at least"
        return "privateKey: no key in PEM, or one with a passphrase"
    return None


def _plain(pem: str) -> str:
    """*pem* without what may stand around the blocks in letters that PEM does not know."""
    return pem.encode("ascii", "ignore").decode()


def _is_certificate(pem: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=f"{pem}\n")
    except (ssl.SSLError, ValueError):
        return False
    return True


@contextlib.contextmanager
def _readable(pem: str) -> Iterator[str]:
    """A path to read *pem* from; in memory, or where that cannot be in a file of our own."""
    with contextlib.ExitStack() as stack:
        if hasattr(os, "memfd_create"):
            file = stack.enter_context(os.fdopen(os.memfd_create("pem"), "wb"))
            path = f"/proc/self/fd/{file.fileno()}"
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            path = os.path.join(folder, "pem")
            file = stack.enter_context(open(path, "wb"))
        file.write(pem.encode())
        file.flush()
        yield path
