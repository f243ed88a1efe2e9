"""TLS of a client, from files: towards Consul and Vault."""

from __future__ import annotations

import ssl


def client_context(
    *, ca_file: str = "", ca_path: str = "", cert: str = "", key: str = "", verify: bool = True
) -> ssl.SSLContext:
    """Without *ca_file* and *ca_path* the system's certificates are trusted; a file that cannot be used is
    an ``OSError`` or a ``ValueError``."""
    context = ssl.create_default_context(cafile=ca_file or None, capath=ca_path or None)
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if cert:
        context.load_cert_chain(cert, key or None)
    return context
