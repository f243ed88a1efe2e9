"""AWS's signature of requests, version 4, and where a process finds the key to sign with."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self
from urllib.parse import quote, urlsplit

ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An access key; *session_token* goes with a temporary one."""

    id: str
    secret: str = field(repr=False)
    session_token: str = field(default="", repr=False)

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self | None:
        """The key in the environment, None if there is none."""
        key, secret = environ.get("AWS_ACCESS_KEY_ID", ""), environ.get("AWS_SECRET_ACCESS_KEY", "")
        token = environ.get("AWS_SESSION_TOKEN", "")
        return cls(id=key, secret=secret, session_token=token) if key and secret else None


def sign_post(
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    key: Key,
    region: str,
    service: str,
    now: datetime | None = None,
) -> dict[str, str]:
    """The headers of a POST of *body* to *url*, which has no query: those given, and those that sign all."""
    parts, at = urlsplit(url), now or datetime.now(UTC)
    signed = {name.lower(): value for name, value in headers.items()}
    signed |= {"host": parts.netloc, "x-amz-date": at.strftime("%Y%m%dT%H%M%SZ")}
    if key.session_token:
        signed["x-amz-security-token"] = key.session_token
    names = ";".join(sorted(signed))
    listed = (f"{name}:{signed[name].strip()}" for name in sorted(signed))
    path = quote(parts.path or "/", safe="/-_.~")
    canonical = "\n".join(("POST", path, "", *listed, "", names, hashlib.sha256(body).hexdigest()))
    scope = f"{at:%Y%m%d}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join((ALGORITHM, signed["x-amz-date"], scope, digest))
    derived = f"AWS4{key.secret}".encode()
    for part in (*scope.split("/"), text):
        derived = hmac.new(derived, part.encode(), hashlib.sha256).digest()
    proof = f"Credential={key.id}/{scope}, SignedHeaders={names}, Signature={derived.hex()}"
    return {**signed, "authorization": f"{ALGORITHM} {proof}"}
