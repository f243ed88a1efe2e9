"""Quarantine by scripted refusals: who is convicted, what is served meanwhile, how often Envoy says no."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from random import Random

import pytest
from envoy.config.route.v3 import route_components_pb2, route_pb2

from services.gloo.parts import parts_of
from services.gloo.quarantine import SEARCH_SECONDS, Blame, Place, Quarantine, accused, counted
from services.gloo.resources import (
    CLUSTER,
    LISTENER,
    ROUTES,
    Resource,
    Resources,
    Snapshot,
    TypeUrl,
    resource,
)
from services.gloo.translator.names import forward_proxy_name
from shared.ref import Ref, Source

ROLE = "gloo-system~gateway-proxy"
RETRY = 300.0
NAMELESS = "missing ): a(b"
Hosts = Mapping[str, str]


def routes(hosts: Hosts, *, domains: Mapping[str, tuple[str, ...]] | None = None, limit: int = 0) -> Resource:
    """A route configuration whose hosts differ by the name of their one route."""
    made = route_pb2.RouteConfiguration(name="routes")
    for name, content in hosts.items():
        host = made.virtual_hosts.add(name=name, domains=(domains or {}).get(name, (f"{name}.example.com",)))
        host.routes.add(name=content).match.prefix = "/"
    if limit:
        made.max_direct_response_body_size_bytes.value = limit
    body = made.SerializeToString(deterministic=True)
    return resource("routes", body, [Source("VirtualService", Ref("n", name)) for name in hosts])


def contents(served: Resource | None) -> dict[str, str]:
    """Each host's route by its name, as a client reads it."""
    assert served is not None
    hosts = route_pb2.RouteConfiguration.FromString(served.body).virtual_hosts
    return {host.name: host.routes[0].name for host in hosts}


def host_of(served: Resource, name: str) -> route_components_pb2.VirtualHost:
    return route_components_pb2.VirtualHost.FromString(parts_of(ROUTES, served.body)[name])


Verdict = Callable[[Resource], str | None]
"""What an Envoy says against a resource; None when it takes it."""


def dislikes(*bad: str, text: str = NAMELESS) -> Verdict:
    return lambda given: text if set(bad) & set(contents(given).values()) else None


class Envoy:
    """A client that answers what it is served of one type, as the xDS server would tell of it."""

    def __init__(self, world: World, name: str, verdict: Verdict, type_url: TypeUrl = ROUTES) -> None:
        self.world, self.name, self.verdict, self.type_url = world, name, verdict, type_url
        self.has: dict[str, Resource] = {}
        self.no: dict[str, int] = {}
        self.refusals: list[Resource] = []
        world.quarantine.connected(name)

    def answer(self) -> bool:
        """Take or refuse what is news; whether there was any."""
        news = self.take()
        for each in news:
            self.say(each)
        return bool(news)

    def take(self) -> list[Resource]:
        served = self.world.served(self.type_url)
        self.has = {name: each for name, each in self.has.items() if name in served}
        return [
            each
            for name, each in served.items()
            if self.has.get(name) != each and self.no.get(name) != each.digest
        ]

    def say(self, each: Resource) -> None:
        place, blame = Place(ROLE, self.type_url, each.name), self.verdict(each)
        self.no.pop(each.name, None)
        if blame is None:
            self.has[each.name] = each
            self.world.quarantine.accepted(self.name, ROLE, self.type_url, [each], self.world.now)
            return
        self.no[each.name] = each.digest
        self.has.pop(each.name, None)  # the server is unsure and sends again what stands in
        self.refusals.append(each)
        who = Blame(client=self.name, node=f"node-{self.name}", text=blame)
        self.world.quarantine.refused(place, who, each, self.world.now)


class World:
    def __init__(self) -> None:
        self.quarantine = Quarantine(retry=RETRY)
        self.now = 0.0
        self._wanted = Snapshot()

    def want(self, *resources: Resource, type_url: TypeUrl = ROUTES) -> None:
        old = self._wanted.of(type_url)
        gone = old.by_name.keys() - {each.name for each in resources}
        self._wanted = self._wanted.replaced({type_url: old.patched(put=resources, drop=gone)})
        self.quarantine.want(ROLE, self._wanted)

    def served(self, type_url: TypeUrl = ROUTES) -> dict[str, Resource]:
        snapshot = self.quarantine.served(ROLE)
        assert snapshot is not None
        return dict(snapshot.of(type_url).by_name)

    def hosts(self) -> dict[str, str]:
        return contents(self.served().get("routes"))

    def settle(self, *envoys: Envoy, rounds: int = 100) -> None:
        for _ in range(rounds):
            moved = [envoy.answer() for envoy in envoys]
            if not any(moved):
                return
        raise AssertionError("the conversation does not end")

    def held(self) -> list[str]:
        return [held.part for held in self.quarantine.held(ROLE)]


def many(count: int, changes: Hosts | None = None) -> dict[str, str]:
    return {f"h{i}": "old" for i in range(count)} | dict(changes or {})


def begun(hosts: Hosts, verdict: Verdict) -> tuple[World, Envoy]:
    """A role whose one Envoy has accepted *hosts*."""
    world = World()
    envoy = Envoy(world, "1", verdict)
    world.want(routes(hosts))
    world.settle(envoy)
    return world, envoy


def test_nothing_is_replaced_while_nobody_refuses() -> None:
    world = World()
    wanted = routes(many(3))
    world.want(wanted)

    assert world.served()["routes"] is wanted
    assert world.quarantine.wake_at() == float("inf")


def test_the_only_host_that_changed_is_convicted_by_one_refusal() -> None:
    world, envoy = begun(many(5), dislikes("bad"))

    world.want(routes(many(5, {"h3": "bad"})))
    world.settle(envoy)

    assert world.hosts() == many(5)
    assert len(envoy.refusals) == 1
    (held,) = world.quarantine.held(ROLE)
    assert (held.part, held.blame.text, held.blame.node) == ("h3", NAMELESS, "node-1")
    assert envoy.has["routes"].digest == routes(many(5)).digest  # to the byte what it had


def test_other_changes_go_on_while_a_host_is_held_and_nothing_is_refused_again() -> None:
    world, envoy = begun(many(5), dislikes("bad"))
    world.want(routes(many(5, {"h3": "bad"})))
    world.settle(envoy)

    for i in range(10):
        world.want(routes(many(5, {"h3": "bad", "h1": f"new-{i}", "extra": "more"})))
        world.settle(envoy)

        assert world.hosts() == many(5, {"h1": f"new-{i}", "extra": "more"})
    assert len(envoy.refusals) == 1


def test_a_new_host_that_is_refused_is_left_out() -> None:
    world, envoy = begun(many(2), dislikes("bad"))

    world.want(routes(many(2, {"new": "bad"})))
    world.settle(envoy)

    assert world.hosts() == many(2)
    assert world.quarantine.held(ROLE)[0].good is None


def test_a_mended_host_is_tried_again_and_one_broken_otherwise_is_held_again() -> None:
    world, envoy = begun(many(2), dislikes("bad", "worse"))
    world.want(routes(many(2, {"h1": "bad"})))
    world.settle(envoy)

    world.want(routes(many(2, {"h1": "worse"})))
    world.settle(envoy)
    assert (world.hosts(), world.held(), len(envoy.refusals)) == (many(2), ["h1"], 2)
    world.want(routes(many(2, {"h1": "mended"})))
    world.settle(envoy)

    assert (world.hosts(), world.held(), len(envoy.refusals)) == (many(2, {"h1": "mended"}), [], 2)


def test_a_host_that_is_gone_is_held_no_more() -> None:
    world, envoy = begun(many(2), dislikes("bad"))
    world.want(routes(many(2, {"new": "bad"})))
    world.settle(envoy)

    world.want(routes(many(2)))

    assert world.held() == []


@pytest.mark.parametrize("bad", [["n0"], ["n999"], ["n3", "n4"], ["n10", "n500", "n990"]], ids=str)
def test_among_a_thousand_changes_the_guilty_are_found_by_halving(bad: list[str]) -> None:
    world, envoy = begun(many(3), dislikes("bad"))
    good = {f"n{i}": "new" for i in range(1000)}

    world.want(routes(many(3, good | dict.fromkeys(bad, "bad"))))
    world.settle(envoy)

    assert world.hosts() == many(3, {name: new for name, new in good.items() if name not in bad})
    assert sorted(world.held()) == sorted(bad)
    assert len(envoy.refusals) <= 11 * len(bad)


def test_what_envoy_names_is_found_by_one_refusal_among_many() -> None:
    world, envoy = begun(many(3), dislikes("bad", text="Couldn't parse 'bad' at position 0"))
    good = {f"n{i}": "new" for i in range(1000)}

    world.want(routes(many(3, good | {"n77": "bad"})))
    world.settle(envoy)

    assert world.held() == ["n77"]
    assert world.hosts() == many(3, {name: new for name, new in good.items() if name != "n77"})
    assert len(envoy.refusals) == 1


def test_a_misleading_word_harms_nobody_in_the_end() -> None:
    world, envoy = begun(many(3), dislikes("bad", text="something about n5.example.com"))
    good = {f"n{i}": "new" for i in range(20)}

    world.want(routes(many(3, good | {"n7": "bad"})))
    world.settle(envoy)

    assert world.held() == ["n7"]
    assert world.hosts() == many(3, {name: new for name, new in good.items() if name != "n7"})


def test_a_first_configuration_with_a_poison_in_it_is_served_without_it() -> None:
    world, envoy = begun(many(50, {"h20": "bad"}), dislikes("bad"))

    assert world.hosts() == {name: "old" for name in many(50) if name != "h20"}
    assert world.held() == ["h20"]
    assert len(envoy.refusals) < 10


def test_changes_that_come_while_the_guilty_is_looked_for_are_served() -> None:
    world, envoy = begun(many(3), dislikes("bad"))
    changes = {f"n{i}": "new" for i in range(64)} | {"n9": "bad"}
    for i in range(30):
        changes |= {f"later-{i}": "new"}
        world.want(routes(many(3, changes)))
        envoy.answer()
    world.settle(envoy)

    assert world.held() == ["n9"]
    assert world.hosts() == many(3, {name: new for name, new in changes.items() if new != "bad"})


def test_the_answer_to_an_older_version_convicts_nobody() -> None:
    world, envoy = begun(many(3), dislikes("bad"))
    world.want(routes(many(3, {"h1": "bad"})))
    (first,) = envoy.take()
    slow = Envoy(world, "2", dislikes("bad"))
    envoy.say(first)
    world.want(routes(many(3, {"h1": "bad", "h2": "new"})))

    slow.say(first)
    world.settle(envoy, slow)

    assert world.held() == ["h1"]
    assert world.hosts() == many(3, {"h2": "new"})


def test_options_of_the_configuration_itself_are_a_part_of_their_own() -> None:
    world = World()
    envoy = Envoy(world, "1", lambda given: "too much" if b"\x5a\x02\x08\x09" in given.body else None)
    world.want(routes(many(2)))
    world.settle(envoy)

    world.want(routes(many(2, {"h1": "new"}), limit=9))
    world.settle(envoy)

    assert world.held() == [""]
    assert world.hosts() == many(2, {"h1": "new"})


def test_a_stand_in_leaves_its_domains_to_who_has_them_by_now() -> None:
    world = World()
    envoy = Envoy(world, "1", dislikes("bad"))
    world.want(routes({"a": "old", "b": "old"}, domains={"a": ("x.com", "y.com"), "b": ("b.com",)}))
    world.settle(envoy)

    now = {"a": ("y.com",), "b": ("X.com",)}
    world.want(routes({"a": "bad", "b": "new"}, domains=now))
    world.settle(envoy)

    assert host_of(world.served()["routes"], "a").domains == ["y.com"]
    assert host_of(world.served()["routes"], "b").domains == ["X.com"]
    assert world.hosts() == {"a": "old", "b": "new"}


@pytest.mark.parametrize("type_url", [CLUSTER, LISTENER])
def test_a_cluster_or_listener_goes_back_to_its_last_good_version(type_url: TypeUrl) -> None:
    world = World()
    envoy = Envoy(world, "1", lambda given: "no" if b"bad" in given.body else None, type_url)
    world.want(resource("a", b"good"), resource("b", b"good"), type_url=type_url)
    world.settle(envoy)

    world.want(resource("a", b"bad"), resource("b", b"new"), resource("c", b"bad"), type_url=type_url)
    world.settle(envoy)

    assert {name: each.body for name, each in world.served(type_url).items()} == {"a": b"good", "b": b"new"}
    assert len(envoy.refusals) == 2
    assert [held.place.name for held in world.quarantine.held(ROLE)] == ["a", "c"]


def test_what_forwards_to_any_host_goes_back_to_the_version_of_another_name() -> None:
    def forwarding(routes: str, settings: str) -> Resource:
        name = forward_proxy_name(routes, settings)
        return resource(name, f"{name} {settings}".encode())

    world, names = World(), [forward_proxy_name("a", each) for each in ("first", "worse", "other")]
    envoy = Envoy(world, "1", lambda given: "no" if b" worse" in given.body else None, CLUSTER)
    world.want(forwarding("a", "first"), forwarding("b", "first"), type_url=CLUSTER)
    world.settle(envoy)

    world.want(forwarding("a", "worse"), forwarding("b", "first"), type_url=CLUSTER)
    world.settle(envoy)
    assert world.served(CLUSTER)[names[1]].body == f"{names[1]} first".encode()
    assert [held.place.name for held in world.quarantine.held(ROLE)] == [names[1]]

    world.want(forwarding("a", "other"), forwarding("b", "first"), type_url=CLUSTER)
    world.settle(envoy)
    assert world.served(CLUSTER)[names[2]].body == f"{names[2]} other".encode()
    assert world.quarantine.held(ROLE) == []


def test_what_another_envoy_takes_is_served_and_the_one_that_refuses_is_on_its_own() -> None:
    world, stubborn = begun(many(3), dislikes("bad"))
    other = Envoy(world, "2", lambda given: None)
    world.settle(other)

    world.want(routes(many(3, {"h1": "bad"})))
    (first,) = other.take()
    stubborn.answer()
    assert world.hosts() == many(3)
    other.say(first)
    world.settle(stubborn, other)
    assert (world.hosts(), world.held()) == (many(3, {"h1": "bad"}), [])
    world.want(routes(many(3, {"h1": "bad", "h2": "new"})))
    world.settle(stubborn, other)

    assert (world.hosts(), world.held()) == (many(3, {"h1": "bad", "h2": "new"}), [])


def test_an_envoy_that_refuses_everything_changes_nothing_for_another() -> None:
    world = World()
    good, mad = Envoy(world, "1", lambda given: None), Envoy(world, "2", lambda given: "no")
    for i in range(5):
        world.want(routes(many(20, {"h1": f"new-{i}"})))
        world.settle(good, mad)

        assert world.hosts() == many(20, {"h1": f"new-{i}"})
        assert good.has["routes"] == world.served()["routes"]


def test_several_envoys_that_refuse_the_same_are_one_case() -> None:
    world = World()
    envoys = [Envoy(world, str(i), dislikes("bad")) for i in range(5)]
    world.want(routes(many(40)))
    world.settle(*envoys)

    world.want(routes(many(40, {"h1": "bad", "h2": "new", "h3": "new"})))
    world.settle(*envoys)

    assert world.held() == ["h1"]
    assert world.hosts() == many(40, {"h2": "new", "h3": "new"})


def test_a_search_whose_envoy_falls_silent_is_given_up() -> None:
    world, envoy = begun(many(3), dislikes("bad"))
    changes = {f"n{i}": "new" for i in range(8)}
    world.want(routes(many(3, changes | {"n1": "bad"})))
    envoy.answer()
    assert world.quarantine.searching(ROLE)

    assert world.quarantine.wake_at() == SEARCH_SECONDS
    world.now = SEARCH_SECONDS
    world.quarantine.disconnected("1")
    assert world.quarantine.tick(world.now) == {ROLE}

    assert not world.quarantine.searching(ROLE)
    next_one = Envoy(world, "2", dislikes("bad"))
    world.settle(next_one)
    assert world.held() == ["n1"]


def test_a_listener_is_tried_again_after_a_while_since_the_machine_may_be_at_fault() -> None:
    world, taken = World(), True
    envoy = Envoy(world, "1", lambda given: "Address already in use" if taken else None, LISTENER)
    world.want(resource("a", b"a"), type_url=LISTENER)
    world.settle(envoy)
    assert world.served(LISTENER) == {}

    taken, envoy.no = False, {}
    assert world.quarantine.wake_at() == RETRY
    world.now = RETRY
    world.quarantine.tick(world.now)
    world.settle(envoy)

    assert set(world.served(LISTENER)) == {"a"}
    assert world.held() == []


def test_what_an_envoy_refused_that_is_gone_is_tried_again_after_a_while() -> None:
    world, envoy = begun(many(2), dislikes("bad"))
    world.want(routes(many(2, {"h1": "bad"})))
    world.settle(envoy)
    assert world.quarantine.wake_at() == float("inf")

    world.quarantine.disconnected("1")
    newer = Envoy(world, "2", lambda given: None)
    world.settle(newer)
    assert world.hosts() == many(2)
    world.quarantine.tick(RETRY)
    world.settle(newer)

    assert world.hosts() == many(2, {"h1": "bad"})


def test_a_restart_keeps_what_is_held_and_sends_nothing_refused_again() -> None:
    world, envoy = begun(many(3), dislikes("bad"))
    poisoned = many(3, {"h1": "bad", "new": "bad"})
    world.want(routes(poisoned))
    world.settle(envoy)
    before, held = world.quarantine.served(ROLE), world.quarantine.held(ROLE)
    assert before is not None

    after = World()
    after.quarantine.restore(ROLE, before, held)
    again = Envoy(after, "1", dislikes("bad"))
    again.has = dict(envoy.has)
    assert after.held() == ["h1", "new"]
    after.want(routes(poisoned))
    after.settle(again)

    assert again.refusals == []
    assert after.served()["routes"].digest == before.of(ROUTES).by_name["routes"].digest
    after.want(routes(poisoned | {"h1": "mended"}))
    after.settle(again)
    assert after.hosts() == many(3, {"h1": "mended"})
    assert after.held() == ["new"]


def test_after_a_restart_the_stored_version_is_what_a_refused_one_goes_back_to() -> None:
    stored = Snapshot({ROUTES: Resources.of([routes(many(100))])})
    world = World()
    world.quarantine.restore(ROLE, stored, ())
    envoy = Envoy(world, "1", dislikes("bad"))

    world.want(routes(many(100, {"h7": "bad"})))
    world.settle(envoy)

    assert world.hosts() == many(100)
    assert len(envoy.refusals) == 1


def test_what_was_held_before_a_restart_is_over_for_good_once_it_is_mended() -> None:
    world = World()
    envoy = Envoy(world, "1", lambda given: "no" if b"bad" in given.body else None, CLUSTER)
    world.want(resource("a", b"good"), type_url=CLUSTER)
    world.settle(envoy)
    world.want(resource("a", b"bad"), type_url=CLUSTER)
    world.settle(envoy)
    before, held = world.quarantine.served(ROLE), world.quarantine.held(ROLE)
    assert before is not None

    after = World()
    after.quarantine.restore(ROLE, before, held)
    after.want(resource("a", b"bad"), type_url=CLUSTER)
    mended, another = resource("a", b"mended"), resource("b", b"new")
    after.want(mended, type_url=CLUSTER)
    after.want(mended, another, type_url=CLUSTER)

    assert after.held() == []
    assert after.served(CLUSTER) == {"a": mended, "b": another}


def test_a_role_that_is_gone_leaves_nothing() -> None:
    world, envoy = begun(many(2), dislikes("bad"))
    world.want(routes(many(2, {"h1": "bad"})))
    world.settle(envoy)

    world.quarantine.forget(ROLE)

    assert world.quarantine.served(ROLE) is None
    assert world.quarantine.held(ROLE) == []
    assert world.quarantine.wake_at() == float("inf")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Duplicate entry of domain b.example.com in route routes", {"b"}),
        ("Incorrect configuration: %NO(x)%. Couldn't find valid command", {"a"}),
        ("Sum of weights in the weighted_cluster must be greater than 0.", set()),
        ("only 'example.com' here", set()),
    ],
)
def test_words_of_the_text_accuse_those_that_hold_them(text: str, expected: Iterable[str]) -> None:
    parts = {"a": b"\n\x0da.example.com %NO(x)%", "b": b"\n\x0db.example.com", "c": b"\n\x0dc.example.com"}

    assert accused(text, parts) == expected


@pytest.mark.parametrize("seed", range(40))
def test_after_any_edits_exactly_the_bad_hosts_are_held_and_nothing_is_refused_again(seed: int) -> None:
    chance = Random(seed)
    world = World()
    verdict = dislikes(*(f"bad-{n}" for n in range(100)))
    envoys = [Envoy(world, str(n), verdict) for n in range(chance.choice((1, 1, 3)))]
    hosts = many(12)
    world.want(routes(hosts))
    world.settle(*envoys)
    for turn in range(15):
        for name in chance.sample(sorted(hosts), chance.randint(1, 6)):
            hosts[name] = f"{chance.choice(('bad', 'new', 'new'))}-{turn}"
        if chance.random() < 0.3:
            hosts[f"more-{turn}"] = f"bad-{turn}" if chance.random() < 0.5 else "new"
        if chance.random() < 0.2:
            del hosts[chance.choice(sorted(hosts))]
        world.want(routes(hosts))
        if chance.random() < 0.3:
            chance.choice(envoys).answer()  # the next edit comes while the answer is on its way
            continue
        world.settle(*envoys)

        assert set(world.held()) == {name for name in hosts if hosts[name].startswith("bad")}
        served = world.hosts()
        assert all(served[name] == hosts[name] for name in hosts if not hosts[name].startswith("bad"))
        assert not any(content.startswith("bad") for content in served.values())
        refusals = [len(envoy.refusals) for envoy in envoys]
        world.want(routes({**hosts, "probe": f"new-{turn}"}))
        world.settle(*envoys)
        assert [len(envoy.refusals) for envoy in envoys] == refusals
        world.want(routes(hosts))
        world.settle(*envoys)


def test_a_number_in_the_text_says_which_host_it_is() -> None:
    given = routes(many(5))
    parts = parts_of(ROUTES, given.body)
    text = "RouteConfigurationValidationError.VirtualHosts[3]: embedded message failed validation"

    assert counted(text, given, parts) == {"h3"}
    assert counted(text, given, {"h1": b""}) == set()
    assert counted(text.replace("3", "9"), given, parts) == set()
    assert counted("something else", given, parts) == set()
