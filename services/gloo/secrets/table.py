"""Secrets as translation and Envoys know them. One that breaks or vanishes keeps its last good version."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from protos import gloo
from services.gloo.resources import Resource
from services.gloo.secrets.source import Answer, kind_of
from services.gloo.translator.secret import (
    Known,
    ref_of,
    secret_of_files,
    signing_by_name,
    signs,
    translate_secret,
)
from shared.ref import Ref, Source
from shared.sigv4 import Key


class SecretTable:
    """``known`` is for reading; it changes with what is in a secret, not with its bytes. ``changes`` counts
    whatever may make ``resources`` differ."""

    def __init__(self) -> None:
        self.changes = 0
        self.known: dict[Ref, Known] = {}
        self._resources: dict[Ref, dict[str, Resource]] = {}
        self._keys: dict[Ref, gloo.AwsSecret] = {}
        self._attempts: dict[str, int] = {}

    def take(self, ref: Ref, answer: Answer) -> bool:
        """Take over what was read; whether translation has to look at it again."""
        self.changes += 1
        before = self.known.get(ref)
        secret = answer.secret or gloo.Secret()
        problem = answer.problem or other_kind(secret, before)
        if problem:
            found = replace(before or Known(), problem=problem)
        elif secret.aws is not None:
            found = Known(keys=True)
            self._keys[ref] = secret.aws
        else:
            tls = secret.tls or gloo.TlsSecret()
            found = Known(pair=bool(tls.cert_chain), trusted=bool(tls.root_ca), staple=bool(tls.ocsp_staple))
            self._resources[ref] = {each.name: each for each in translate_secret(ref, tls)}
        self.known[ref] = found
        return found != before

    def key(self, ref: Ref) -> Key | None:
        """The key in an `aws` Secret, in its last good version."""
        if (found := self._keys.get(ref)) is None:
            return None
        return Key(id=found.access_key, secret=found.secret_key, session_token=found.session_token)

    def keep(self, refs: frozenset[Ref]) -> None:
        """Forget all others."""
        for ref in self.known.keys() - refs:
            del self.known[ref]
            self._resources.pop(ref, None)
            self._keys.pop(ref, None)

    def try_again(self, refused: Iterable[str]) -> bool:
        """Have Envoys look again for files that they did not find; whether there are such."""
        files = [name for name in refused if secret_of_files(name) is not None]
        self.changes += bool(files)
        for name in files:
            self._attempts[name] = self._attempts.get(name, 0) + 1
        return bool(files)

    def resources(self, asked: Mapping[str, Iterable[Source]]) -> Iterator[Resource]:
        """The secrets that are *asked* for by name, as far as there are any, and for whom."""
        for name, sources in asked.items():
            ref = ref_of(name)
            if ref is None:
                found = secret_of_files(name, self._attempts.get(name, 0))
            elif signs(name):
                found = signing_by_name(name, self._keys[ref]) if ref in self._keys else None
            else:
                found = self._resources.get(ref, {}).get(name)
            if found is not None:
                yield replace(found, sources=frozenset(sources))


def other_kind(secret: gloo.Secret, before: Known | None) -> str:
    """What is wrong with the kind of a *secret*; one whose last good version is in use cannot change it."""
    usable, kind = ["tls", "aws"], kind_of(secret)
    if before is not None and (before.keys or before.pair or before.trusted):
        usable = ["aws" if before.keys else "tls"]
    return "" if kind in usable else f"is of kind {kind or 'none'}; {' or '.join(usable)} is needed"
