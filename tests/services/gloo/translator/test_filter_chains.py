"""TLS configurations are remembered, so that an edit of one among thousands costs one."""

from __future__ import annotations

from typing import Any

from protos import gloo
from protos.envoy import listener
from services.gloo.plugin import Policy, Scope
from services.gloo.translator.filter_chains import Chain, Configurations
from services.gloo.translator.secret import Known
from shared.codec.encode import encode
from shared.ref import Ref
from shared.report import Report

PETS = Ref("ns", "pets")


class World:
    """Secrets to look at, and how often that was done."""

    def __init__(self) -> None:
        self.secrets: dict[Ref, Known] = {PETS: Known(pair=True)}
        self.scope = Scope(path="", report=Report(), policy=Policy(), read=self._read)

    def _read(self, kind: str, ref: Ref, /) -> Any:
        return self.secrets.get(ref)


def config(**fields: Any) -> gloo.SslConfig:
    return gloo.SslConfig(secret_ref=gloo.ResourceRef(name=PETS.name, namespace=PETS.namespace), **fields)


def test_what_has_not_changed_is_not_translated_again() -> None:
    world, known, one = World(), Configurations(), config()
    first = known.made(one, world.scope)
    known.end_round()

    assert first.secrets == {"secret:ns/pets"}
    assert known.made(one, world.scope) is first
    assert known.made(config(), world.scope) is not first, "another object may say anything"


def test_it_is_when_what_it_looked_at_differs() -> None:
    world, known, one = World(), Configurations(), config()
    first = known.made(one, world.scope)
    known.end_round()
    del world.secrets[PETS]

    again = known.made(one, world.scope)

    assert first.report.clean
    assert again.context is None
    assert "secretRef" in str(again.report.errors[0])


def test_what_is_gone_is_forgotten() -> None:
    world, known, one = World(), Configurations(), config()
    first = known.made(one, world.scope)
    known.end_round()
    known.end_round()

    assert known.made(one, world.scope) is not first


def test_a_chain_is_the_same_in_bytes_as_built() -> None:
    made = Configurations().made(config(), World().scope)
    assert made.context is not None
    filters = [listener.Filter(name="a"), listener.Filter(name="b")]
    for names in ({"b.example.com", "a.example.com"}, {""}):
        chain = Chain(
            context=made.context, socket=made.socket, secrets=made.secrets, timeout=None, names=names
        )
        assert chain.encoded(encode(listener.FilterChain(filters=filters))) == encode(chain.build(filters))
