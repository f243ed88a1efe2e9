"""What a place for secrets is, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from protos import gloo
from protos._generated.schema import MESSAGES
from shared.codec.decode import decode
from shared.errors import ControlPlaneError
from shared.pem import pem_problem
from shared.ref import Ref
from shared.report import Report


class Unavailable(ControlPlaneError):
    """A place for secrets that gives no answer now; the text says why, and shows no secret."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a place says of a secret: its content, or a problem. An *absent* one may be in another place."""

    secret: gloo.Secret | None = field(default=None, repr=False)
    problem: str = ""
    version: str = ""
    absent: bool = False


class SecretSource(Protocol):
    """A place for secrets. ``period`` is how many seconds may pass until a change is noticed."""

    name: str
    period: float

    async def begin(self) -> None:
        """What must be done before a round of reading; raises ``Unavailable``."""

    async def read(self, ref: Ref, version: str) -> Answer | None:
        """A secret, None if it still has that *version*; raises ``Unavailable``."""

    async def close(self) -> None: ...


def answer_of(document: Any, version: str) -> Answer:
    """A secret's document, decoded and checked. A problem names fields, and never shows what is in them."""
    report = Report()
    secret = decode(gloo.Secret, document, report, unknown="warn") if isinstance(document, dict) else None
    if secret is None:
        where = sorted({_fields_only(problem.path) for problem in report.errors}) or ["the document"]
        return Answer(problem=f"cannot be decoded as a Secret: {', '.join(where)}", version=version)
    if secret.tls is not None:
        tls = secret.tls
        if problem := pem_problem(tls.cert_chain, tls.private_key, tls.root_ca):
            return Answer(problem=problem, version=version)
    if secret.aws is not None and (problem := key_problem(secret.aws)):
        return Answer(problem=problem, version=version)
    return Answer(secret=secret, version=version)


def key_problem(key: gloo.AwsSecret) -> str:
    """What is wrong with a key of AWS, without a word of it."""
    for name, value in (("accessKey", key.access_key), ("secretKey", key.secret_key)):
        if not value:
            return f"aws.{name} is missing"
    whole = key.access_key + key.secret_key + key.session_token
    return "" if whole.isascii() and whole.isprintable() else "aws has a character that no key has"


def kind_of(secret: gloo.Secret) -> str:
    """The kind of a secret by its JSON name; empty: it has none."""
    kinds = MESSAGES["gloo.solo.io.Secret"].items()
    set_ones = (
        json
        for json, (attribute, *_) in kinds
        if json != "metadata" and getattr(secret, attribute) is not None
    )
    return next(set_ones, "")


def _fields_only(path: str) -> str:
    """*path* as far as it is made of field names: a misplaced key could stand in the rest."""
    return ".".join(_known(path.split("."), "gloo.solo.io.Secret")) or "the document"


def _known(steps: list[str], message: str) -> Iterator[str]:
    for step in steps:
        fields = MESSAGES.get(message, {})
        if step not in fields:
            return
        yield step
        message = fields[step][2]
