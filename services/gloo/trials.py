"""Trials: what comes to name other secrets is served once an Envoy has taken those.

An Envoy takes such a cluster at once, drops the one before, and only then asks for the secrets. If it does
not take one of them, a file that it does not have, the service is lost. So the cluster before is served on,
beside one without endpoints that names the new secrets and nothing else. What an Envoy says of these decides
what becomes of the cluster.

For listeners translation puts such clusters into what it wants, and asks ``takes`` until it is so.

Pure: no I/O, and the time comes in as *now*.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from protos.envoy import cluster, endpoint, tls
from services.gloo.resources import CLUSTER, SECRET, Resource, Snapshot, resource
from services.gloo.translator.secret import PAIR, PAIR_FILES, names_asked_for
from services.gloo.translator.ssl import Material, tls_context, tls_socket
from shared.codec.encode import encode
from shared.ref import Source

PREFIX = "trial:"
TRIAL_SECONDS = 5.0  # without an answer for so long the cluster is served

B = TypeVar("B")


@dataclass(slots=True)
class Trial(Generic[B]):
    """A role: what is wanted, what is shown of it, and what became of the secrets that were tried."""

    wanted: Snapshot = field(default_factory=Snapshot)
    shown: Snapshot = field(default_factory=Snapshot)
    taken: set[str] = field(default_factory=set)
    refused: dict[str, B] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)  # of those that are being tried
    listening: set[str] = field(default_factory=set)  # those that listeners wait for


class Trials(Generic[B]):
    """``want`` gives the snapshot to go on with, and what to hold back in it: the new cluster, the one
    before, and the blame (a *B*) with which a secret of it was refused. The others say when to ask again."""

    def __init__(self) -> None:
        self._roles: dict[str, Trial[B]] = {}

    def want(
        self, role: str, snapshot: Snapshot, now: float, *, watched: bool
    ) -> tuple[Snapshot, list[tuple[Resource, Resource, B]]]:
        """*watched* says whether the role has an Envoy that could answer."""
        trial = self._roles.setdefault(role, Trial())
        if snapshot.of(CLUSTER) is not trial.wanted.of(CLUSTER):
            clusters = snapshot.of(CLUSTER).by_name
            trial.listening = {name.removeprefix(PREFIX) for name in clusters if name.startswith(PREFIX)}
        trial.wanted = snapshot
        there = snapshot.of(SECRET).by_name
        trial.taken &= there.keys()
        trial.refused = {name: blame for name, blame in trial.refused.items() if name in there}
        return self._show(trial, now, watched)

    def forget(self, role: str) -> None:
        self._roles.pop(role, None)

    def taken(self, role: str, names: Iterable[str]) -> bool:
        """An Envoy has taken these secrets; whether ``want`` gives something else now."""
        trial = self._roles.setdefault(role, Trial())
        trial.taken.update(names)
        for name in trial.refused.keys() & trial.taken:
            del trial.refused[name]
        return not trial.taken.isdisjoint(trial.since.keys() | trial.listening)

    def takes(self, role: str, name: str) -> bool:
        """Whether an Envoy has taken this secret, or would not say for too long."""
        return role in self._roles and name in self._roles[role].taken

    def listens(self, role: str, name: str) -> bool:
        """Whether a listener waits for this secret."""
        return role in self._roles and name in self._roles[role].listening

    def refused(self, role: str, name: str, blame: B) -> bool:
        """An Envoy has refused a secret; whether that is about a trial."""
        trial = self._roles.get(role)
        if trial is None or name in trial.taken or name not in trial.since | trial.refused:
            return False
        trial.refused.setdefault(name, blame)
        return True

    def tick(self, now: float, doubtful: Container[tuple[str, str]] = ()) -> list[str]:
        """The roles that something was tried in for long enough; ``want`` has it served. What is *doubtful*,
        a role's secret, is tried on."""
        roles = []
        for role, trial in self._roles.items():
            late = [name for name, since in trial.since.items() if now >= since + TRIAL_SECONDS]
            trial.taken.update(name for name in late if (role, name) not in doubtful)
            trial.since.update(dict.fromkeys(late, now))
            roles += [role] if late else []
        return roles

    def wake_at(self) -> float:
        """When to call ``tick``; infinity when there is nothing to wait for."""
        began = (since for trial in self._roles.values() for since in trial.since.values())
        return min(began, default=float("inf")) + TRIAL_SECONDS

    def wanted(self, role: str) -> Snapshot:
        return self._roles[role].wanted

    def _show(
        self, trial: Trial[B], now: float, watched: bool
    ) -> tuple[Snapshot, list[tuple[Resource, Resource, B]]]:
        wanted, guilty = trial.wanted.of(CLUSTER), list[tuple[Resource, Resource, B]]()
        kept: list[Resource] = []
        tried: dict[str, set[Source]] = {}
        for new, before, names in self._renamed(trial):
            blame = next((trial.refused[name] for name in sorted(names) if name in trial.refused), None)
            if blame is not None:
                guilty.append((new, before, blame))
            elif watched:
                kept.append(before)
                for name in names:
                    tried.setdefault(name, set()).update(new.sources)
        asked = (tried.keys() | trial.listening) - trial.taken - trial.refused.keys()
        trial.since = {name: trial.since.get(name, now) for name in asked}
        trying = [trial_cluster(name, tried[name]) for name in sorted(tried)]
        put = [*kept, *trying]
        trial.shown = trial.wanted.replaced({CLUSTER: wanted.patched(put=put)}) if put else trial.wanted
        return trial.shown, guilty

    def _renamed(self, trial: Trial[B]) -> Iterator[tuple[Resource, Resource, frozenset[str]]]:
        """The clusters that name secrets nobody has taken, and that the ones before did not name."""
        wanted, shown = trial.wanted.of(CLUSTER), trial.shown.of(CLUSTER)
        if wanted is shown:
            return
        there = trial.wanted.of(SECRET).by_name.keys()
        for name, new in wanted.by_name.items():
            before = shown.by_name.get(name)
            if before is None or before is new or before.body == new.body:
                continue
            names = (names_asked_for(new.body) & there) - trial.taken
            if names and (fresh := names - names_asked_for(before.body)):
                yield new, before, fresh


def trial_cluster(name: str, sources: Iterable[Source]) -> Resource:
    """A cluster that has an Envoy ask for a secret, and does nothing else."""
    pair = name.partition(":")[0] in (PAIR, PAIR_FILES)
    named = Material(pair=name) if pair else Material(trusted=name)
    context = tls.UpstreamTlsContext(common_tls_context=tls_context(named, (), None, ()))
    made = cluster.Cluster(
        name=PREFIX + name,
        type=cluster.ClusterDiscoveryType.STATIC,
        load_assignment=endpoint.ClusterLoadAssignment(cluster_name=PREFIX + name),
        transport_socket=tls_socket(context),
    )
    return resource(made.name, encode(made), sources)
