"""What comes to name other secrets: served once an Envoy has taken those, never before."""

from __future__ import annotations

from protos.envoy import cluster
from services.gloo.feedback import Feedback
from services.gloo.resources import CLUSTER, SECRET, Resource, Resources, Snapshot, resource
from services.gloo.translator.secret import names_asked_for, pair_files_name, trusted_file_name
from services.gloo.trials import PREFIX, TRIAL_SECONDS, Trials, trial_cluster
from services.gloo.xds.cache import Cache
from shared.ref import Ref, Source

ROLE = "gloo-system~gateway-proxy"
PETS = Source("Upstream", Ref("gloo-system", "pets"))
OLD, NEW = trusted_file_name("/etc/old.pem"), trusted_file_name("/etc/new.pem")
PAIR = pair_files_name("/etc/pets.pem", "/etc/pets.key", "")


def pets(secret: str = "", name: str = "pets") -> Resource:
    """A cluster that names one secret, or none."""
    return resource(name, trial_cluster(secret, ()).body if secret else b"plain", [PETS])


def world(*clusters: Resource) -> Snapshot:
    names = sorted({name for each in clusters for name in names_asked_for(each.body)})
    secrets = Resources.of([resource(name, name.encode(), [PETS]) for name in names])
    return Snapshot({CLUSTER: Resources.of(clusters), SECRET: secrets})


class Replica:
    """A gloo with one Envoy that takes clusters and has some files."""

    def __init__(self, *files: str) -> None:
        self.files = files
        self.now = 0.0
        self.cache = Cache()
        self.told: list[str] = []
        self.feedback = Feedback(self.told.append, self.cache, clock=lambda: self.now)
        self.feedback.connected("1", ROLE, "envoy-1")
        self.shown: list[dict[str, bytes]] = []

    def want(self, *clusters: Resource) -> None:
        self.feedback.publish(ROLE, world(*clusters))
        self.shown.append(self.served())

    def served(self) -> dict[str, bytes]:
        snapshot = self.cache.get(ROLE)
        assert snapshot is not None
        return {name: each.body for name, each in snapshot.of(CLUSTER).by_name.items()}

    def answer(self) -> None:
        """Take the clusters, then take or refuse the secrets that they name."""
        snapshot = self.cache.get(ROLE)
        assert snapshot is not None
        clusters = tuple(snapshot.of(CLUSTER).by_name.values())
        self.feedback.acked("1", ROLE, CLUSTER, "v", clusters, ())
        for name in sorted({name for each in clusters for name in names_asked_for(each.body)}):
            secret = (resource(name, name.encode(), [PETS]),)
            if name in self.files:
                self.feedback.acked("1", ROLE, SECRET, "v", secret, ())
            else:
                self.feedback.nacked("1", ROLE, SECRET, "v", secret, "no such file")
        self.shown.append(self.served())


def test_a_trial_names_the_secret_and_nothing_else() -> None:
    for name in (NEW, PAIR):
        made = trial_cluster(name, [PETS])

        assert made.name == PREFIX + name
        assert names_asked_for(made.body) == {name}
        assert made.sources == {PETS}
        assert cluster.Cluster.parse(made.body).load_assignment is not None


def test_a_new_secret_is_tried_beside_the_cluster_before() -> None:
    replica = Replica(OLD, NEW)
    replica.want(pets(OLD))
    replica.answer()
    assert replica.served() == {"pets": pets(OLD).body}

    replica.want(pets(NEW))
    assert replica.served() == {"pets": pets(OLD).body, PREFIX + NEW: trial_cluster(NEW, ()).body}
    replica.answer()

    assert replica.served() == {"pets": pets(NEW).body}
    assert replica.feedback.refusals(ROLE) == []


def test_a_cluster_whose_secret_is_refused_is_never_served() -> None:
    replica = Replica(OLD)
    replica.want(pets(OLD))
    replica.answer()

    replica.want(pets(NEW))
    replica.answer()

    assert replica.served() == {"pets": pets(OLD).body}
    (refusal,) = replica.feedback.refusals(ROLE)
    assert str(refusal) == (
        "Envoy envoy-1 refused cluster pets, served in its last good version: "
        "secret file-ca:/etc/new.pem: no such file"
    )
    assert refusal.sources == {PETS}
    replica.want(pets(NEW), pets(name="other"))
    replica.answer()
    assert replica.served() == {"pets": pets(OLD).body, "other": b"plain"}
    assert all(shown["pets"] == pets(OLD).body for shown in replica.shown)
    replica.want(pets(OLD))
    assert (replica.served(), replica.feedback.refusals(ROLE)) == ({"pets": pets(OLD).body}, [])


def test_another_cluster_with_a_refused_secret_is_held_at_once() -> None:
    replica = Replica()
    replica.want(pets(), pets(name="other"))
    replica.answer()
    replica.want(pets(NEW), pets(name="other"))
    replica.answer()

    replica.want(pets(NEW), pets(NEW, name="other"))

    assert replica.served() == {"pets": b"plain", "other": b"plain"}
    assert len(replica.feedback.refusals(ROLE)) == 2


def test_what_is_known_already_is_not_tried() -> None:
    replica = Replica(OLD, NEW)
    replica.want(pets(OLD), pets(NEW, name="other"))
    replica.answer()

    replica.want(pets(NEW), pets(NEW, name="other"))

    assert replica.served() == {"pets": pets(NEW).body, "other": pets(NEW).body}


def test_a_new_cluster_is_served_at_once() -> None:
    replica = Replica(NEW)
    replica.want(pets())

    replica.want(pets(), pets(NEW, name="new"))

    assert replica.served()["new"] == pets(NEW).body


def test_nobody_is_waited_for_when_no_envoy_is_there() -> None:
    replica = Replica()
    replica.feedback.disconnected("1")
    replica.want(pets(OLD))

    replica.want(pets(NEW))

    assert replica.served() == {"pets": pets(NEW).body}


def test_without_an_answer_the_cluster_is_served_after_a_while() -> None:
    trials = Trials[str]()
    trials.want(ROLE, world(pets(OLD)), 0.0, watched=True)
    first, _ = trials.want(ROLE, world(pets(NEW)), 1.0, watched=True)
    assert first.of(CLUSTER).by_name["pets"].body == pets(OLD).body
    assert trials.wake_at() == 1.0 + TRIAL_SECONDS
    assert trials.tick(1.0) == []

    assert trials.tick(1.0 + TRIAL_SECONDS) == [ROLE]
    then, _ = trials.want(ROLE, trials.wanted(ROLE), 1.0 + TRIAL_SECONDS, watched=True)

    assert then is trials.wanted(ROLE)
    assert trials.wake_at() == float("inf")


def test_listeners_wait_until_an_envoy_has_taken_what_they_come_to_name() -> None:
    replica = Replica()
    replica.want(trial_cluster(NEW, [PETS]))
    assert not replica.feedback.takes(ROLE, NEW)

    for _ in range(2):  # an Envoy that is sent the same again says yes to it
        replica.answer()
        assert not replica.feedback.takes(ROLE, NEW)
        (refusal,) = replica.feedback.refusals(ROLE)
        assert str(refusal) == f"Envoy envoy-1 refused secret {NEW}: no such file"
        replica.files = (NEW,)

    assert replica.feedback.unsure() == set()
    told = len(replica.told)
    replica.feedback.acked("1", ROLE, SECRET, "v", (resource(NEW, b"another way to it", [PETS]),), ())
    assert replica.feedback.takes(ROLE, NEW)
    assert replica.feedback.refusals(ROLE) == []
    assert replica.told[told:]


def test_an_envoy_has_to_take_files_in_two_ways_for_it_may_have_refused_the_first_before() -> None:
    replica = Replica(NEW)
    replica.want(trial_cluster(NEW, [PETS]))

    for _ in range(2):
        replica.answer()
    assert not replica.feedback.takes(ROLE, NEW)
    assert (replica.feedback.unsure(), replica.feedback.unsure()) == ({NEW}, set())

    replica.feedback.acked("1", ROLE, SECRET, "v", (resource(NEW, b"another way to it", [PETS]),), ())
    assert replica.feedback.takes(ROLE, NEW)


def test_a_secret_refused_before_is_refused_for_clusters_too_when_an_envoy_does_not_look_again() -> None:
    replica = Replica(OLD)
    replica.want(pets(OLD))
    replica.answer()
    replica.want(pets(NEW))
    replica.answer()
    replica.want(pets(OLD))
    replica.files = (OLD, NEW)

    replica.want(pets(NEW))
    replica.answer()

    assert replica.served() == {"pets": pets(OLD).body}


def test_listeners_do_not_wait_for_ever_unless_another_replica_tells_of_a_refusal() -> None:
    trials = Trials[str]()
    trials.want(ROLE, world(trial_cluster(NEW, ())), 0.0, watched=False)

    assert trials.tick(TRIAL_SECONDS, {(ROLE, NEW)}) == [ROLE]
    assert not trials.takes(ROLE, NEW)
    assert trials.wake_at() == 2 * TRIAL_SECONDS

    assert trials.tick(2 * TRIAL_SECONDS) == [ROLE]
    assert trials.takes(ROLE, NEW)


def test_a_renewed_secret_that_is_refused_costs_no_cluster() -> None:
    replica = Replica(OLD)
    replica.want(pets(OLD))
    replica.answer()
    replica.files = ()

    replica.answer()

    assert replica.served() == {"pets": pets(OLD).body}
    (refusal,) = replica.feedback.refusals(ROLE)
    assert str(refusal) == f"Envoy envoy-1 refused secret {OLD}: no such file"
