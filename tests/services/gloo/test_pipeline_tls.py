"""Secrets through the pipeline: who is served which, and how little a renewed one moves."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from services.gloo.memory import Memory
from services.gloo.pipeline import Changes, Outcome
from services.gloo.resources import CLUSTER, LISTENER, SECRET, Resource
from services.gloo.secrets.source import Answer, answer_of
from services.gloo.translator.secret import names_asked_for
from shared.ref import Ref, Source
from shared.store.keys import PROXY, UPSTREAM
from tests.services.gloo.test_pipeline import PROXY_SOURCE, ROLE, World
from tests.support.certificates import any_pair

CERTIFICATE, KEY, _ = any_pair()
PAIR = {"certChain": CERTIFICATE, "privateKey": KEY}
CATS, DOGS, PETS = (Ref("ns", name) for name in ("cats", "dogs", "pets"))
GONE = Answer(problem="not in Vault at x", absent=True)


def config(ref: Ref, domain: str, **fields: Any) -> dict[str, Any]:
    return {"secretRef": {"name": ref.name, "namespace": ref.namespace}, "sniDomains": [domain], **fields}


def proxy(*configs: dict[str, Any]) -> dict[str, Any]:
    sources = [
        {
            "sources": [
                {"kind": "VirtualService", "name": each["sniDomains"][0], "namespace": "ns", "path": "ssl"}
            ]
        }
        for each in configs
    ]
    route = {"matchers": [{"prefix": "/"}], "directResponseAction": {"status": 200}}
    listener = {
        "name": "listener",
        "bindAddress": "::",
        "bindPort": 8443,
        "metadata": {"sslConfigurations": sources},
        "sslConfigurations": list(configs),
        "httpListener": {"virtualHosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
    }
    return {"listeners": [listener]}


class Secrets(World):
    async def read(self, **answers: Answer) -> Outcome:
        found = {Ref("ns", name): answer for name, answer in answers.items()}
        return await self.pipeline.apply(Changes(secrets=found))

    def served(self, name: str = "listener") -> Resource:
        return self.pipeline.snapshot(PROXY_SOURCE.ref).of(LISTENER).by_name[name]

    @property
    def secrets(self) -> set[str]:
        return set(self.pipeline.snapshot(PROXY_SOURCE.ref).of(SECRET).by_name)

    def problems(self) -> list[str]:
        found = self.pipeline.found_in(PROXY_SOURCE.ref)
        return [f"{source.ref.name}: {error}" for source, report in found.items() for error in report.errors]


def tls(*, trusted: bool = False, version: str = "v1", chain: str = CERTIFICATE) -> Answer:
    return answer_of(
        {"tls": PAIR | {"certChain": chain} | ({"rootCa": CERTIFICATE} if trusted else {})}, version
    )


async def test_only_what_is_referred_to_is_wanted_and_served() -> None:
    world = Secrets()
    await world.put(PROXY, "gateway-proxy", proxy(config(CATS, "cats")))
    await world.put(
        UPSTREAM, "pets", {"consul": {"serviceName": "pets"}, "sslConfig": {"secretRef": PETS._asdict()}}
    )
    assert world.pipeline.secrets_wanted == {CATS, PETS}

    await world.read(cats=tls(), pets=tls(trusted=True))
    assert world.secrets == {"secret:ns/cats", "secret:ns/pets", "secret-ca:ns/pets"}
    assert world.problems() == []

    await world.delete(UPSTREAM, "pets")
    assert world.pipeline.secrets_wanted == {CATS}
    assert world.secrets == {"secret:ns/cats"}


async def test_a_renewed_secret_moves_nothing_but_itself() -> None:
    world = Secrets()
    await world.put(PROXY, "gateway-proxy", proxy(config(CATS, "cats"), config(DOGS, "dogs")))
    await world.put(
        UPSTREAM, "pets", {"consul": {"serviceName": "pets"}, "sslConfig": {"secretRef": CATS._asdict()}}
    )
    await world.read(cats=tls(), dogs=tls())
    before = world.pipeline.snapshot(PROXY_SOURCE.ref)

    outcome = await world.read(cats=tls(version="v2", chain=CERTIFICATE * 2))

    after = outcome.snapshots[ROLE]
    assert after is not None
    assert outcome.reported == set()
    assert after.of(LISTENER) is before.of(LISTENER)
    assert after.of(CLUSTER) is before.of(CLUSTER)
    [changed] = after.of(SECRET).by_name.items() - before.of(SECRET).by_name.items()
    assert changed[0] == "secret:ns/cats"
    assert not (await world.read(cats=tls(version="v3", chain=CERTIFICATE * 2))).snapshots


async def test_a_secret_with_a_problem_keeps_its_last_good_version() -> None:
    world = Secrets()
    await world.put(PROXY, "gateway-proxy", proxy(config(CATS, "cats"), config(DOGS, "dogs")))
    await world.read(cats=tls(), dogs=GONE)
    assert world.problems() == ["dogs: ssl.secretRef: Secret ns.dogs: not in Vault at x"]
    assert b"dogs" not in world.served().body
    listener = world.served()

    await world.read(cats=GONE)
    assert world.problems() == [
        "cats: ssl.secretRef: Secret ns.cats: not in Vault at x",
        "dogs: ssl.secretRef: Secret ns.dogs: not in Vault at x",
    ]
    assert world.served().body == listener.body
    assert world.secrets == {"secret:ns/cats"}

    await world.read(dogs=answer_of({"aws": {"accessKey": "a", "secretKey": "b"}}, "v1"))
    assert "dogs: ssl.secretRef: Secret ns.dogs: is of kind aws; tls is needed" in world.problems()


async def test_a_broken_configuration_keeps_its_last_good_one_also_over_a_restart() -> None:
    world = Secrets()
    await world.put(PROXY, "gateway-proxy", proxy(config(CATS, "cats"), config(DOGS, "dogs")))
    await world.read(cats=tls(), dogs=tls())
    good = world.served().body
    broken = proxy(config(CATS, "cats"), config(DOGS, "dogs", parameters={"cipherSuites": ["RC4"]}))

    await world.put(PROXY, "gateway-proxy", broken)
    assert world.served().body == good
    assert len(world.problems()) == 1

    snapshot = world.pipeline.snapshot(PROXY_SOURCE.ref)
    known = {PROXY_SOURCE.ref: world.pipeline.proxies.tls(PROXY_SOURCE.ref)}
    later = Secrets(memory=Memory({PROXY_SOURCE.ref: snapshot}, tls=known))
    await later.put(PROXY, "gateway-proxy", broken)
    await later.read(cats=tls(), dogs=tls())
    assert later.served().body == good


async def test_what_a_configuration_newly_names_is_tried_first() -> None:
    world, taken = Secrets(), {"secret:ns/dogs"}
    world.pipeline.proxies._takes = lambda ref, name: name in taken
    await world.put(PROXY, "gateway-proxy", proxy(config(CATS, "cats"), config(DOGS, "dogs")))
    await world.read(cats=tls(), dogs=tls())
    before = world.served()
    trial = "trial:secret:ns/pets"
    assert names_asked_for(before.body) == {"secret:ns/cats", "secret:ns/dogs"}, "what is new is not tried"

    given = proxy(config(PETS, "cats"), config(DOGS, "dogs", disableTlsSessionResumption=True))
    await world.put(PROXY, "gateway-proxy", given)
    await world.read(pets=tls())
    assert names_asked_for(world.served().body) == {"secret:ns/cats", "secret:ns/dogs"}
    assert world.served() != before, "the other one is served at once"
    clusters = world.pipeline.snapshot(PROXY_SOURCE.ref).of(CLUSTER).by_name
    assert clusters[trial].sources == {Source("VirtualService", Ref("ns", "cats"))}
    assert world.secrets == {"secret:ns/cats", "secret:ns/dogs", "secret:ns/pets"}
    assert not (await world.pipeline.apply(Changes())).snapshots

    taken.add("secret:ns/pets")
    outcome = await world.pipeline.apply(Changes())
    assert set(outcome.snapshots) == {ROLE}
    assert names_asked_for(world.served().body) == world.secrets == {"secret:ns/pets", "secret:ns/dogs"}
    assert trial not in world.pipeline.snapshot(PROXY_SOURCE.ref).of(CLUSTER).by_name
    assert world.problems() == []


async def test_all_of_several_secrets_are_tried_until_the_last_is_taken() -> None:
    world, taken = Secrets(), {"secret:ns/cats"}

    def takes(ref: Ref, name: str) -> bool:
        taken.intersection_update(world.secrets)  # whatever is served no longer is forgotten
        return name in taken

    world.pipeline.proxies._takes = takes
    await world.put(PROXY, "gateway-proxy", proxy(config(CATS, "cats")))
    await world.read(cats=tls())
    await world.put(PROXY, "gateway-proxy", proxy(config(PETS, "cats")))
    await world.read(pets=tls(trusted=True))

    for name in ("secret:ns/pets", "secret-ca:ns/pets"):
        assert names_asked_for(world.served().body) == {"secret:ns/cats"}
        assert world.secrets == {"secret:ns/cats", "secret:ns/pets", "secret-ca:ns/pets"}
        taken.add(name)
        await world.pipeline.apply(Changes())

    assert names_asked_for(world.served().body) == {"secret:ns/pets", "secret-ca:ns/pets"}


async def test_files_that_an_envoy_did_not_find_are_offered_anew() -> None:
    world = Secrets()
    files = {"sslFiles": {"tlsCert": "/cert", "tlsKey": "/key"}, "sniDomains": ["cats"]}
    await world.put(PROXY, "gateway-proxy", proxy(files, config(DOGS, "dogs")))
    await world.read(dogs=tls())
    before = world.pipeline.snapshot(PROXY_SOURCE.ref)
    assert world.secrets == {"files:/cert:/key:", "secret:ns/dogs"}

    assert not world.pipeline.secrets.try_again(["secret:ns/dogs"])
    assert world.pipeline.secrets.try_again(world.secrets)
    after = (await world.pipeline.apply(Changes())).snapshots[ROLE]

    assert after is not None
    assert after.of(LISTENER) is before.of(LISTENER)
    [changed] = after.of(SECRET).by_name.items() - before.of(SECRET).by_name.items()
    assert changed[0] == "files:/cert:/key:"


async def test_what_stands_in_for_something_keeps_its_secrets() -> None:
    world = Secrets()
    await world.put(PROXY, "gateway-proxy", proxy(config(CATS, "cats")))
    await world.read(cats=tls(), dogs=tls())
    held = world.served().body
    world.pipeline._standing_in = lambda role: [held] if role == ROLE else []

    await world.put(PROXY, "gateway-proxy", proxy(config(DOGS, "dogs")))
    await world.read(dogs=tls())

    assert world.secrets == {"secret:ns/cats", "secret:ns/dogs"}
    assert world.pipeline.secrets_wanted == {CATS, DOGS}


async def test_an_edit_of_routes_does_not_translate_the_listener_again() -> None:
    world = Secrets()
    document = proxy(config(CATS, "cats"))
    await world.put(PROXY, "gateway-proxy", document)
    await world.read(cats=tls())
    unit = world.pipeline.proxies._entries[PROXY_SOURCE.ref]["listener"].listener
    done = unit.done

    document["listeners"][0]["httpListener"]["virtualHosts"][0]["routes"][0]["matchers"] = [{"prefix": "/a"}]
    outcome = await world.put(PROXY, "gateway-proxy", document)

    assert outcome.snapshots
    assert world.pipeline.proxies._entries[PROXY_SOURCE.ref]["listener"].listener.done is done


@pytest.mark.parametrize("seed", range(20))
async def test_any_sequence_of_edits_comes_to_the_same_as_from_scratch(seed: int) -> None:
    random = Random(seed)
    world, answers = Secrets(), dict[str, Answer | None]()
    document: dict[str, Any] = {}
    for step in range(12):
        if not step or random.random() < 0.5:
            domains = random.sample(["a", "b", "c", "d"], random.randint(1, 4))
            configs = (config(random.choice([CATS, DOGS, PETS]), domain) for domain in sorted(domains))
            document = proxy(*configs)
            await world.put(PROXY, "gateway-proxy", document)
        answers = {ref.name: answers.get(ref.name) for ref in world.pipeline.secrets_wanted}
        changed = [name for name, known in answers.items() if known is None] or random.sample(
            list(answers), 1
        )
        found = {name: tls(trusted=random.random() < 0.5, version=f"v{step}") for name in changed}
        await world.read(**found)
        answers = {ref.name: (answers | found)[ref.name] for ref in world.pipeline.secrets_wanted}

    fresh = Secrets()
    await fresh.put(PROXY, "gateway-proxy", document)
    await fresh.read(**{name: answer for name, answer in answers.items() if answer})
    assert world.problems() == []
    for type_url in (LISTENER, SECRET):
        one, other = (each.pipeline.snapshot(PROXY_SOURCE.ref).of(type_url) for each in (world, fresh))
        assert one.by_name == other.by_name
        assert one.version == other.version
    assert world.pipeline.secrets_wanted == fresh.pipeline.secrets_wanted
